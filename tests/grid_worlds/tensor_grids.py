"""Grids as tensors, played by random actions, and what their steps show."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.batched_env import EnvStep
from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv
from envs.tensor_env import TensorEnv

NUM_ENVS = 7
MEMORY, DOOR_KEY, FETCH = (
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-Fetch-5x5-N2-v0",
)
DYNAMIC = "MiniGrid-Dynamic-Obstacles-5x5-v0"
KINDS = [(TableEnv, MEMORY), (GridEnv, MEMORY), (GridEnv, FETCH), (GridEnv, DYNAMIC)]


def random_actions(num_steps: int, seed: int = 0, num_envs: int = NUM_ENVS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(7, (num_steps, num_envs), generator=generator)


def flat(step: EnvStep) -> Tensor:
    """Return everything that a step shows, but for the final observation, as one vector."""
    fields = [*step.observation.values(), step.reward, step.terminated, step.truncated]
    return torch.cat([field.flatten().double() for field in fields])


def record(env: TensorEnv, actions: Tensor) -> Tensor:
    return torch.stack([flat(env.step(action)) for action in actions])
