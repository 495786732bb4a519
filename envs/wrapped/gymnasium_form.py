"""Actions and observations between tensors and Gymnasium's arrays. Shapes: B envs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from jaxtyping import Shaped
from torch import Tensor

from envs.batched_env import RENDER_FPS, Observation
from envs.observation_fields import Fields, check_categories_fit


def check_action_space(space: spaces.Space) -> spaces.Space:
    """Return an action space that can be taken.

    Raises:
        ValueError: for another.
    """
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        check_categories_fit("the action", space)
    if isinstance(space, spaces.Discrete) or (
        isinstance(space, spaces.Box) and 0 not in space.shape
    ):
        return space
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return space
    raise ValueError(
        f"action space {space} is not supported; supported are Discrete, MultiDiscrete (of one "
        "axis) and Box (not empty): wrap the environment so that it takes one of those"
    )


def to_gymnasium(actions: Shaped[Tensor, "B ..."], space: spaces.Space) -> np.ndarray:
    """Return a batch of actions as environments with this action space take them."""
    array = actions.detach().cpu().numpy()
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return (array + space.start).astype(space.dtype)
    assert isinstance(space, spaces.Box)
    # a memory that is not finite acts like that until it is found: see agents.learning.finite
    shaped = np.nan_to_num(array).reshape(-1, *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        shaped = np.rint(shaped)
    return np.clip(shaped, space.low, space.high).astype(space.dtype)


def to_tensors(fields: Fields, device: torch.device) -> Observation:
    """Return a batch of observations as tensors of their own: a next step may write the arrays."""
    return {name: torch.as_tensor(array).to(device, copy=True) for name, array in fields.items()}


def batch_of_one(observation: Any) -> Any:
    """Return one observation in the form of a batch."""
    if isinstance(observation, dict):
        return {name: batch_of_one(value) for name, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(batch_of_one(value) for value in observation)
    return [observation] if isinstance(observation, str) else np.asarray(observation)[None]


def fps_of(metadata: dict[str, Any]) -> float:
    """Return the pictures a second of an environment's films."""
    fps = metadata.get("render_fps")
    return float(fps) if isinstance(fps, int | float) and 0 < fps < float("inf") else RENDER_FPS


def check_picture(frame: Any) -> np.ndarray:
    """Return what an environment has drawn.

    Raises:
        ValueError: where it is no picture.
    """
    if isinstance(frame, np.ndarray) and frame.size:
        return frame
    raise ValueError(
        "this environment draws no pictures; make it with render_mode='rgb_array', and check that "
        "its metadata['render_modes'] lists it"
    )


def reward_threshold(spec: EnvSpec | None) -> float | None:
    """Return the mean return from which on an environment counts as solved, if it has one."""
    threshold = getattr(spec, "reward_threshold", None)
    return None if threshold is None else float(threshold)
