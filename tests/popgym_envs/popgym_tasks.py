"""POPGym's tasks as tensors, by their names."""

from __future__ import annotations

from typing import Any

import envs
from envs.rules.task_tensors import TaskTensorEnv

NUM_ENVS = 7


def id_of(name: str) -> str:
    return f"mtxl/popgym-{name}-v0"


def tensors(name: str, num_envs: int = NUM_ENVS, **options: Any) -> TaskTensorEnv:
    env = envs.make(name if "/" in name else id_of(name), num_envs, **options)
    assert isinstance(env, TaskTensorEnv)
    return env
