"""Evaluate a trained agent in new episodes.

python -m mtxl_rl.evaluate RUN --episodes 200
python -m mtxl_rl.evaluate RUN --json
python -m mtxl_rl.evaluate RUN --greedy --video episodes.gif
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import mtxl_rl.siblings  # noqa: F401

# isort: split
import torch
import tyro

import envs
from agents.actor_critic import ActorCritic
from mtxl_rl.command import fail_with_one_line, fill_help, stdout_to_stderr
from mtxl_rl.config import EvaluateConfig, TrainConfig, pick_precision
from mtxl_rl.config.option_types import Place
from mtxl_rl.device import pick_device, set_threads
from mtxl_rl.evaluations.evaluation import evaluate_agent
from mtxl_rl.evaluations.interventions import RECEIVERS
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.metrics import Evaluation
from mtxl_rl.runs.run_directory import load_config


def load_agent(
    config: TrainConfig, checkpoint_dir: Path, device: torch.device
) -> tuple[ActorCritic, int]:
    """Return a run's agent and the frames that it was trained for.

    Args:
        config: of the run.
        checkpoint_dir: one of its checkpoints.
        device: where the agent goes.

    Raises:
        ValueError: when the checkpoint does not belong to the run.
    """
    spec = envs.make(
        config.env, 1, backend=config.backend, env_kwargs=config.env_kwargs, wrap=config.wrap
    )
    agent = ActorCritic(spec.observation_space, spec.action_space, config.core)
    spec.close()
    frames, _ = checkpoint.load_checkpoint(checkpoint_dir, config, agent)
    agent.precision = pick_precision(config.precision, device, config.core, agent.action_space)
    return agent.to(device).eval(), frames


def in_env_of(run: TrainConfig, config: EvaluateConfig) -> EvaluateConfig:
    """Return the options with what the run's training says of its environment."""
    env_kwargs = config.env_kwargs
    if env_kwargs is None and config.env in (None, run.env):
        env_kwargs = run.env_kwargs
    return dataclasses.replace(
        config, env_kwargs=env_kwargs, wrap=run.wrap, vectorize=run.vectorize
    )


def evaluate(
    run: Annotated[Place, tyro.conf.Positional],
    config: Annotated[EvaluateConfig, tyro.conf.OmitArgPrefixes],
) -> Evaluation:
    """Evaluate a trained agent in new episodes, with seeds of their own.

    Args:
        run: The run directory that training has written, or one of its checkpoints.
        config: How to evaluate.
    """
    with stdout_to_stderr() if config.json else nullcontext():  # environments may print
        device = pick_device(config.device)
        run, named = checkpoint.split_place(run)
        run_config = load_config(run)  # says where a folder is no run
        path = config.checkpoint or named or checkpoint.newest_checkpoint(run)
        agent, frames = load_agent(run_config, path, device)
        set_threads(config.num_threads or run_config.num_threads)
        backend = config.backend or run_config.backend
        env_id = config.env or run_config.env
        config = in_env_of(run_config, config)
        longest = checkpoint.longest_episode(path)
        evaluation = evaluate_agent(agent, env_id, config, backend, longest)
    if config.json:
        print(json.dumps(evaluation.to_json() | {"frames": frames, **agent.sizes}))
        return evaluation
    episodes = f"{evaluation.episodes} episode{'s' * (evaluation.episodes != 1)}"
    print(f"{env_id}, {run_config.core.kind} after {frames:,} frames, {episodes}, "
          f"memory {config.memory}")  # fmt: skip
    if config.all_starts:
        print("Starts:       each of the task's once for each step of the segment, weighted by how "
              "often it is drawn")  # fmt: skip
    elif evaluation.episodes < config.episodes:
        print(f"Counted:      {evaluation.episodes} of {config.episodes}: {RECEIVERS}")
    print(f"Success rate: {evaluation.describe_success()}")
    if evaluation.cue_seen_rate is not None:
        print(f"Cue:          {evaluation.describe_cue()}")
    print(f"Mean return:  {evaluation.describe_return()}")
    if config.video and config.video.is_file():
        print(f"Video:        {config.video}")
    return evaluation


def main() -> None:
    """Read the options and evaluate."""
    with fail_with_one_line():
        alone = [*itertools.takewhile(lambda text: not text.startswith("-"), sys.argv[1:])]
        if len(alone) > 1:
            raise ValueError(
                f"{alone[1]!r} stands alone after the run; another environment is named by --env "
                f"{alone[1]}, and one run is evaluated at a time"
            )
        fill_help(EvaluateConfig)
        tyro.cli(evaluate, prog="python -m mtxl_rl.evaluate")


if __name__ == "__main__":
    main()
