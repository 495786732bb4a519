"""Look into the memory of a trained agent: an HTML page, to step through episodes.

python -m mtxl_rl.inspect RUN
python -m mtxl_rl.inspect RUN --env mtxl/MemoryS65-v0 --episodes 5 --out memory.html
python -m mtxl_rl.inspect RUN RUN --episodes 1       (side by side, on the same levels)
python -m mtxl_rl.inspect RUN/checkpoints/frames_000000500000
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import mtxl_rl.siblings  # noqa: F401

# isort: split

import torch
import tyro

import envs
from agents.actor_critic import ActorCritic
from envs import BatchedEnv
from mtxl_rl.command import fail_with_one_line, fill_help
from mtxl_rl.config import EvaluateConfig, TrainConfig, check_counts, check_seed
from mtxl_rl.config.option_types import Place
from mtxl_rl.device import pick_device, set_threads
from mtxl_rl.evaluate import in_env_of, load_agent
from mtxl_rl.evaluations.evaluation import (
    EVALUATION_STREAM,
    bound_for,
    check_bound,
    check_spaces,
    level_seeds,
    seed_generators,
)
from mtxl_rl.inspector.page import (
    CLEARED,
    SWAPPED,
    Variant,
    episode_data,
    film_bytes,
    html_of,
    side_by_side,
)
from mtxl_rl.inspector.probe import Probe, collect_samples, fit
from mtxl_rl.inspector.recording import (
    Film,
    Recorder,
    Recording,
    memory_of,
)
from mtxl_rl.inspector.replay import find_donor, replay
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.progress import Ticker
from mtxl_rl.runs.run_directory import check_out, load_config

NUM_PROBE_EPISODES = 96
MAX_DONORS = 20
"""Episodes that are played to find one with another cue."""
MAX_RUNS = 8
"""On one page."""
DONOR_STEPS = 1000
"""Of such an episode, after which its memory stays as it is."""
_RUNS = tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint=f"(at most {MAX_RUNS})")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Options of an inspection."""

    episodes: int = 3
    """New episodes to show."""
    env: str | None = None
    """Another environment than the one of training, with the same observations and actions: a
    longer maze, say. Left out: that of training."""
    out: Place | None = None
    """The page. Left out: inspect.html in the run directory; of several runs beside the first."""
    max_steps: int | None = None
    """Cut episodes off after so many steps. Left out: at the environment's own limit; where it has
    none, at ten times the longest episode of training."""
    seed: int = 1
    """Of levels and actions."""

    def __post_init__(self) -> None:
        if not 1 <= self.episodes <= 20:
            raise ValueError(
                f"episodes={self.episodes} must be from 1 to 20, for a page that opens at once; "
                "set --episodes"
            )
        check_counts(self, ("max_steps",))
        check_seed(self.seed)


def inspect(run: Path, config: InspectConfig) -> Path:
    """Write a page that shows what a trained agent's memory holds, step by step; return it."""
    return inspect_runs((run,), config)


