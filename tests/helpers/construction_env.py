"""An environment that shows its argument, and wrappers, which are named by this module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

from envs.batched_env import BatchedEnv

Make = Callable[..., BatchedEnv]


class OwnEnv(gymnasium.Env):
    """Shows `memory_length`, and takes as many steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, memory_length: int = 3, kind: str = "plain"):
        self.observation_space = spaces.Box(0, 1000, (2,))
        self.memory_length, self.kind = memory_length, kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._observe(), 1.0, self.time == self.memory_length, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.memory_length, self.time], np.float32)


gymnasium.register("ConstructionOwn-v0", "construction_env:OwnEnv")
OWN = "construction_env:ConstructionOwn-v0"


class Doubled(gymnasium.ObservationWrapper):
    def observation(self, observation: Any) -> Any:
        return 2 * observation


class OneMore(gymnasium.ObservationWrapper):
    def observation(self, observation: Any) -> Any:
        return observation + 1


def stacked(env: gymnasium.Env) -> gymnasium.Env:
    return FrameStackObservation(env, 4)


def not_wrapped(env: gymnasium.Env) -> int:
    return 7


A_NUMBER = 7
