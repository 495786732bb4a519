"""What a vector environment gives: batches of its spaces, as arrays, looked at. Shapes: B envs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from minigrid.core.mission import MissionSpace
from torch import Tensor

from envs.observation_fields import Fields, leaves, name_of, pick
from envs.wrapped.guarded_env import EnvError, shown

Batch = Any
"""Observations as a vector environment gives them: arrays, or dicts and tuples of such."""


def as_arrays(batch: Batch) -> Batch:
    """Return a batch with arrays for tensors."""
    if isinstance(batch, dict):
        return {name: as_arrays(value) for name, value in batch.items()}
    if isinstance(batch, tuple):
        return tuple(as_arrays(value) for value in batch)
    return batch.detach().cpu().numpy() if isinstance(batch, Tensor) else batch


def row_of(batch: Batch, row: int) -> Any:
    """Return one observation of a batch, or of an array of observations; None where it has none."""
    if isinstance(batch, dict):
        return {name: row_of(value, row) for name, value in batch.items()}
    if isinstance(batch, tuple) and not isinstance(next(iter(batch), None), str):
        return tuple(row_of(value, row) for value in batch)
    try:
        return batch[row]
    except (TypeError, LookupError):
        return None


def with_rows(fields: Fields, rows: Sequence[int] | np.ndarray, new: Fields) -> Fields:
    """Return fields with other observations in some rows."""
    changed = {name: array.copy() for name, array in fields.items()}
    for name, array in changed.items():
        array[rows] = new[name]
    return changed


def check_batch(where: str, observation: Batch, space: spaces.Space, num_rows: int) -> None:
    """Raise EnvError unless an observation is a batch of a space.

    Args:
        where: it comes from, for people.
        observation: as `as_arrays` returns it.
        space: of one env.
        num_rows: how many envs it is of.
    """
    for path, leaf in leaves(space):
        name = name_of(path)
        try:
            values = pick(observation, path)
        except (LookupError, TypeError, ValueError):
            raise EnvError(
                f"{where} returned no observation {name!r}, which its observation space has"
            ) from None
        if not fits(values, leaf, num_rows):
            raise EnvError(
                f"{where} returned for observation {name!r} {shown(values)}, which is no batch of "
                f"{num_rows} of its space {leaf}"
            )


def numbers(where: str, name: str, values: Any, num_envs: int) -> np.ndarray:
    """Return one number for each env, or raise EnvError."""
    array = _array(as_arrays(values))
    if array is None or array.shape != (num_envs,) or array.dtype.kind not in "biuf":
        raise EnvError(f"{where} returned {shown(values)} as {name}, not {num_envs} numbers")
    return array


def flags(where: str, name: str, values: Any, num_envs: int) -> np.ndarray:
    """Return true or false for each env, or raise EnvError."""
    array = numbers(where, name, values, num_envs)
    if not ((array == 0) | (array == 1)).all():
        raise EnvError(f"{where} returned {shown(array.tolist())} as {name}, not true or false")
    return array.astype(bool)


def fits(values: Any, space: spaces.Space, *rows: int) -> bool:
    """Return whether values are of a space, or with their number a batch of rows of it.

    Bounds are not asked: see `GuardedEnv`.
    """
    if isinstance(space, spaces.Text | MissionSpace):
        if not rows:
            return isinstance(values, str)
        is_list = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
        return is_list and (len(values),) == rows and all(isinstance(v, str) for v in values)
    array = _array(values)
    assert space.shape is not None
    kinds = "biuf" if isinstance(space, spaces.Box) and space.dtype.kind == "f" else "biu"
    return array is not None and array.shape == (*rows, *space.shape) and array.dtype.kind in kinds


def _array(values: Any) -> np.ndarray | None:
    try:
        return np.asarray(values)
    except ValueError:  # a ragged list
        return None
