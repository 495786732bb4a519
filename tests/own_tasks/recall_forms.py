"""Recall in its two forms: a batch of tensors, and Gymnasium's single environment."""

from __future__ import annotations

from typing import Any

import gymnasium

from envs.memory_tasks.recall import RecallEnv
from envs.memory_tasks.recall_tensors import RecallTensorEnv
from envs.registry import check_id

NUM_ENVS = 7
MIXED = "mtxl/Recall1to8x3gap2shows2-v0"


def tensors(env_id: str, num_envs: int = NUM_ENVS, **options: Any) -> RecallTensorEnv:
    check_id(env_id)
    return RecallTensorEnv(env_id, num_envs, **options)


def original(env_id: str) -> RecallEnv:
    check_id(env_id)
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    assert isinstance(env, RecallEnv)
    return env
