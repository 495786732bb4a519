"""Which class of tensor environment, if any, runs an id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv
from envs.levels.level_maker import check_view_side
from envs.levels.static_levels import STATIC_CLASSES
from envs.memory_tasks.endless_t_maze import EndlessTMazeEnv
from envs.memory_tasks.endless_t_maze_tensors import EndlessTMazeTensorEnv
from envs.memory_tasks.recall import RecallEnv
from envs.memory_tasks.recall_tensors import RecallTensorEnv
from envs.minigrid.families import TASKS
from envs.minigrid.geometry import VIEW_SIDE
from envs.rules.task_env import TaskEnv
from envs.rules.task_tensors import TaskTensorEnv
from envs.specs import creator, find_spec
from envs.tensor_env import TensorEnv

GYMNASIUM_OPTIONS = {"max_episode_steps", "render_mode"}
"""Options that make a Gymnasium environment more than its class is."""


def has_tensor_env(spec: EnvSpec, options: Mapping[str, Any] | None = None) -> bool:
    """Tell whether the tensor engine knows an id, with the rules that it is registered with.

    Args:
        spec: of the id.
        options: of its constructor, over those that it is registered with.
    """
    return _class_of(spec, options or {}) is not None


def tensor_env(
    env_id: str,
    num_envs: int,
    device: torch.device | str,
    seed: int | np.random.SeedSequence | None,
    level_seeds: Sequence[int] | None = None,
    options: dict[str, Any] | None = None,
    render_mode: str | None = None,
    part: tuple[int, int] = (0, 1),
) -> TensorEnv:
    """Make `num_envs` copies of an environment as tensors.

    Args:
        env_id: registered with Gymnasium.
        num_envs: B.
        device: where they live.
        seed: of the levels. Left out: from the machine's entropy.
        level_seeds: play the levels of the Gymnasium form's `reset(seed)` for these seeds, in
            their order.
        options: of the environment.
        render_mode: "rgb_array" to render pictures; they can be had without, too.
        part: which of the equal parts of a batch they are.

    Raises:
        ValueError: for an id that the tensor engine does not know, options that it cannot have,
            or a render mode that it does not have.
    """
    options = options or {}
    spec = find_spec(env_id)
    chosen = _class_of(spec, options)
    if chosen is None:
        check_view_side(options.get("agent_view_size", VIEW_SIDE))
        given = f" with env_kwargs={options}" if _class_of(spec, {}) else ""
        raise ValueError(
            f"backend='tensor' does not know env={env_id!r}{given}; use backend='auto' or "
            "'gymnasium'"
        )
    if render_mode is not None and not chosen.draws_pictures:
        raise ValueError(
            f"env={env_id!r} does not draw pictures as {render_mode!r} (it draws []); leave out "
            "--video, or use an environment that does"
        )
    if render_mode not in (None, "rgb_array"):
        raise ValueError(
            f"render_mode={render_mode!r} must be 'rgb_array' or left out for tensors; use "
            "backend='gymnasium' for a window"
        )
    seed = np.random.SeedSequence() if seed is None else seed
    return chosen(env_id, num_envs, device, seed, level_seeds, options, part)


def _class_of(spec: EnvSpec, options: Mapping[str, Any]) -> type[TensorEnv] | None:
    """Return the class for an id, judged by its entry point and options; nothing is made."""
    has_extras = spec.additional_wrappers or spec.max_episode_steps is not None
    if has_extras or options.keys() & GYMNASIUM_OPTIONS:
        return None
    options = {**spec.kwargs, **options}
    if options.get("agent_view_size", VIEW_SIDE) != VIEW_SIDE:
        return None
    env_class = creator(spec)
    if env_class in STATIC_CLASSES:
        return TableEnv
    if env_class is RecallEnv:
        return RecallTensorEnv
    if env_class is EndlessTMazeEnv:
        return EndlessTMazeTensorEnv
    if isinstance(env_class, type) and issubclass(env_class, TaskEnv):
        return TaskTensorEnv
    return GridEnv if env_class in TASKS else None
