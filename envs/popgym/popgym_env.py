"""One environment of POPGym's tasks for Gymnasium, by the rules that the tensors have."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from envs.counter_random import CounterRandom
from envs.observation_fields import leaves, name_of
from envs.popgym import TASKS
from envs.popgym.task import State


class PopgymEnv(gymnasium.Env):
    """A task of POPGym; it has no `is_success`: episodes are measured by their returns.

    Levels are drawn by `envs.counter_random`, so that a seed stands for other episodes than in
    POPGym, of the same distribution. POPGym's own environments are `popgym:popgym-...`.

    Args:
        task: the name of POPGym's class, such as "RepeatPrevious".
        render_mode: none is supported.
        **options: of the task, such as num_decks=2, k=32.

    Raises:
        ValueError: for another name, or an option that the task cannot have.
        TypeError: for an option that the task does not have.
    """

    def __init__(self, task: str, render_mode: str | None = None, **options: Any):
        if task not in TASKS:
            raise ValueError(f"task={task!r} must be one of {', '.join(TASKS)}; name one")
        self.render_mode = render_mode
        self.task = TASKS[task](**options)
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
        state = self._state
        state["time"] += 1
        outcome = self.task.advance_(state, torch.as_tensor(np.asarray(action)).unsqueeze(0))
        reward, terminated, truncated = (part.item() for part in outcome)
        if terminated or truncated:
            self._state = None
        return self._observe(state), reward, bool(terminated), bool(truncated), {}

    def _observe(self, state: State) -> Any:
        parts = []
        for path, leaf in leaves(self.observation_space):
            value = state[name_of(path)][0].numpy().copy()
            parts.append(int(value) if isinstance(leaf, spaces.Discrete) else value)
        return tuple(parts) if isinstance(self.observation_space, spaces.Tuple) else parts[0]
