"""POPGym's memory tasks (Morad et al. 2023, arXiv 2303.01859) as tensors, equal to popgym 1.0.7.

The rules of a task are a class (`envs.popgym.task`), of which `envs.popgym.popgym_env` plays one
episode for Gymnasium and `envs.popgym.tensors` thousands at once. Registered ids:
mtxl/popgym-RepeatPreviousEasy-v0 and so on: the names of POPGym, with Easy, Medium and Hard. It may
use the ground (`envs/*.py`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from envs.popgym.bandit import MultiarmedBandit
from envs.popgym.boards import Battleship, MineSweeper
from envs.popgym.concentration import Concentration
from envs.popgym.control import (
    NoisyPositionOnlyCartPole,
    NoisyPositionOnlyPendulum,
    PositionOnlyCartPole,
    PositionOnlyPendulum,
    VelocityOnlyCartPole,
)
from envs.popgym.dealt import Autoencode, CountRecall, HigherLower, RepeatFirst, RepeatPrevious
from envs.rules.task import Task

LEVELS: dict[str, tuple[Task, Task, Task]] = {
    "RepeatFirst": (RepeatFirst(1), RepeatFirst(8), RepeatFirst(16)),
    "RepeatPrevious": (RepeatPrevious(1, 4), RepeatPrevious(2, 32), RepeatPrevious(3, 64)),
    "Autoencode": (Autoencode(1), Autoencode(2), Autoencode(3)),
    "CountRecall": (
        CountRecall(1, "colors"),
        CountRecall(2, "suits"),
        CountRecall(4, "ranks"),
    ),
    "Concentration": (
        Concentration(1, "colors"),
        Concentration(2, "colors"),
        Concentration(1, "ranks"),
    ),
    "HigherLower": (HigherLower(1), HigherLower(2), HigherLower(3)),
    "Battleship": (Battleship(8), Battleship(10), Battleship(12)),
    "MineSweeper": (MineSweeper(4, 2), MineSweeper(6, 6), MineSweeper(8, 10)),
    "MultiarmedBandit": (
        MultiarmedBandit(10, 200),
        MultiarmedBandit(20, 400),
        MultiarmedBandit(30, 600),
    ),
    "PositionOnlyCartPole": (
        PositionOnlyCartPole(200),
        PositionOnlyCartPole(400),
        PositionOnlyCartPole(600),
    ),
    "VelocityOnlyCartpole": (
        VelocityOnlyCartPole(200),
        VelocityOnlyCartPole(400),
        VelocityOnlyCartPole(600),
    ),
    "NoisyPositionOnlyCartPole": (
        NoisyPositionOnlyCartPole(200, 0.1),
        NoisyPositionOnlyCartPole(200, 0.2),
        NoisyPositionOnlyCartPole(200, 0.3),
    ),
    "PositionOnlyPendulum": (
        PositionOnlyPendulum(200),
        PositionOnlyPendulum(150),
        PositionOnlyPendulum(100),
    ),
    "NoisyPositionOnlyPendulum": (
        NoisyPositionOnlyPendulum(200, 0.1),
        NoisyPositionOnlyPendulum(200, 0.2),
        NoisyPositionOnlyPendulum(200, 0.3),
    ),
}
"""Easy, Medium and Hard, by the names that POPGym's ids have."""

TASKS = {type(levels[0]).__name__: type(levels[0]) for levels in LEVELS.values()}
"""By the names of their classes, which are those of POPGym."""


def registrations() -> dict[str, dict[str, Any]]:
    """Return the ids, and the options of `PopgymEnv` that each stands for."""
    return {
        f"mtxl/popgym-{name}{level}-v0": {"task": type(task).__name__, **asdict(task)}
        for name, levels in LEVELS.items()
        for level, task in zip(("Easy", "Medium", "Hard"), levels, strict=True)
    }
