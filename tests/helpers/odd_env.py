"""Environments with one oddity each; registered as Odd-<name>-v0."""

from __future__ import annotations

import ctypes
import math
import random
from typing import Any

import gymnasium
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
from gymnasium import spaces
from minigrid.wrappers import ActionBonus

LENGTH = 5


class OddEnv(gymnasium.Env):
    """Episodes of `LENGTH` steps; the reward is the action, and the observation is nothing."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)
    length = LENGTH

    def __init__(self, **_: Any):
        pass

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        done = self.time == self.length
        return np.zeros(2, np.float32), float(action), done, False, self.info(done)

    def info(self, is_done: bool) -> dict[Any, Any]:
        return {}


class EndlessEnv(OddEnv):
    length = -1


class InfoEnv(OddEnv):
    """Infos of every kind, none of which is used."""

    def info(self, is_done: bool) -> dict[Any, Any]:
        numbers = np.zeros(self.np_random.integers(1, 9))
        return {
            "array": numbers,
            3: None,
            "final_info": "mine",
            "final_obs": [],
            "_x": {"y": set()},
        }


class NanEnv(OddEnv):
    """Its fourth observation is no number."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return observation + np.float32(math.nan if self.time == 3 else 0), *rest


class SaysNoEnv(OddEnv):
    def info(self, is_done: bool) -> dict[Any, Any]:
        return {"success": "no"}


class SometimesEnv(OddEnv):
    """Says success in its first episode, failure in its second, nothing in its third, and so on."""

    def __init__(self, **_: Any):
        self.number = -1

    def info(self, is_done: bool) -> dict[Any, Any]:
        self.number += is_done
        return [{"success": True}, {"is_success": np.int64(0)}, {"success": None}][self.number % 3]


class PrintingEnv(OddEnv):
    def reset(self, **options: Any) -> Any:
        print("from Python", flush=False)
        ctypes.CDLL(None).puts(b"from C")
        return super().reset(**options)


class GlobalRandomEnv(OddEnv):
    """The reward is of the generators that a process has one of."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, float(np.random.random() + random.random()), *rest


class PictureEnv(OddEnv):
    """Draws pictures of floats, brighter step by step."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def render(self) -> Any:
        return np.full((32, 48, 3), self.time / LENGTH)


class NoDisplayEnv(PictureEnv):
    def render(self) -> Any:
        raise RuntimeError("an OpenGL platform library has not been loaded into this process")


for odd in (
    OddEnv, EndlessEnv, InfoEnv, NanEnv, SaysNoEnv, SometimesEnv, PrintingEnv, GlobalRandomEnv,
    PictureEnv, NoDisplayEnv,
):  # fmt: skip
    gymnasium.register(f"Odd-{odd.__name__.removesuffix('Env')}-v0", odd)
gymnasium.register("Odd-Solved-v0", OddEnv, reward_threshold=0.5)
gymnasium.register(
    "Odd-Bonus-v0",
    lambda **_: ActionBonus(gymnasium.make("MiniGrid-DistShift1-v0", max_steps=40)),
)
