"""The environments of a batch that runs in this process."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import SyncVectorEnv

from envs.wrapped.gymnasium_adapter import GymnasiumEnv


def single_envs(env: GymnasiumEnv) -> list[Any]:
    """Return them in order."""
    assert isinstance(env._vector_env, SyncVectorEnv)
    return list(env._vector_env.envs)
