"""One environment of POPGym's tasks for Gymnasium."""

from __future__ import annotations

from envs.popgym import TASKS
from envs.rules.task_env import TaskEnv


class PopgymEnv(TaskEnv):
    """A task of POPGym; it has no `is_success`: episodes are measured by their returns.

    POPGym's own environments are `popgym:popgym-...`.
    """

    title = "POPGym"
    package = "popgym"
    tasks = TASKS