def inspect_runs(
    runs: Annotated[tuple[Place, ...], tyro.conf.Positional, _RUNS],
    config: Annotated[InspectConfig, tyro.conf.OmitArgPrefixes],
) -> Path:
    """Write a page that shows what a trained agent's memory holds, step by step.

    Args:
        runs: Run directories that training has written, or checkpoints; several lie side by side.
        config: What to show.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise ValueError(
            f"{len(runs)} runs are named, and a page has 1 to {MAX_RUNS}; name a run directory: "
            "python -m mtxl_rl.inspect runs/RUN"
        )
    named = [checkpoint.split_place(place) for place in runs]
    configs = [load_config(run) for run, _ in named]
    first = named[0][0]
    out = config.out or (first if len(runs) == 1 else first.parent) / "inspect.html"
    check_out(out, ".html")
    set_threads(1)  # a step of one env is too small to be shared
    pages = []
    for place, (run, path), run_config in zip(runs, named, configs, strict=True):
        path = path or checkpoint.newest_checkpoint(run)
        agent, frames = load_agent(run_config, path, pick_device("cpu"))
        longest = checkpoint.longest_episode(path)
        num_films = len(runs) * config.episodes
        pages.append(page_of(agent, run_config, config, longest, str(place), frames, num_films))
    page = pages[0] if len(pages) == 1 else side_by_side(pages)
    out.write_text(page, encoding="utf-8")
    env_ids = ", ".join(dict.fromkeys(config.env or each.env for each in configs))
    episodes = f"{config.episodes} episode{'s' * (config.episodes != 1)}"
    print(f"{env_ids}, {episodes}: open {out} ({len(page) / 1e6:.1f} MB)")
    return out


def page_of(
    agent: ActorCritic,
    run_config: TrainConfig,
    config: InspectConfig,
    longest: int,
    title: str,
    frames: int,
    num_films: int,
) -> str:
    """Play episodes and return the page.

    Args:
        agent: who plays.
        run_config: of its training.
        config: what to show.
        longest: steps of the longest episode of training, 0 where none has ended.
        title: of the page.
        frames: that the agent was trained for.
        num_films: episodes that share what a page may hold.
    """
    env_id = config.env or run_config.env
    torch.manual_seed(config.seed)
    seed_generators(level_seeds(config.seed, EVALUATION_STREAM))
    env = _make(run_config, config, 1, MAX_DONORS + config.episodes, draws=True)
    ticker = Ticker()
    try:
        check_spaces(agent, env, env_id)
        max_steps = config.max_steps
        if max_steps is not None:
            check_bound(max_steps, env, "set --backend gymnasium in training")
        elif not env.has_time_limit:
            max_steps = bound_for(longest)
        recorder = Recorder(agent, env, ticker)
        films = [Film(film_bytes(num_films)) for _ in range(config.episodes)]
        recordings: list[Recording] = []
        for number, film in enumerate(films, start=1):
            ticker.what = f"{title}: episode {number} of {len(films)}"
            recordings.append(recorder.record(film, max_steps))
        pool = list(recordings)
        ticker.what = f"{title}: episodes to find one with another cue"
        if "long" in agent.core.memories:
            while len(pool) < MAX_DONORS and not all(find_donor(r, pool) for r in recordings):
                pool.append(recorder.record(max_steps=DONOR_STEPS))
        has_cue = env.has_cue
    finally:
        env.close()
    _say_what_is_amiss(title, recordings, max_steps)
    ticker.what = f"{title}: probe, {NUM_PROBE_EPISODES} episodes at once"
    probe, notes = _probe(agent, run_config, config, recordings, max_steps, has_cue, ticker)
    fitted = probe if isinstance(probe, Probe) else None
    episodes = [
        episode_data(agent, recording, film, _variants(agent, recording, pool), fitted)
        for recording, film in zip(recordings, films, strict=True)
    ]
    kind = run_config.core.kind
    subtitle = f"{env_id} · {kind} after {frames:,} frames"
    return html_of(title, subtitle, agent, episodes, probe, notes)


def _say_what_is_amiss(title: str, recordings: list[Recording], max_steps: int | None) -> None:
    """Say where the episodes of the page are no whole ones, or the agent saw what is no number."""
    num_cut = sum(recording.is_cut for recording in recordings)
    if num_cut:
        print(f"{title}: {num_cut} of {len(recordings)} episodes were cut at {max_steps:,} steps; "
              "--max-steps sets it")  # fmt: skip
    for number, recording in enumerate(recordings, start=1):
        if recording.not_finite:
            warnings.warn(
                f"{title}, episode {number}: {recording.not_finite}; what the agent does from then "
                "on means nothing: look at what the environment gives",
                RuntimeWarning,
                stacklevel=2,
            )


def _variants(agent: ActorCritic, recording: Recording, pool: list[Recording]) -> list[Variant]:
    if not agent.core.has_memory:
        return []
    has_slots = "long" in agent.core.memories
    name = "without its long memory" if has_slots else "without its memory"
    cleared = replay(agent, recording, is_cleared=True)
    variants = [Variant(name, "without", CLEARED, cleared)]
    donor = find_donor(recording, pool) if has_slots else None
    if donor is not None:
        cue = max(donor.last_cue[-1], donor.cue[-1])
        whose = f"an episode with cue {cue}" if cue >= 0 else "another episode"
        swapped = replay(agent, recording, donor=donor)
        variants.append(Variant(f"with the long memory of {whose}", "swapped", SWAPPED, swapped))
    return variants


def _probe(
    agent: ActorCritic,
    run_config: TrainConfig,
    config: InspectConfig,
    recordings: list[Recording],
    max_steps: int | None,
    has_cue: bool,
    ticker: Ticker,
) -> tuple[Probe | str | None, list[str]]:
    """Return the probe, or why there is none, and notes on what the page cannot show."""
    notes = []
    if memory_of(agent.initial_state(1)) is None:
        notes.append("This core has no slots and no recurrent state: there is no memory to read.")
    if not has_cue:
        notes.append("The environment does not say which cue it shows: there is no probe.")
    if notes:
        return None, notes
    env = _make(run_config, config, NUM_PROBE_EPISODES, NUM_PROBE_EPISODES, is_probe=True)
    try:
        usual = sum(map(len, recordings)) // len(recordings)
        samples = collect_samples(agent, env, max_steps, usual, ticker)
    finally:
        env.close()
    return fit(samples), notes


def _make(
    run_config: TrainConfig,
    config: InspectConfig,
    num_envs: int,
    num_levels: int,
    draws: bool = False,
    is_probe: bool = False,
) -> BatchedEnv:
    """Make environments whose levels are neither those of training nor of each other."""
    options = in_env_of(run_config, EvaluateConfig(env=config.env))
    seeds = level_seeds(config.seed, EVALUATION_STREAM, frames=int(is_probe))

    def make(render_mode: str | None) -> BatchedEnv:
        return envs.make(
            config.env or run_config.env,
            num_envs,
            seed=seeds,
            render_mode=render_mode,
            backend=run_config.backend,
            level_seeds=seeds.generate_state(num_levels).tolist(),
            timeout=run_config.env_timeout,
            env_kwargs=options.env_kwargs,
            wrap=options.wrap,
        )

    if not draws:
        return make(None)
    try:
        return make("rgb_array")
    except ValueError:  # it draws none: its observations are shown
        return make(None)


def main() -> None:
    """Read the options and inspect."""
    with fail_with_one_line():
        fill_help(InspectConfig)
        tyro.cli(inspect_runs, prog="python -m mtxl_rl.inspect")


if __name__ == "__main__":
    main()
