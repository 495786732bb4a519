"""One Gymnasium environment's observations and actions, as this package's tensors and back.

Shapes: B envs; none of them where an observation is of one env.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Shaped
from torch import Tensor

from envs.batched_env import BatchedEnv
from envs.observation_fields import leaves, make_flattener, pick
from envs.wrapped.guarded_env import EnvError, check_categories
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from envs.wrapped.gymnasium_form import to_gymnasium
from envs.wrapped.vectorized_env import VectorizedEnv


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
        self._flatten = make_flattener(self.original_space, self.observation_space)

    def read(self, observation: Any) -> tuple[dict[str, Tensor], bool, bool]:
        """Return an observation as a batch, whether it is one already, and whether it is tensors.

        Raises:
            ValueError: for what the environment's space does not hold.
        """
        given = observation if isinstance(observation, dict) else {"observation": observation}
        if any(isinstance(value, Tensor) for value in given.values()):
            return *self._read_tensors(given), True
        path, leaf = leaves(self.original_space)[0]
        try:
            parts = {path: pick(observation, path) for path, _ in leaves(self.original_space)}
            for name, space in leaves(self.original_space):
                is_whole = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
                if is_whole and np.asarray(parts[name]).dtype.kind == "f":
                    raise TypeError(f"floats, where {space} holds whole numbers")
            is_batch = _is_batch(parts[path], leaf)
            batch = observation if is_batch else _batch_of_one(observation, self.original_space)
            fields = self._flatten(batch)
            check_categories(fields, self.observation_space, "it", names_rows=False)
            tensors = {name: torch.as_tensor(array) for name, array in fields.items()}
            self._check(tensors)
        except (LookupError, TypeError, ValueError, EnvError) as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"the observation does not fit {self.original_space} ({said}); pass what the "
                "environment's reset or step returned, or a batch of it"
            ) from None
        return tensors, is_batch, False

    def write(
        self, action: Shaped[Tensor, "B ..."], is_batch: bool, is_tensors: bool
    ) -> Tensor | np.ndarray | np.generic:
        """Return actions of the agent in the form in which the observation came."""
        if is_tensors:
            return action if is_batch else action[0]
        array = to_gymnasium(action, self.action_space)
        return array if is_batch else array[0]

    def _read_tensors(self, given: dict[str, Any]) -> tuple[dict[str, Tensor], bool]:
        names = self.observation_space.spaces
        tensors = {name: given[name] for name in names if isinstance(given.get(name), Tensor)}
        if len(tensors) < len(names):
            raise ValueError(
                f"the observation has tensors {sorted(tensors)}, but the agent needs "
                f"{sorted(names)}; pass what envs.make's reset or step returned"
            )
        name, tensor = next(iter(tensors.items()))
        is_batch = tensor.dim() > len(names[name].shape or ())
        if not is_batch:
            tensors = {name: tensor[None] for name, tensor in tensors.items()}
        self._check(tensors)
        return tensors, is_batch

    def _check(self, tensors: dict[str, Tensor]) -> None:
        num_envs = len(next(iter(tensors.values())))
        for name, tensor in tensors.items():
            expected = (num_envs, *(self.observation_space[name].shape or ()))
            if tensor.shape != expected:
                raise ValueError(
                    f"observation {name!r} is {tuple(tensor.shape)} as a batch and must be "
                    f"{expected}"
                )


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
