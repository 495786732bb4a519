"""An environment of any spaces, which keeps what it gives and takes."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

OBSERVATIONS: dict[str, spaces.Space] = {
    "from -2": spaces.Discrete(6, start=-2),
    "parts": spaces.MultiDiscrete([3, 4], start=[1, -1]),
    "map": spaces.Box(-2, 5, (4, 6), np.int8),
    "channels last": spaces.Box(0, 255, (11, 13, 3), np.uint8),
    "channels first": spaces.Box(0, 255, (3, 11, 13), np.uint8),
    "stack": spaces.Box(0, 255, (2, 11, 13, 3), np.uint8),
    "large": spaces.Box(0, 255, (90, 101), np.uint8),
    "bits": spaces.MultiBinary(5),
    "dict": spaces.Dict({
        "value": spaces.Discrete(3, start=7),  # a name of ours
        "a": spaces.Dict({"y": spaces.Box(-1, 1, ()), "x": spaces.Discrete(2)}),
    }),
    "tuple": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(3))),
}  # fmt: skip
ACTIONS: dict[str, spaces.Space] = {
    "from 4": spaces.Discrete(3, start=4),
    "parts": spaces.MultiDiscrete([2, 3], start=[1, -1]),
    "numbers": spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32)),
    "whole numbers": spaces.Box(0, 9, (2, 2), np.int32),
}


class SpacesEnv(gymnasium.Env):
    """Episodes of 7 steps; `has_mask` allows one action, and says so in the info."""

    def __init__(self, observation: spaces.Space, action: spaces.Space, has_mask: bool = False):
        self.observation_space, self.action_space = copy.deepcopy((observation, action))
        self.has_mask = has_mask
        self.given: list[Any] = []
        self.taken: list[Any] = []
        self.rewards: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.given, self.taken, self.rewards = [], [], []
        return self._next()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        if self.has_mask:
            assert action == self.allowed
        self.taken.append(action)
        self.rewards.append(float(self.np_random.normal()))
        observation, info = self._next()
        return observation, self.rewards[-1], len(self.taken) == 7, False, info

    def _next(self) -> Any:
        observation = self.observation_space.sample()
        self.given.append(observation)
        if not self.has_mask:
            return observation, {}
        assert isinstance(self.action_space, spaces.Discrete)
        choice = self.np_random.integers(self.action_space.n)
        self.allowed = self.action_space.start + choice
        mask = np.eye(self.action_space.n, dtype=np.int8)[choice]
        self.given[-1] = {"observation": observation, "action_mask": mask}
        return observation, {"action_mask": mask}
