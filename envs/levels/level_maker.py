"""Levels made by MiniGrid itself, each from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrid.minigrid_env import MiniGridEnv

from envs.levels.level import Level, read_level
from envs.minigrid.families import TASKS
from envs.minigrid.geometry import VIEW_SIDE, Geometry


def check_view_side(view_side: int) -> None:
    """Raise ValueError for a view of another size than that of tensors."""
    if view_side != VIEW_SIDE:
        raise ValueError(
            f"agent_view_size={view_side} must be {VIEW_SIDE} for tensors; use "
            "backend='gymnasium' for another"
        )


class LevelMaker:
    """Makes levels of one environment by their seeds.

    Args:
        env_class: one of `envs.minigrid.families.TASKS`.
        options: of the environment.

    Raises:
        ValueError: for a view of another size than 7.
    """

    def __init__(self, env_class: type[MiniGridEnv], options: dict[str, Any]):
        self.source = env_class, options
        self.env = env_class(**options)
        check_view_side(self.env.agent_view_size)
        self.task = TASKS[env_class]()
        self.geometry = Geometry(self.env.width, self.env.height)

    def make(self, seeds: Sequence[int]) -> list[Level]:
        """Return the levels of `reset(seed)`."""
        return [self._make_one(seed) for seed in seeds]

    def _make_one(self, seed: int) -> Level:
        self.env.reset(seed=int(seed))
        return read_level(self.env, self.task, self.geometry)
