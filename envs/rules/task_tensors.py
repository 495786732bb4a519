"""Tasks in thousands: `envs.rules.task` as environments. Shapes: B envs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Int64, Shaped
from torch import Tensor

from envs.batched_env import Observation
from envs.counter_random import CounterRandom
from envs.rules.task import State
from envs.rules.task_env import TaskEnv
from envs.tensor_env import StepEnd, TensorEnv


class TaskTensorEnv(TensorEnv[TaskEnv]):
    """B environments of a task."""

    def _make_prototype(self, env_class: Any, options: dict[str, Any]) -> TaskEnv:
        return env_class(**options)

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        self.task = self.prototype.task
        self.has_success = self.task.has_success
        self.success_info = "is_success" if self.has_success else None
        space = self.action_space
        if self.task.action_names:
            self.action_names = self.task.action_names
        elif isinstance(space, spaces.Discrete):
            self.action_names = tuple(map(str, range(int(space.n))))
        elif isinstance(space, spaces.MultiDiscrete):  # of as many rows as columns
            self.action_names = tuple(map(str, range(int(space.nvec[0]))))
        self._numbers = torch.arange(self.task.num_draws, device=self.device)
        self._level_keys = torch.cat([CounterRandom.keys(seed, 1) for seed in level_seeds or [0]])
        self._level_keys = self._level_keys.to(self.device)
        first = self._first_state(self._every_row)
        self._buffers |= first
        self._ahead = {name: value.clone() for name, value in first.items()}
        self._is_ahead = torch.zeros_like(self._every_row, dtype=torch.bool)

    def load(self, gym_envs: Sequence[Any]) -> Observation:
        """Go on from the episodes that the package's own environments are in.

        What is seen first is 0 where the package does not keep it: in POPGym's MineSweeper,
        MultiarmedBandit, CartPole and Pendulum.

        Args:
            gym_envs: B of the package's environments of the same task and options, unwrapped.

        Raises:
            ValueError: for another number or kind of environments, or one without an episode, or a
                task that the package does not have.
        """
        if self.task.original is None:
            raise ValueError(
                f"load: {self.prototype.title} has no {type(self.task).__name__} to go on from; "
                "use reset()"
            )
        self._check_loadable(gym_envs)
        self._buffers["stream"].copy_(self._streams(self._every_row, self._buffers["episode"]))
        states = [self.task.read(env) for env in gym_envs]
        for name in states[0]:
            values = np.stack([np.asarray(state[name]) for state in states])
            self._buffers[name].copy_(torch.from_numpy(values))
        self._has_episodes = True
        return self._observe()

    def _prepare_episodes(self) -> None:
        self._is_ahead.zero_()  # what was drawn ahead is not played

    def _check_kind(self, env: Any) -> None:
        task, title, package = self.task, self.prototype.title, self.prototype.package
        name = task.original or type(task).__name__
        is_packages = type(env).__module__.startswith(f"{package}.")
        if not is_packages or name not in [base.__name__ for base in type(env).__mro__]:
            raise ValueError(
                f"load was given a {type(env).__name__}, but this batch is of {title}'s {name}; "
                f"pass `env.unwrapped` of the same id, of the package {package}"
            )
        if type(task).of(env) != task:
            raise ValueError(
                f"load was given {type(task).of(env)}, but this batch is {task}; pass environments "
                "of the same id and options"
            )

    def _has_episode(self, env: Any) -> bool:
        has_started = env._np_random is not None
        return has_started and 0 <= self.task.read(env)["time"] < self.task.num_steps

    def _advance_(self, actions: Shaped[Tensor, "B ..."]) -> StepEnd:
        self._buffers["time"] += 1
        reward, terminated, truncated, success = self.task.advance_(self._buffers, actions)
        if success is None:
            success = torch.zeros_like(terminated)
        return StepEnd(reward, terminated, truncated, success)

    def _observe(self, rows: Int64[Tensor, " n"] | None = None) -> Observation:
        return {
            name: self._buffers[name].clone() if rows is None else self._buffers[name][rows]
            for name in self.observation_space
        }

    def _start_(self, rows: Int64[Tensor, " n"]) -> None:
        """Start episodes that were drawn ahead.

        To draw now and then for all envs whose next episode is missing is quicker than to draw for
        some at every step.
        """
        if not bool(self._is_ahead[rows].all()):
            missing = (~self._is_ahead).nonzero().squeeze(1)
            episode = self._buffers["episode"] + 1
            episode[rows] -= 1
            streams = self._streams(missing, episode[missing])
            for name, first in self.task.first_state(streams, self._numbers).items():
                self._ahead[name].index_copy_(0, missing, first)
            self._is_ahead.fill_(True)
        for name, ahead in self._ahead.items():
            self._buffers[name].index_copy_(0, rows, ahead[rows])
        self._is_ahead[rows] = False

    def _first_state(self, rows: Int64[Tensor, " n"]) -> State:
        streams = self._streams(rows, self._buffers["episode"][rows])
        return self.task.first_state(streams, self._numbers)

    def _streams(
        self, rows: Int64[Tensor, " n"], episode: Int64[Tensor, " n"]
    ) -> Int64[Tensor, " n"]:
        """Return the keys of episodes."""
        if not self._has_level_seeds:
            return CounterRandom(self._keys[rows], episode).stream()
        number = self._level_in_turn(rows, episode, len(self._level_keys))
        return CounterRandom(self._level_keys[number], torch.zeros_like(number)).stream()
