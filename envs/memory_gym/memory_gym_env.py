"""One environment of Memory Gym's tasks for Gymnasium."""

from __future__ import annotations

from envs.memory_gym import TASKS
from envs.rules.task_env import TaskEnv


class MemoryGymEnv(TaskEnv):
    """A task of Memory Gym, seen as symbols.

    Memory Gym's own environments are `memory_gym:MortarMayhem-Grid-v0` and so on.
    """

    title = "Memory Gym"
    package = "memory_gym"
    tasks = TASKS
