"""One Gymnasium environment's observations and actions, as this package's tensors and back.

Shapes: B envs; none of them where an observation is of one env.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Shaped
from torch import Tensor

from envs.batched_env import BatchedEnv
from envs.construction import one_line_of
from envs.observation_fields import leaves, make_flattener, name_of, pick
from envs.vectorized.categories import size_of
from envs.vectorized.own_tensors import WHOLE
from envs.vectorized.vector_batches import fits
from envs.vectorized.vectorized_env import VectorizedEnv
from envs.wrapped.action_mask import ACTION_MASK, check_mask
from envs.wrapped.guarded_env import EnvError, shown
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from envs.wrapped.gymnasium_form import to_gymnasium


class SingleForm:
    """What one environment gives and takes, alone or as a batch, in NumPy or as tensors.

    NumPy (and plain numbers and texts) is in Gymnasium's form, that of `gymnasium.make(id)` or of
    a vector environment; tensors are in the form of `envs.make(id, num_envs)`.

    Args:
        env: of `envs.make`; it is not used later.
    """

    def __init__(self, env: BatchedEnv):
        self.observation_space, self.action_space = env.observation_space, env.action_space
        is_tensors = not isinstance(env, GymnasiumEnv | VectorizedEnv)
        self.original_space = env.observation_space if is_tensors else env.original_space
        has_info_mask = isinstance(env, GymnasiumEnv) and env.has_info_mask
        self.mask_from: Literal["info", "observation"] = "info" if has_info_mask else "observation"
        """What the environment gives its mask of actions in, where it has one."""
        self._flatten = make_flattener(self.original_space, self.observation_space)
        self._leaves = leaves(self.original_space)
        self._sizes = {
            name: size_of(space) for name, space in self.observation_space.spaces.items()
        }
        self._dtypes = {
            name: _dtype(space) for name, space in self.observation_space.spaces.items()
        }

    def read(self, observation: Any) -> tuple[dict[str, Tensor], bool, bool]:
        """Return an observation as a batch, whether it is one already, and whether it is tensors.

        All of it is looked at but the values of tensors that are not on the CPU, which would have
        to be waited for.

        Raises:
            ValueError: for what the environment's space does not hold, and what is not finite.
        """
        given = observation if isinstance(observation, dict) else {"observation": observation}
        is_tensors = any(isinstance(value, Tensor) for value in given.values())
        try:
            if is_tensors:
                tensors, is_batch = self._read_tensors(given)
            else:
                tensors, is_batch = self._read_arrays(observation)
            for name, tensor in tensors.items():
                self._check(name, tensor, len(next(iter(tensors.values()))))
        except (ArithmeticError, LookupError, TypeError, ValueError, EnvError) as error:
            space = self.observation_space if is_tensors else self.original_space
            raise ValueError(one_line_of(
                f"the observation does not fit {space} ({type(error).__name__}: {error}); pass "
                "what the environment's reset or step returned (tensors: that of envs.make), or a "
                "batch of it"
            )) from None  # fmt: skip
        cast = {
            name: tensor if (dtype := self._dtypes[name]) is None else tensor.to(dtype)
            for name, tensor in tensors.items()
        }
        for name, tensor in cast.items():
            if self._sizes[name] is None:
                check_finite(f"observation {name!r}", tensor)
        mask = cast.get(ACTION_MASK)
        # in a batch it may be of an episode's end, where the action counts for nothing
        if mask is not None and mask.is_cpu and not is_batch:
            fields = {ACTION_MASK: mask.detach().numpy()}
            try:
                check_mask(fields, self.action_space, "the observation")
            except EnvError as error:
                raise ValueError(str(error)) from None
        return cast, is_batch, is_tensors

    def write(
        self, action: Shaped[Tensor, "B ..."], is_batch: bool, is_tensors: bool
    ) -> Tensor | np.ndarray | np.generic:
        """Return actions of the agent in the form in which the observation came."""
        if is_tensors:
            return action if is_batch else action[0]
        array = to_gymnasium(action, self.action_space)
        return array if is_batch else array[0]

    def _read_arrays(self, observation: Any) -> tuple[dict[str, Tensor], bool]:
        path, leaf = self._leaves[0]
        first = pick(observation, path)
        is_batch = _is_batch(first, leaf)
        rows = [len(first)] if is_batch else []
        for path, leaf in self._leaves:
            value = pick(observation, path)
            if not fits(value, leaf, *rows) or _overflows(value, leaf):
                raise ValueError(
                    f"observation {name_of(path)!r} is {shown(value)}, which is not "
                    f"{f'{rows[0]} of ' if is_batch else ''}{leaf}"
                )
        batch = observation if is_batch else _batch_of_one(observation, self.original_space)
        with np.errstate(over="ignore"):  # what is infinite then is refused
            arrays = self._flatten(batch)
        return {name: torch.as_tensor(array) for name, array in arrays.items()}, is_batch

    def _read_tensors(self, given: dict[str, Any]) -> tuple[dict[str, Tensor], bool]:
        names = self.observation_space.spaces
        tensors = {name: given[name] for name in names if isinstance(given.get(name), Tensor)}
        if len(tensors) < len(names):
            raise ValueError(f"it has tensors {sorted(tensors)}, and must have {sorted(names)}")
        for name, tensor in tensors.items():
            check_kind(f"observation {name!r}", tensor)
        name, tensor = next(iter(tensors.items()))
        is_batch = tensor.dim() > len(names[name].shape or ())
        if not is_batch:
            tensors = {name: tensor[None] for name, tensor in tensors.items()}
        return tensors, is_batch

    def _check(self, name: str, tensor: Tensor, num_envs: int) -> None:
        """Raise ValueError for a batch that is not of its space."""
        expected = (num_envs, *(self.observation_space[name].shape or ()))
        if tensor.shape != expected or not num_envs:
            raise ValueError(f"observation {name!r} is {tuple(tensor.shape)} as a batch, and must "
                             f"be {(num_envs or 'B', *expected[1:])}")  # fmt: skip
        size = self._sizes[name]
        if size is None:  # numbers
            return
        if tensor.dtype not in WHOLE:
            raise TypeError(f"observation {name!r} is of {tensor.dtype}, not of whole numbers")
        if not tensor.is_cpu:
            return
        values = tensor.detach().numpy()
        if (values.max(axis=0) >= size).any() or (values.min(axis=0) < 0).any():
            wrong = values[(values >= size) | (values < 0)][0]
            raise ValueError(f"observation {name!r} holds the category {wrong}, which its space "
                             "does not have")  # fmt: skip


def check_kind(what: str, tensor: Tensor) -> None:
    """Raise ValueError for a tensor that does not hold real numbers, one beside the other."""
    if tensor.is_complex() or tensor.is_meta or tensor.layout != torch.strided:
        raise ValueError(
            f"{what} is {tensor.dtype}, {tensor.layout} on {tensor.device}, and must be a dense "
            "tensor of real numbers; convert it"
        )


def check_finite(what: str, tensor: Tensor) -> None:
    """Raise ValueError for numbers (B, ...) on the CPU that are not finite: a memory keeps them."""
    if not tensor.is_cpu or np.isfinite(values := tensor.detach().numpy()).all():
        return
    place = np.argwhere(~np.isfinite(values))[0]
    raise ValueError(
        f"{what} is {values[tuple(place)]} in env {place[0]}, and must be finite: an agent would "
        "remember it; mend what gives it"
    )


def _dtype(space: spaces.Space) -> torch.dtype | None:
    """Return the dtype that encoders take; None where it is any of whole numbers."""
    if isinstance(space, spaces.Box):
        return torch.uint8 if space.dtype == np.uint8 else torch.float32
    return None if len(space.shape or ()) == 3 else torch.int64


def _overflows(value: Any, space: spaces.Space) -> bool:
    """Return whether whole numbers are none of their Box's dtype."""
    if not isinstance(space, spaces.Box) or space.dtype.kind not in "iu":
        return False
    array, limits = np.asarray(value), np.iinfo(space.dtype)
    if np.can_cast(array.dtype, space.dtype):
        return False
    return bool(((array < limits.min) | (array > limits.max)).any())


def _is_batch(value: Any, space: spaces.Space) -> bool:
    if space.shape is None or isinstance(space, spaces.Text):
        return not isinstance(value, str)
    return np.ndim(value) > len(space.shape)


def _batch_of_one(observation: Any, space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _batch_of_one(observation[key], part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            _batch_of_one(o, part) for o, part in zip(observation, space.spaces, strict=True)
        )
    return [observation] if isinstance(observation, str) else np.asarray(observation)[None]
