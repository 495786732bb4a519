"""Masks of the actions that may be taken: `action_mask` in the observation, or in the info.

A mask has one number for each choice of a Discrete, or of all parts of a MultiDiscrete one after
the other; those above 0 may be taken.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim
from jaxtyping import Bool

from envs.observation_fields import Fields
from envs.wrapped.guarded_env import EnvError

ACTION_MASK = "action_mask"


def allowed_action(space: spaces.Space, mask: Any) -> Any:
    """Return an action that a mask allows; of numbers, the one that is nearest to 0.

    Args:
        space: of the actions.
        mask: as an environment gives it, or None.
    """
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)
    sizes = choices(space)
    flat = _flat_mask(mask)
    if len(flat) != sum(sizes):
        flat = np.ones(sum(sizes))
    chosen = [int(part.argmax()) for part in np.split(flat > 0, np.cumsum(sizes)[:-1])]
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    return space.start + (chosen[0] if isinstance(space, spaces.Discrete) else np.array(chosen))


def may_have_mask(env: gymnasium.Env) -> bool:
    """Return whether a mask in the info would count: where there are choices, none is observed."""
    space = env.observation_space
    is_observed = isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces
    return isinstance(env.action_space, spaces.Discrete | spaces.MultiDiscrete) and not is_observed


class MaskInObservation(gymnasium.Wrapper):
    """Moves the mask from the info into the observation; one that is no Dict becomes one."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        inner = env.observation_space
        parts = inner.spaces if isinstance(inner, spaces.Dict) else {"observation": inner}
        self._is_dict = isinstance(inner, spaces.Dict)
        self._size = flatdim(env.action_space)
        mask_space = spaces.MultiBinary(self._size)
        self.observation_space = spaces.Dict({**parts, ACTION_MASK: mask_space})

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        return self._with_mask(observation, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        ends = bool(terminated or truncated)  # then no action follows, and no mask is needed
        return self._with_mask(observation, info, ends), reward, terminated, truncated, info

    def _with_mask(
        self, observation: Any, info: dict[str, Any], ends: bool = False
    ) -> dict[str, Any]:
        mask = info.get(ACTION_MASK)
        if mask is None and ends:
            mask = np.ones(self._size)
        flat = _flat_mask(mask)
        if len(flat) != self._size:
            raise ValueError(
                f"info[{ACTION_MASK!r}] holds {len(flat)} numbers, but every reset and step must "
                f"give {self._size}, one for each choice of {self.action_space}"
            )
        inner = observation if self._is_dict else {"observation": observation}
        return {**inner, ACTION_MASK: (flat > 0).astype(np.int8)}


class WithoutMask(gymnasium.Wrapper):
    """Refuses a mask in the info of a step where that of the first reset held none."""

    def step(self, action: Any) -> Any:  # what is no step is found later
        result: Any = self.env.step(action)
        info = result[-1] if isinstance(result, tuple) and result else None
        if isinstance(info, dict) and info.get(ACTION_MASK) is not None:
            raise ValueError(
                f"the info of this step holds {ACTION_MASK!r}, but that of the first reset held "
                "none; give it in the info of every reset and step, or of none"
            )
        return result


def check_mask(fields: Fields, action_space: spaces.Space, name: str) -> None:
    """Raise EnvError for a mask (B, ...) that leaves nothing to choose.

    Args:
        fields: a batch of flat observations that are acted on.
        action_space: of one env.
        name: the environment's id.
    """
    if isinstance(action_space, spaces.Box) or ACTION_MASK not in fields:
        return
    sizes = choices(action_space)
    mask = fields[ACTION_MASK].reshape(len(fields[ACTION_MASK]), -1) > 0
    if mask.shape[1] != sum(sizes):
        return  # the agent refuses it
    starts = np.cumsum([0, *sizes[:-1]])
    has_choice: Bool[np.ndarray, "B parts"] = np.logical_or.reduceat(mask, starts, axis=1)
    if not has_choice.all():
        index = np.argwhere(~has_choice)[0]
        part = f" for part {index[1]}" if len(sizes) > 1 else ""
        raise EnvError(f"{name}, env {index[0]}: {ACTION_MASK} allows no action{part}; allow one "
                       "or more, or end the episode")  # fmt: skip


def choices(space: spaces.Space) -> list[int]:
    """Return the number of choices of each part of a Discrete or MultiDiscrete action."""
    assert isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    return np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec).tolist()


def _flat_mask(mask: Any) -> np.ndarray:
    """Return the numbers of a mask; of a MultiDiscrete it may be a tuple, Gymnasium's own form."""
    parts = mask if isinstance(mask, tuple | list) else [] if mask is None else [mask]
    return np.concatenate([np.ravel(part) for part in (*parts, ())])
