"""Train an agent.

python -m mtxl_rl.train --env MiniGrid-MemoryS13-v0
python -m mtxl_rl.train --env my_module:MyEnv-v0 --env-kwargs '{"memory_length": 10}'
python -m mtxl_rl.train --help
torchrun --standalone --nproc-per-node 8 -m mtxl_rl.train --num-envs 8192     (docs/scale.md)
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import mtxl_rl.siblings  # noqa: F401

# isort: split
import numpy as np
import torch

import envs
from agents import ranks
from agents.actor_critic import ActorCritic
from envs import BatchedEnv
from envs.wrapped.guarded_env import EnvError
from mtxl_rl.command import RunFailed, fail_with_one_line, fill_help
from mtxl_rl.config import EvaluateConfig, Memory, TrainConfig, pick_precision, with_num_envs
from mtxl_rl.config.option_types import read_place
from mtxl_rl.device import pick_device, set_threads
from mtxl_rl.evaluations.evaluation import (
    TRAINING_STREAM,
    check_bound,
    evaluate_agent,
    evaluate_interventions,
    level_seeds,
    seed_generators,
)
from mtxl_rl.evaluations.interventions import RECEIVERS, fitting_interventions
from mtxl_rl.options import given, read
from mtxl_rl.run import Run, check_changes, default_run_dir
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.made_by import last_session, launch
from mtxl_rl.runs.metrics import Evaluation
from mtxl_rl.runs.progress import say
from mtxl_rl.runs.run_directory import load_config, write_json
from mtxl_rl.signals import Stopped
from mtxl_rl.torch_settings import check_torch

PROGRAM = "python -m mtxl_rl.train"
BEFORE_THE_RUN = "the run had not begun, and nothing was written"
MAX_EVAL_ENVS = 256
"""Environments that play at once in the evaluation at the end."""
WORDS: dict[Memory, str] = {
    "cleared": "without memory, previous action and reward",
    "without-short": "without short memory",
    "without-long": "without long memory",
    "swapped-long": "with another episode's long memory",
}
INTERVENED_SHARE = 0.1
"""Frames that the interventions, and the agent without one in the same episodes, may take at most,
together, as a share of those of training."""
MIN_INTERVENED = 20
"""Episodes of each all the same, if the evaluation itself has as many."""


def train(config: TrainConfig) -> Evaluation:
    """Train, evaluate, and return the evaluation; everything is in the run directory.

    Raises:
        ValueError: for a configuration that cannot be run; nothing has been written then.
        Stopped: when a signal has ended it; what was trained is saved.
        RunFailed: when it has failed later: out of memory, too much that is not finite, or a last
            checkpoint that could not be saved.
        EnvError: when an environment has failed; what was trained is saved.
        RankFailed, RankLost: when another rank has, or is gone.
    """
    device = ranks.own_device(pick_device(config.device))
    with ranks.joined(device):
        config = with_num_envs(config)
        check_ranks(config)
        config = as_started_again(config)
        set_threads(config.num_threads, ranks.num_beside())
        torch.manual_seed(config.seed)
        with _out_of_memory_words(config):
            return _train(config, device)


def _train(config: TrainConfig, device: torch.device) -> Evaluation:
    # a run that goes on draws new levels, where its environments cannot go on themselves
    frames = ranks.from_first(
        lambda: checkpoint.newest_frames(config.resume) if config.resume else 0
    )
    seeds = level_seeds(config.seed, TRAINING_STREAM, frames)
    here = Path.cwd()
    env = ranks.together(lambda: _make_env(config, device, seeds))
    if here != Path.cwd():  # some go to a folder of their own
        config = _absolute(config, here)
    try:
        run = Run(config, ranks.together(lambda: _make_agent(config, env)), env)
    except BaseException:
        env.close()
        raise
    try:
        try:
            _introduce(run)
            run.learn()
        except Stopped as stopped:
            run.check_saved()
            stopped.left = run.left
            raise
        finally:
            env.close()
        evaluation = ranks.from_first(lambda: _evaluate_last(run))
    except KeyboardInterrupt:  # where it does not train
        raise Stopped(signal.SIGINT, run.left) from None
    except ValueError as error:  # it is no refusal any more: something has been written
        raise RunFailed(
            f"failed after {run.frames:,} frames: {error}. What was trained until its last "
            f"checkpoint is in {run.run_dir}"
        ) from error
    finally:
        run.close()
    place = shlex.quote(str(run.run_dir))
    say(f"Curves:       {sys.executable} -m tensorboard.main --logdir {place}")
    say(f"Evaluate:     {sys.executable} -m mtxl_rl.evaluate {place}")
    say(f"Inspect:      {sys.executable} -m mtxl_rl.inspect {place}")
    return evaluation


def _absolute(config: TrainConfig, here: Path) -> TrainConfig:
    """Return the configuration with paths that mean the same in any folder."""
    paths = {name: getattr(config, name) for name in ("run_dir", "resume", "init_from")}
    if config.run_dir is None and config.resume is None:
        paths["run_dir"] = default_run_dir(config)
    return dataclasses.replace(config, **{k: here / p for k, p in paths.items() if p is not None})


def _make_env(
    config: TrainConfig, device: torch.device, seeds: np.random.SeedSequence
) -> BatchedEnv:
    """Make the environments of this rank."""
    seed_generators(envs.seed_of_part(seeds, ranks.share()))
    return envs.make(
        config.env, config.all_envs // ranks.size(), device, seeds, backend=config.backend,
        timeout=config.env_timeout, env_kwargs=config.env_kwargs, wrap=config.wrap,
        vectorize=config.vectorize, part=ranks.share(),
    )  # fmt: skip


def _make_agent(config: TrainConfig, env: BatchedEnv) -> ActorCritic:
    """Make the agent, the same on every rank."""
    check_torch()
    if config.eval_max_steps is not None:
        check_bound(config.eval_max_steps, env)
    agent = ActorCritic(env.observation_space, env.action_space, config.core).to(env.device)
    if config.init_from is not None and not has_checkpoint(config.resume):
        checkpoint.load_start(config.init_from, config, agent)
    agent.precision = pick_precision(config.precision, env.device, config.core, agent.action_space)
    return agent


def check_ranks(config: TrainConfig) -> None:
    """Raise ValueError for envs that the ranks cannot share equally, or a run not to be found.

    Torchrun starts all again, with the same command, where one has failed: it names the run then.
    """
    size, restarts = ranks.size(), int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if config.all_envs % size:
        step = math.lcm(size, config.ppo.num_minibatches)
        fewer = config.all_envs // step * step
        near = f"{fewer} or {fewer + step}" if fewer else f"{step}"
        divisors = [str(n) for n in range(1, size) if config.all_envs % n == 0]
        raise ValueError(
            f"num_envs={config.num_envs} cannot be shared equally by {size} ranks; set --num-envs "
            f"to {near}, or let torchrun start {', '.join(divisors)} processes"
        )
    if launch() and restarts and config.run_dir is None and config.resume is None:
        raise ValueError(
            f"run_dir=None cannot be with torchrun's --max-restarts {restarts}, which starts the "
            "same command again, to go on with its run: set --run-dir"
        )


def as_started_again(config: TrainConfig) -> TrainConfig:
    """Return the configuration to go on with where torchrun has started all ranks anew."""

    def has_begun() -> bool:
        run_dir, restarts = config.run_dir, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        is_again = launch() is not None and restarts > 0 and config.resume is None
        return is_again and run_dir is not None and last_session(run_dir).get("launch") == launch()

    is_again = ranks.from_first(has_begun)
    return dataclasses.replace(config, resume=config.run_dir) if is_again else config


def _introduce(run: Run) -> None:
    """Print what is trained, and where."""
    config, agent = run.config, run.trainer.agent
    sizes = agent.sizes
    precision = str(agent.precision).removeprefix("torch.")
    in_processes = f" in {run.env.num_processes} processes" * bool(run.env.num_processes)
    num_envs = f"{config.num_envs} envs"
    if ranks.size() > 1:
        num_envs = f"{config.num_envs:,} envs: {run.env.num_envs:,} on each of {ranks.size()} ranks"
    say(f"{config.env}: {num_envs}{in_processes}, {run.env.backend} backend, core "
          f"{config.core.kind}, {sizes['parameters']:,} parameters, {sizes['state_floats']:,} "
          f"floats of state, {agent.device}, {precision}, {run.trainer.form}")  # fmt: skip
    for name, words in agent.encoder.reads.items():
        say(f"Sees:         {name}: {words}")
    if agent.core.description:
        say(f"Memory:       {agent.core.description}")
    actions = agent.actor.describe() or "only those that action_mask allows" * agent.has_mask
    if actions:
        say(f"Actions:      {actions}")
    say(f"Run:          {run.run_dir}")
    num_updates, rest = divmod(run.schedule.end_frames - run.frames, config.frames_per_update)
    if rest:
        whole = run.frames + num_updates * config.frames_per_update
        say(f"Frames:       {whole:,} of {run.schedule.end_frames:,}, in whole updates of "
            f"{config.frames_per_update:,}")  # fmt: skip
    if config.stop_at_success is not None and not run.env.has_success:
        threshold = run.env.reward_threshold
        instead = (
            f"it trains to total_frames={config.total_frames:,}; give --stop-at-return for a target"
            if threshold is None
            else f"it stops at a mean return of {threshold:g}, the reward_threshold that it is "
            "registered with"
        )
        warnings.warn(
            f"stop_at_success={config.stop_at_success}: {config.env} has no success rate unless "
            f"its info says is_success when an episode ends. Without one {instead}",
            RuntimeWarning,
            stacklevel=2,
        )


def _evaluate_last(run: Run) -> Evaluation:
    try:
        return _evaluate(run)
    except EnvError as error:
        raise EnvError(f"{error}. That was in the evaluation at the end; {run.left}") from error


def _evaluate(run: Run) -> Evaluation:
    """Evaluate as trained and with every intervention, print it, and write it."""
    config, agent = run.config, run.trainer.agent
    options = EvaluateConfig(
        episodes=config.eval_episodes,
        seed=config.seed,
        num_envs=min(config.eval_episodes, MAX_EVAL_ENVS),
        max_steps=config.eval_max_steps,
        env_timeout=config.env_timeout,
        env_kwargs=config.env_kwargs,
        wrap=config.wrap,
        vectorize=config.vectorize,
    )
    longest = run.window.longest
    evaluation = evaluate_agent(agent, config.env, options, config.backend, longest)
    say(f"Evaluated:    {evaluation.episodes} new episodes")
    say(f"Success rate: {evaluation.describe_success()}")
    if evaluation.cue_seen_rate is not None:
        say(f"Cue:          {evaluation.describe_cue()}")
    say(f"Mean return:  {evaluation.describe_return()}")
    num_kinds = 1 + len(fitting_interventions(agent))
    few = num_intervened(config.eval_episodes, run.frames, num_kinds, evaluation.mean_length)
    options = dataclasses.replace(options, episodes=few)
    kept, intervened = evaluation, {}
    try:
        intervened = evaluate_interventions(agent, config.env, options, config.backend, longest)
        if intervened and few < config.eval_episodes:  # in the episodes that they have played
            kept = evaluate_agent(agent, config.env, options, config.backend, longest)
    except EnvError as error:
        intervened = {}
        warnings.warn(
            f"what becomes of the agent without its memory is not known: {error}", RuntimeWarning,
            stacklevel=2,
        )  # fmt: skip
    for line in _memory_table(kept, intervened, few):
        say(line)
    run.logger.close(evaluation, intervened, run.frames)
    run.check_saved()  # only then is it finished, for those who look at what it has written
    interventions = {memory: each.to_json() for memory, each in intervened.items()}
    counts = {"frames": run.frames, **agent.sizes, "interventions": interventions}
    if intervened:
        counts["kept"] = kept.to_json()
    write_json(run.run_dir / "evaluation.json", evaluation.to_json() | counts)
    return evaluation


def num_intervened(episodes: int, frames: int, num_kinds: int, mean_length: float) -> int:
    """Return how many episodes to play with each intervention, and without one.

    Args:
        episodes: of the evaluation.
        frames: of training.
        num_kinds: of interventions, none among them.
        mean_length: steps of an episode.
    """
    affordable = INTERVENED_SHARE * frames / (max(1, num_kinds) * mean_length)
    return min(episodes, max(MIN_INTERVENED, round(affordable)))


def _memory_table(
    kept: Evaluation, intervened: Mapping[Memory, Evaluation], num_played: int
) -> list[str]:
    """Return what becomes of the agent where a part of its memory is taken away, for people."""
    if not intervened:
        return []
    rows = {"as it was trained": kept} | {WORDS[k]: each for k, each in intervened.items()}
    lines = [("The same agent", "success", "return (95 %)", "length", "episodes")]
    notes = []
    for words, each in rows.items():
        success = "-" if each.success_rate is None else f"{each.success_rate:.3f}"
        return_ = f"{each.mean_return:.3f}"
        if each.return_interval is not None:
            return_ += " ({:.3f} to {:.3f})".format(*each.return_interval)
        episodes = f"{each.episodes}"
        if each is not kept and each.episodes < num_played:
            episodes += f" of {num_played}"
            notes.append(f"  {episodes}: {RECEIVERS}")
        lines.append((f"  {words}", success, return_, f"{each.mean_length:.1f}", episodes))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join([r[0].ljust(widths[0]), *map(str.rjust, r[1:], widths[1:])]) for r in lines]
    return table + notes


def has_checkpoint(run_dir: Path | None) -> bool:
    """Return whether there is a run that has saved a checkpoint."""
    return run_dir is not None and bool(checkpoint.list_checkpoints(run_dir))


@contextmanager
def _out_of_memory_words(config: TrainConfig) -> Iterator[None]:
    """Say what was asked for where it does not fit."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_of_memory and "can't allocate memory" not in str(error):  # torch's, on a CPU
            raise
        core, ppo = dataclasses.asdict(config.core), config.ppo
        sizes = [f"{k}={core[k]}" for k in ("dim", "depth", "seq_len", "mem_len") if k in core]
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RunFailed(
            f"out of memory with num_envs={config.num_envs}, rollout_len={ppo.rollout_len}, "
            f"num_minibatches={ppo.num_minibatches}, {', '.join(sizes)}: {lines[0]}. Raise "
            "--ppo.num-minibatches, which makes the steps of an update smaller, lower "
            "--num-envs or --ppo.rollout-len, or take a smaller core"
        ) from error


def read_options(arguments: Sequence[str]) -> TrainConfig:
    """Return the options of the command line; with --resume those that are not given are the run's.

    Raises:
        ValueError: for a run that cannot be resumed with these options.
    """
    fill_help(TrainConfig)
    run_dir = _resumed(arguments)
    if run_dir is None:
        if arguments and not arguments[0].startswith("-"):
            raise ValueError(
                f"{arguments[0]!r} stands alone; name the environment by --env {arguments[0]}"
            )
        return read(TrainConfig(), arguments, prog=PROGRAM)
    saved = dataclasses.replace(load_config(run_dir), resume=run_dir)
    config = read(saved, arguments, prog=PROGRAM)
    check_changes(config)
    return config


def _resumed(arguments: Sequence[str]) -> Path | None:
    """Return the value of --resume, before the other options can be read."""
    value = given(arguments, "--resume")
    return read_place(value) if value not in (None, "", "None") else None


def main() -> None:
    """Read the options and train."""
    with fail_with_one_line(BEFORE_THE_RUN):
        train(read_options(sys.argv[1:]))


if __name__ == "__main__":
    main()
