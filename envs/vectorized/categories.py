"""Numbers of categories in an observation that is tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.batched_env import BatchedEnv, Observation
from envs.wrapped.guarded_env import EnvError

LOOK_EVERY = 64
"""Steps from one look at what was noted on a GPU to the next."""


class Categories:
    """Finds numbers that are none of their space's: they would be indices beyond an end.

    On a GPU such an index ends the process, and to look at each step would synchronise. There the
    first number of each part is noted on the device, 0 takes the place of all, and `look` raises.

    Args:
        env: whose observations they are of.
        is_at_once: whether `checked` raises.
    """

    def __init__(self, env: BatchedEnv, is_at_once: bool):
        self._is_at_once = is_at_once
        parts = env.observation_space.spaces
        sizes = {name: size_of(space) for name, space in parts.items()}
        self._sizes = {name: torch.as_tensor(size, device=env.device)
                       for name, size in sizes.items() if size is not None}  # fmt: skip
        self._bytes = {name for name, space in parts.items() if isinstance(space, spaces.Box)}
        self._noted = {name: torch.full((3,), -1, dtype=torch.int64, device=env.device)
                       for name in self._sizes}  # env, number, size of its space  # fmt: skip

    def checked(
        self, where: str, observation: Observation, rows: Tensor | None = None
    ) -> Observation:
        """Return what can be read of an observation.

        Args:
            where: it comes from, for people.
            observation: of every env.
            rows: those that mean something; None: all.
        """
        for name, size in self._sizes.items():
            numbers = observation[name]
            if numbers.dtype == torch.uint8 and name in self._bytes:
                continue
            is_wrong = (numbers < 0) | (numbers >= size)
            if self._is_at_once and not is_wrong.any():
                continue
            observation = observation | {name: numbers.masked_fill(is_wrong, 0)}
            if rows is not None:
                is_wrong = is_wrong & rows.view(-1, *[1] * (numbers.dim() - 1))
            place = is_wrong.flatten().int().argmax(dim=0, keepdim=True)
            number, limit = (x.flatten()[place] for x in (numbers, size.expand(numbers.shape)))
            first = torch.cat((place // numbers[0].numel(), number, limit))
            noted = self._noted[name]
            noted.copy_(torch.where(is_wrong.any() & (noted[0] < 0), first, noted))
        if self._is_at_once:
            self.look(where)
        return observation

    def look(self, where: str) -> None:
        """Raise EnvError where something has been noted."""
        for name, noted in self._noted.items():
            env, number, size = noted.tolist()
            if env >= 0:
                raise EnvError(
                    f"{where} returned for {name!r} of env {env} the number {number}, not one from "
                    f"0 to {size - 1}"
                )


def size_of(space: spaces.Space) -> Any:
    """Return how many numbers from 0 on a part has, or each place of it; None for floats."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec
    return 256 if space.dtype == np.uint8 else None


def is_look_due(step: int) -> bool:
    """Return True at steps 1, 2, 4 and so on, from `LOOK_EVERY` on at every such one."""
    return step % LOOK_EVERY == 0 or (step < LOOK_EVERY and not step & (step - 1))
