"""From an environment's id to a batch of it."""

from __future__ import annotations

import difflib

import gymnasium
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
import torch

from envs import recall, t_maze
from envs.batched_env import BatchedEnv
from envs.gymnasium_adapter import GymnasiumEnv

TASKS = (
    ("mtxl/Recall{}-v0", "envs.recall:RecallEnv", "delay", recall.DELAYS),
    ("mtxl/TMaze{}-v0", "envs.t_maze:TMazeEnv", "length", t_maze.LENGTHS),
)
"""Our own tasks: id, class, and the option that the number in the id sets."""

for _id, _entry_point, _option, _sizes in TASKS:
    for _size in _sizes:
        if _id.format(_size) not in gymnasium.registry:
            gymnasium.register(_id.format(_size), _entry_point, kwargs={_option: _size})


def make(
    env_id: str,
    num_envs: int,
    device: torch.device | str = "cpu",
    seed: int | np.random.SeedSequence = 0,
    render_mode: str | None = None,
) -> BatchedEnv:
    """Make `num_envs` copies of an environment as one batch.

    Args:
        env_id: any id registered with Gymnasium (MiniGrid's are), or "module:id".
        num_envs: number of copies.
        device: where the tensors live.
        seed: of the levels; copies have streams of their own.
        render_mode: "rgb_array" to render pictures.

    Raises:
        ValueError: for an unknown id, a space that cannot be taken, or `num_envs` below 1.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs} must be 1 or more; set --num-envs")
    check_id(env_id)
    return GymnasiumEnv(env_id, num_envs, device, seed, render_mode)


def check_id(env_id: str) -> None:
    """Raise ValueError, naming the nearest ids, unless `env_id` is registered."""
    if ":" in env_id or env_id in gymnasium.registry:
        return
    near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=3, cutoff=0.5)
    nearest = f"; did you mean {', '.join(near)}?" if near else "."
    raise ValueError(
        f"env={env_id!r} is not registered with Gymnasium{nearest} To use an environment of your "
        "own, name the module that registers it: --env my_module:MyEnv-v0"
    )
