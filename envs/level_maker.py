"""Levels made by MiniGrid itself, each from a seed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
from minigrid.minigrid_env import MiniGridEnv

from envs.families import TASKS
from envs.geometry import Geometry
from envs.level import Level, read_level


class LevelMaker:
    """Makes levels of one environment by their seeds.

    Args:
        env_id: registered with Gymnasium, of a family that the tensor engine knows.
        options: of the environment.
    """

    def __init__(self, env_id: str, options: dict[str, Any]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated versions, said when env_id was checked
            env = gymnasium.make(env_id, disable_env_checker=True, **options).unwrapped
        assert isinstance(env, MiniGridEnv)
        self.env = env
        self.task = TASKS[type(env)]()
        self.geometry = Geometry(env.width, env.height)

    def make(self, seeds: Sequence[int]) -> list[Level]:
        """Return the levels of `reset(seed)`."""
        return [self._make_one(seed) for seed in seeds]

    def _make_one(self, seed: int) -> Level:
        self.env.reset(seed=int(seed))
        return read_level(self.env, self.task, self.geometry)
