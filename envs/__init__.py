"""Environments in batches: tensors in, tensors out, on one device."""

from envs.batched_env import BatchedEnv, EnvStep
from envs.gymnasium_adapter import Vectorize
from envs.registry import Backend, make, register

__all__ = ["Backend", "BatchedEnv", "EnvStep", "Vectorize", "make", "register"]
