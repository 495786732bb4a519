"""POPGym's tasks as tensors, by their names."""

from __future__ import annotations

from typing import Any

import envs
from envs.popgym.tensors import PopgymTensorEnv

NUM_ENVS = 7


def id_of(name: str) -> str:
    return f"mtxl/popgym-{name}-v0"


def tensors(name: str, num_envs: int = NUM_ENVS, **options: Any) -> PopgymTensorEnv:
    env = envs.make(name if "/" in name else id_of(name), num_envs, **options)
    assert isinstance(env, PopgymTensorEnv)
    return env
