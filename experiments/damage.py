r"""Show trained agents one damaged observation, and count the episodes that it costs.

    python -m experiments.damage runs/r8 --env mtxl/Recall160x8-v0 --at 80

Every run below the folder plays two episodes in each env. At step `at` of the first of them an env
sees, instead of its own observation, what another env saw at the start of its episode: in Recall a
cue, in the middle of the blanks. An agent that took it for its own has lost that episode; one whose
memory it has spoilt for good loses the next one, too. Written is damage.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import tyro

import envs
from agents.actor_critic import ActorCritic
from agents.trees import map_tensors
from agents.uncompiled import uncompiled
from envs import Backend
from envs.batched_env import BatchedEnv, EnvStep, Observation
from experiments.plots import label
from experiments.tables.intervals import interquartile_mean
from experiments.tables.markdown import table_head, table_row
from experiments.tables.runs import each_seed_once, grouped, runs_to_play, varying_options
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.config.option_types import Kwargs
from mtxl_rl.device import pick_device, set_threads
from mtxl_rl.evaluate import in_env_of, load_agent
from mtxl_rl.evaluations.evaluation import (
    EVALUATION_STREAM,
    bound_for,
    check_spaces,
    level_seeds,
    play,
)
from mtxl_rl.runs.checkpoint import longest_episode, newest_checkpoint
from mtxl_rl.runs.run_directory import load_config

HEADS = ("agent", "seeds", "undamaged", "the damaged episode", "the next one")


def damage(
    folder: Annotated[Path, tyro.conf.Positional],
    env: str,
    at: int,
    num_envs: int = 128,
    env_kwargs: Kwargs | None = None,
    by: tuple[str, ...] = (),
    num_threads: int | None = None,
) -> None:
    """Show trained agents one damaged observation, and count the episodes that it costs.

    Args:
        folder: Where the runs are.
        env: Environment to play in; it has a success rate.
        at: Step of an env's first episode, from 1, at which it sees another's first observation.
        num_envs: Envs, of two episodes each.
        env_kwargs: Arguments of the environment's constructor. Left out: those of training, or,
            where the environment is another one, none.
        by: Options that tell rows apart. Left out: those that differ between the runs.
        num_threads: CPU threads of torch. Left out: all cores.
    """
    if at < 1 or num_envs < 2:
        raise ValueError(
            f"at={at} must be 1 or more and num_envs={num_envs} 2 or more: what is shown is the "
            "first observation of another env"
        )
    set_threads(num_threads)
    runs = runs_to_play(folder)
    names = by or tuple(varying_options(runs))
    rows = []
    for values, group in grouped(each_seed_once(runs, names), names).items():
        rates = []
        for run in group:
            config = load_config(run.path)
            newest = newest_checkpoint(run.path)
            agent, _ = load_agent(config, newest, pick_device("auto"))
            options = EvaluateConfig(
                episodes=2 * num_envs, env=env, env_kwargs=env_kwargs, seed=config.seed
            )
            bound = bound_for(longest_episode(newest))
            there = in_env_of(config, options)
            rates.append(rates_of(agent, there, config.backend, at, bound))
            print(run.path.name, *(f"{rate:.3f}" for rate in rates[-1]), flush=True)
        means = (str(interquartile_mean([list(column)])) for column in zip(*rates, strict=True))
        rows.append((label(values, names) or "all runs", str(len(group)), *means))
    table = [table_head(HEADS), *map(table_row, rows)]
    (folder / "damage.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))


@uncompiled()
def rates_of(
    agent: ActorCritic, config: EvaluateConfig, backend: Backend, at: int, bound: int
) -> tuple[float, float, float]:
    """Return success without damage, in the episodes that have it, and in those that follow.

    Args:
        agent: who plays.
        config: where, and twice as many episodes as envs.
        backend: of the environment.
        at: the step.
        bound: steps after which episodes are cut, where nothing else ends them.

    Raises:
        ValueError: where the agent does not fit, there is no success rate, or an episode ends
            before its step `at`.
    """
    assert config.env is not None
    num_envs = config.episodes // 2
    rates = []
    for is_damaged in (False, True):
        env = envs.make(
            config.env,
            num_envs,
            device=agent.device,
            seed=level_seeds(config.seed, EVALUATION_STREAM),
            backend=backend,
            timeout=config.env_timeout,
            env_kwargs=config.env_kwargs,
            wrap=config.wrap,
            vectorize=config.vectorize,
        )
        try:
            check_spaces(agent, env, config.env)
            damaged = OneDamagedObservation(env, at) if is_damaged else None
            max_steps = None if env.has_time_limit else bound
            episodes = play(agent, env, dataclasses.replace(config, max_steps=max_steps))
        finally:
            env.close()
        if episodes.success_rate is None:
            raise ValueError(
                f"env={config.env!r} has no success rate; set --env to one that has one"
            )
        if damaged and damaged.has_ended_early:
            raise ValueError(f"at={at} is after the end of an episode; set --at to an earlier step")
        rates.append(episodes.success.reshape(num_envs, 2).mean(axis=0).tolist())
    (first, second), (hit, after) = rates
    return (first + second) / 2, hit, after


class OneDamagedObservation:
    """Changes `env`: at step `at` every env sees the first observation of its neighbour."""

    def __init__(self, env: BatchedEnv, at: int):
        self._reset: Callable[[], Observation] = env.reset
        self._step: Callable[[torch.Tensor], EnvStep] = env.step
        self._at, self._num_steps = at, 0
        self.has_ended_early = False
        env.reset, env.step = self.reset, self.step

    def reset(self) -> Observation:
        first = self._reset()
        self._first = map_tensors(torch.clone, first)
        return first

    def step(self, actions: torch.Tensor) -> EnvStep:
        step = self._step(actions)
        self._num_steps += 1
        if self._num_steps <= self._at:
            self.has_ended_early |= bool((step.terminated | step.truncated).any())
        if self._num_steps == self._at:
            shown = map_tensors(lambda x: x.roll(1, dims=0), self._first)
            step = step._replace(observation=shown)
        return step


if __name__ == "__main__":
    with fail_with_one_line():
        tyro.cli(damage, prog="python -m experiments.damage")
