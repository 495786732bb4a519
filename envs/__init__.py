"""Environments in batches: tensors in, tensors out, on one device."""

from envs.batched_env import BatchedEnv, EnvStep
from envs.registry import Backend, make

__all__ = ["Backend", "BatchedEnv", "EnvStep", "make"]
