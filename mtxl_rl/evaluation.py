"""Playing whole episodes with a trained agent."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch

import envs
from agents.actor_critic import ActorCritic
from agents.finite import FiniteWatch
from agents.memory_core import MemoryCore
from agents.rollout import act_, start
from agents.uncompiled import uncompiled
from envs import Backend, BatchedEnv
from mtxl_rl.config import EvaluateConfig, Memory
from mtxl_rl.interventions import Intervention, InterventionError, fitting_interventions
from mtxl_rl.metrics import EPISODE_COLUMNS, Episodes, Evaluation

TRAINING_STREAM, EVALUATION_STREAM = 0, 1
MAX_START_PLACES = 4
MAX_VIDEO_FRAMES = 600
VIDEO_FPS = 10


def level_seeds(seed: int, stream: int) -> np.random.SeedSequence:
    """Return the seeds of levels: training and evaluation have streams of their own."""
    return np.random.SeedSequence(seed, spawn_key=(stream,))


def evaluate_agent(
    agent: ActorCritic, env_id: str, config: EvaluateConfig, backend: Backend = "auto"
) -> Evaluation:
    """Play `config.episodes` episodes on levels of the evaluation's stream and summarise them.

    The levels are the same whatever the backend and the number of envs. Where the core has
    segments, a quarter of the episodes each meets the segment at its start, a quarter on, and so
    on: in training an episode may start at any step of it.

    Raises:
        InterventionError: when it cannot be made, or no episode was long enough for it.
    """
    episodes = _play_levels(agent, env_id, config, backend)
    if not len(episodes.length):
        raise InterventionError(
            f"memory={config.memory!r} acted on none of {config.episodes} episodes: they end "
            "before a long memory with the cue has been written; set --memory kept, or a longer "
            "task by --env"
        )
    return Evaluation.of(episodes)


def evaluate_interventions(
    agent: ActorCritic, env_id: str, config: EvaluateConfig, backend: Backend = "auto"
) -> dict[Memory, Evaluation]:
    """Evaluate with each intervention that acts on some episode."""
    evaluations: dict[Memory, Evaluation] = {}
    for memory in fitting_interventions(agent):
        with contextlib.suppress(InterventionError):
            intervened = replace(config, memory=memory)
            evaluations[memory] = evaluate_agent(agent, env_id, intervened, backend)
    return evaluations


@uncompiled()
def _play_levels(
    agent: ActorCritic, env_id: str, config: EvaluateConfig, backend: Backend
) -> Episodes:
    levels = level_seeds(config.seed, EVALUATION_STREAM).generate_state(config.episodes)
    places = start_places(agent, config.episodes)
    watch = FiniteWatch()
    played = []
    for place, share in zip(places, np.array_split(levels, len(places)), strict=True):
        if config.memory == "swapped-long":
            # envs with odd numbers, which count, play the levels, and those that give play them too
            env_levels = np.stack((np.roll(share, 1), share), axis=1).flatten()
        else:
            env_levels = share
        video = config.video if not played else None
        env = envs.make(
            env_id,
            min(config.num_envs, len(share)),
            device=agent.device,
            seed=level_seeds(config.seed, EVALUATION_STREAM),
            render_mode="rgb_array" if video else None,
            backend=backend,
            level_seeds=env_levels.tolist(),
            timeout=config.env_timeout,
            env_kwargs=config.env_kwargs,
            wrap=config.wrap,
        )
        try:
            _check_spaces(agent, env, env_id)
            options = replace(config, episodes=len(share), video=video)
            played.append(play(agent, env, options, place, watch))
        finally:
            env.close()
    if watch.what:
        warnings.warn(
            f"{watch.what}: {watch.num_episodes} of {config.episodes} episodes were played with "
            "numbers that are not finite; look at what the environment gives",
            RuntimeWarning,
            stacklevel=2,
        )
    return Episodes.joined(played)


def start_places(agent: ActorCritic, episodes: int) -> list[int]:
    """Return the steps of a segment at which an evaluation starts its first episodes.

    There are fewer where there are few episodes, so that each has two or more.
    """
    if not isinstance(agent.core, MemoryCore):
        return [0]
    seq_len = agent.core.transformer.seq_len
    num_places = max(1, min(MAX_START_PLACES, seq_len, episodes // 2))
    return [seq_len * index // num_places for index in range(num_places)]


def _check_spaces(agent: ActorCritic, env: BatchedEnv, env_id: str) -> None:
    spaces = env.observation_space, env.action_space
    trained = agent.observation_space, agent.action_space
    if spaces != trained:
        raise ValueError(
            f"env={env_id!r} has {spaces[0]} and {spaces[1]}, but the agent was trained with "
            f"{trained[0]} and {trained[1]}; set --env to one with the same"
        )


def play(
    agent: ActorCritic,
    env: BatchedEnv,
    config: EvaluateConfig,
    start_place: int = 0,
    watch: FiniteWatch | None = None,
) -> Episodes:
    """Play `config.episodes` episodes and return those that count: all, but for swapped-long.

    Every env plays an equal share of the episodes, so that short ones are not counted too often.

    Args:
        agent: who plays.
        env: where.
        config: episodes, seed of the actions, intervention, film.
        start_place: the step of a segment at which the first episodes start.
        watch: what looks for numbers that are not finite.

    Raises:
        ValueError: for an intervention that cannot be made.
    """
    intervene = Intervention(config.memory, agent, env.has_cue, env.num_envs)
    players = intervene.plays.cpu().nonzero().squeeze(1)
    quota = torch.zeros(env.num_envs, dtype=torch.int64)
    quota[players] = config.episodes // len(players)
    quota[players[: config.episodes % len(players)]] += 1
    torch.manual_seed(config.seed + start_place)
    carry = start(agent, env)
    for _ in range(start_place):  # the first step of the episode clears what this leaves
        carry = replace(carry, state=agent.step_(carry.inputs, carry.state)[2])
    rows: list[torch.Tensor] = []
    film = _Film(config.video)
    watch = watch or FiniteWatch()
    watch.start(env.num_envs)
    while quota.any():
        film.take(env, int(players[0]))
        carry = intervene(carry)
        counts = intervene.has_acted.cpu()
        carry, record = act_(agent, env.step, carry, is_greedy=config.greedy)
        done = (record["terminated"] | record["truncated"]).cpu()
        played = done & (quota > 0)
        watch.look(record["inputs"].observation, record["reward"], done, quota > 0)
        quota -= played.long()
        columns = [record[name].double().cpu() for name in EPISODE_COLUMNS]
        rows.append(torch.stack(columns, dim=-1)[played & counts])
    film.write()
    return Episodes.of(torch.cat(rows), env.has_success, env.has_cue)


class _Film:
    """A film of an evaluation; where it cannot be made there is a warning and no film."""

    def __init__(self, path: Path | None):
        self._path = path
        self._frames: list[np.ndarray] = []

    def take(self, env: BatchedEnv, index: int) -> None:
        """Add a picture of an env, up to the longest film."""
        if self._path is not None and len(self._frames) < MAX_VIDEO_FRAMES:
            with self._or_none():
                self._frames.append(env.render(index))

    def write(self) -> None:
        """Write the film."""
        if self._path is not None:
            with self._or_none():
                write_video(self._path, self._frames)

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a renderer, a display or ffmpeg: any kind
            hint = "" if self._path is None or self._path.suffix == ".gif" else (
                " (a .gif needs no ffmpeg)"
            )  # fmt: skip
            warnings.warn(
                f"no film {self._path}: {type(error).__name__}: {error}{hint}. The evaluation goes "
                "on",
                RuntimeWarning,
                stacklevel=4,
            )
            if self._path is not None:
                self._path.unlink(missing_ok=True)  # half a film, or an older one
            self._path = None


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """Write pictures (rows, columns, 3) uint8 as .mp4 or .gif."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        iio.imwrite(path, np.stack(frames), duration=1000 / VIDEO_FPS, loop=0)
    else:
        iio.imwrite(path, np.stack(frames), fps=VIDEO_FPS, codec="libx264")
