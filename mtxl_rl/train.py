"""Train an agent.

python -m mtxl_rl.train --env MiniGrid-MemoryS13-v0
python -m mtxl_rl.train --help
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import tyro

import envs
from agents.actor_critic import ActorCritic
from agents.memory_core import MemoryCore
from mtxl_rl import checkpoint
from mtxl_rl.command import RunFailed, fail_with_one_line
from mtxl_rl.config import (
    EvaluateConfig,
    Memory,
    TrainConfig,
    pick_device,
    pick_precision,
    set_threads,
)
from mtxl_rl.evaluation import (
    TRAINING_STREAM,
    evaluate_agent,
    evaluate_interventions,
    level_seeds,
)
from mtxl_rl.metrics import Evaluation
from mtxl_rl.progress import say
from mtxl_rl.run import Run, check_changes
from mtxl_rl.run_directory import load_config, write_json
from mtxl_rl.signals import Stopped

PROGRAM = "python -m mtxl_rl.train"
MAX_EVAL_ENVS = 256
"""Environments that play at once in the evaluation at the end."""
WORDS: dict[Memory, str] = {
    "cleared": "without memory, previous action and reward",
    "without-short": "without short memory",
    "without-long": "without long memory",
    "swapped-long": "with the long memory of an episode with another cue",
}


def train(config: TrainConfig) -> Evaluation:
    """Train, evaluate, and return the evaluation; everything is in the run directory.

    Raises:
        ValueError: for a configuration that cannot be run; nothing has been written then.
        Stopped: when a signal has ended it; what was trained is saved.
        RunFailed: when it has failed later: out of memory, too much that is not finite, or a last
            checkpoint that could not be saved.
        EnvError: when an environment has failed; what was trained is saved.
    """
    device = pick_device(config.device)
    set_threads(config.num_threads)
    torch.manual_seed(config.seed)
    with _out_of_memory_words(config):
        return _train(config, device)


def _train(config: TrainConfig, device: torch.device) -> Evaluation:
    seeds = level_seeds(config.seed, TRAINING_STREAM)
    env = envs.make(
        config.env, config.num_envs, device, seeds, backend=config.backend,
        timeout=config.env_timeout,
    )  # fmt: skip
    try:
        agent = ActorCritic(env.observation_space, env.action_space, config.core).to(device)
        if config.init_from is not None and not has_checkpoint(config.resume):
            checkpoint.load_start(config.init_from, config, agent)
        agent.precision = pick_precision(config.precision, device, config.core, agent.action_space)
        run = Run(config, agent, env)
    except BaseException:
        env.close()
        raise
    try:
        try:
            _introduce(run)
            run.learn()
        except Stopped:
            run.check_saved()
            raise
        finally:
            env.close()
        evaluation = _evaluate(run)
    finally:
        run.close()
    say(f"Curves:       {sys.executable} -m tensorboard.main --logdir {run.run_dir}")
    say(f"Evaluate:     {sys.executable} -m mtxl_rl.evaluate {run.run_dir}")
    return evaluation


def _introduce(run: Run) -> None:
    """Print what is trained, and where."""
    config, agent = run.config, run.trainer.agent
    sizes = agent.sizes
    precision = str(agent.precision).removeprefix("torch.")
    say(f"{config.env}: {config.num_envs} envs, {run.env.backend} backend, core "
          f"{config.core.kind}, {sizes['parameters']:,} parameters, {sizes['state_floats']:,} "
          f"floats of state, {agent.device}, {precision}, {run.trainer.form}")  # fmt: skip
    if isinstance(agent.core, MemoryCore):
        transformer = agent.core.transformer
        first, last = transformer.reach
        slots = transformer.lmem_len or "no"
        say(f"Memory:       of the last {first} to {last} steps, and {slots} slots of long memory")
    actions = agent.actor.describe() or "only those that action_mask allows" * agent.has_mask
    if actions:
        say(f"Actions:      {actions}")
    say(f"Run:          {run.run_dir}")


def _evaluate(run: Run) -> Evaluation:
    """Evaluate as trained and with every intervention, print it, and write it."""
    config, agent = run.config, run.trainer.agent
    options = EvaluateConfig(
        episodes=config.eval_episodes,
        seed=config.seed,
        num_envs=min(config.eval_episodes, MAX_EVAL_ENVS),
        env_timeout=config.env_timeout,
    )
    evaluation = evaluate_agent(agent, config.env, options, config.backend)
    say(f"Evaluated:    {evaluation.episodes} new episodes")
    say(f"Success rate: {evaluation.describe_success()}")
    intervened: dict[Memory, Evaluation] = {}
    if evaluation.success_rate is not None:
        intervened = evaluate_interventions(agent, config.env, options, config.backend)
    for memory, each in intervened.items():
        say(f"  the same agent, {WORDS[memory]}: {each.describe_success()}")
    if evaluation.cue_seen_rate is not None:
        say(f"Cue:          {evaluation.describe_cue()}")
    say(f"Mean return:  {evaluation.mean_return:.3f}, mean length {evaluation.mean_length:.1f}")
    run.logger.close(evaluation, intervened, run.frames)
    run.check_saved()  # only then is it finished, for those who look at what it has written
    interventions = {memory: dataclasses.asdict(each) for memory, each in intervened.items()}
    counts = {"frames": run.frames, **agent.sizes, "interventions": interventions}
    write_json(run.run_dir / "evaluation.json", dataclasses.asdict(evaluation) | counts)
    return evaluation


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
        core, ppo = config.core.resolved, config.ppo
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RunFailed(
            f"out of memory with num_envs={config.num_envs}, rollout_len={ppo.rollout_len}, "
            f"num_minibatches={ppo.num_minibatches}, dim={core.dim}, depth={core.depth}, "
            f"seq_len={core.seq_len}, mem_len={core.mem_len}: {lines[0]}. Raise "
            "--ppo.num-minibatches, which makes the steps of an update smaller, or lower "
            "--num-envs or --ppo.rollout-len"
        ) from error


def read_options(arguments: Sequence[str]) -> TrainConfig:
    """Return the options of the command line; with --resume those that are not given are the run's.

    Raises:
        ValueError: for a run that cannot be resumed with these options.
    """
    run_dir = _resumed(arguments)
    if run_dir is None:
        return tyro.cli(TrainConfig, prog=PROGRAM, args=arguments)
    saved = dataclasses.replace(load_config(run_dir), resume=run_dir)
    config = tyro.cli(TrainConfig, prog=PROGRAM, args=arguments, default=saved)
    check_changes(config)
    return config


def _resumed(arguments: Sequence[str]) -> Path | None:
    """Return the value of --resume, before the other options can be read."""
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--resume":
            value = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
            return Path(value) if value not in ("", "None") else None
    return None


def main() -> None:
    """Read the options and train."""
    with fail_with_one_line():
        train(read_options(sys.argv[1:]))


if __name__ == "__main__":
    main()
