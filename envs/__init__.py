"""Environments in batches: tensors in, tensors out, on one device."""

from envs.batched_env import BatchedEnv, EnvStep
from envs.counter_random import seed_of_part
from envs.registry import Backend, make, register
from envs.wrapped.gymnasium_adapter import Vectorize

__all__ = ["Backend", "BatchedEnv", "EnvStep", "Vectorize", "make", "register", "seed_of_part"]
