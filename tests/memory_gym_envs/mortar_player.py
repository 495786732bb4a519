"""Who plays Mortar Mayhem seeing everything, or blindly."""

from __future__ import annotations

from typing import Any

import envs
from envs.memory_gym.mortar_mayhem import DIRECTIONS, FORWARD, TURN_LEFT, TURN_RIGHT
from envs.rules.task_tensors import TaskTensorEnv

GRID, ENDLESS = "mtxl/MortarMayhem-Grid-v0", "mtxl/Endless-MortarMayhem-Grid-v0"
STAY = 0


def tensors(env_id: str, num_envs: int, **options: Any) -> TaskTensorEnv:
    env = envs.make(env_id, num_envs, **options)
    assert isinstance(env, TaskTensorEnv)
    return env


def right_action(place: list[int], direction: int, target: list[int], size: int | None) -> int:
    """Return an action on a shortest way to the target; `size` is that of a grid without walls."""
    away = [goal - here for goal, here in zip(target, place, strict=True)]
    if size is not None:
        away = [(part + size // 2) % size - size // 2 for part in away]
    wanted = [
        number
        for number, step in enumerate(DIRECTIONS)
        if any(part * there > 0 for part, there in zip(step, away, strict=True))
    ]
    if not wanted:
        return STAY
    if direction in wanted:
        return FORWARD
    return TURN_LEFT if (direction + 1) % 4 in wanted else TURN_RIGHT
