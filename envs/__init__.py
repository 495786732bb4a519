"""Environments in batches: tensors in, tensors out, on one device.

`registry` makes them by their ids; below it lies a folder for each engine, over the shared ground
(`batched_env`, `tensor_env`, `specs`, ...). They may use torch, NumPy and Gymnasium, and nothing of
`agents`, `mtxl_rl` and `experiments`.
"""

from envs.batched_env import BatchedEnv, EnvStep
from envs.counter_random import seed_of_part
from envs.registry import Backend, make, register
from envs.wrapped.gymnasium_adapter import Vectorize

__all__ = ["Backend", "BatchedEnv", "EnvStep", "Vectorize", "make", "register", "seed_of_part"]
