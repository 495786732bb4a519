"""Mortar Mayhem of Memory Gym (Pleines et al. 2023, arXiv 2309.17207) on its grid, as tensors.

The rules are those of memory-gym 1.0.2; what is seen is symbols where Memory Gym shows pixels, so
its published figures are of another observation. Ids: mtxl/MortarMayhem-Grid-v0 and its endless
form mtxl/Endless-MortarMayhem-Grid-v0. It may use `envs/rules` and the ground (`envs/*.py`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from envs.memory_gym.mortar_mayhem import EndlessMortarMayhemGrid, MortarMayhemGrid
from envs.rules.task import Task

TASKS: dict[str, type[Task]] = {
    "MortarMayhem-Grid": MortarMayhemGrid,
    "Endless-MortarMayhem-Grid": EndlessMortarMayhemGrid,
}
"""By the names that their ids have."""


def registrations() -> dict[str, dict[str, Any]]:
    """Return the ids, and the options of `MemoryGymEnv` that each stands for."""
    return {f"mtxl/{name}-v0": {"task": name, **asdict(task())} for name, task in TASKS.items()}
