"""One environment for Gymnasium, by the rules that the tensors have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from envs.counter_random import CounterRandom
from envs.observation_fields import leaves, name_of
from envs.rules.task import State, Task
from envs.tensor_env import check_action


class TaskEnv(gymnasium.Env):
    """A task of a package that is made anew here.

    Levels are drawn by `envs.counter_random`, so that a seed stands for other episodes than in the
    package, of the same distribution.

    Attributes:
        title: of the package, for people.
        package: that has the originals.
        tasks: by their names.
        says_success: an episode's last info holds `is_success`.

    Args:
        task: the name of one, such as "RepeatPrevious".
        render_mode: none is supported.
        **options: of the task, such as num_decks=2, k=32.

    Raises:
        ValueError: for another name, or an option that the task does not or cannot have.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    tasks: ClassVar[Mapping[str, type[Task]]]

    def __init__(self, task: str, render_mode: str | None = None, **options: Any):
        if task not in self.tasks:
            raise ValueError(f"task={task!r} must be one of {', '.join(self.tasks)}; name one")
        known = [field.name for field in fields(self.tasks[task])]
        if unknown := options.keys() - set(known):
            raise ValueError(
                f"{task} has no option {', '.join(sorted(unknown))}; it has {', '.join(known)}"
            )
        self.render_mode = render_mode
        self.task = self.tasks[task](**options)
        self.says_success = self.task.has_success
        self.observation_space = self.task.observation_space
        self.action_space = self.task.action_space
        self._key = torch.zeros(1, dtype=torch.int64)
        self._episode: int | None = None
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start the first episode of a seed, or the next one."""
        super().reset(seed=seed)
        if seed is not None or self._episode is None:
            entropy = np.random.SeedSequence(seed)
            self._key, self._episode = CounterRandom.keys(entropy, 1), 0
        else:
            self._episode += 1
        stream = CounterRandom(self._key, torch.tensor([self._episode])).stream()
        self._state = self.task.first_state(stream, torch.arange(self.task.num_draws))
        return self._observe(self._state), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action."""
        if self._state is None:
            raise ValueError("no episode has started, or it has ended; call reset() first")
        check_action(self.action_space, action)
        state = self._state
        state["time"] += 1
        outcome = self.task.advance_(state, torch.as_tensor(np.asarray(action)).unsqueeze(0))
        terminated, truncated = bool(outcome.terminated), bool(outcome.truncated)
        info = {}
        if terminated or truncated:
            self._state = None
            if outcome.success is not None:
                info["is_success"] = bool(outcome.success)
        return self._observe(state), float(outcome.reward), terminated, truncated, info

    def _observe(self, state: State) -> Any:
        parts = []
        for path, leaf in leaves(self.observation_space):
            value = state[name_of(path)][0].numpy().copy()
            parts.append(int(value) if isinstance(leaf, spaces.Discrete) else value)
        return tuple(parts) if isinstance(self.observation_space, spaces.Tuple) else parts[0]
