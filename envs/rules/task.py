"""What a task is: rules on tensors, for one env or for thousands. Shapes: n envs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from envs.counter_random import CounterRandom

State = dict[str, Shaped[Tensor, "n ..."]]
"""Of n episodes. Every task has `stream`, the key of the numbers that an episode draws, `time`, its
steps so far, and what its last step shows, by the names of the observation's parts."""


class Outcome(NamedTuple):
    """How a step of n envs ended."""

    reward: Float[Tensor, " n"]
    terminated: Bool[Tensor, " n"]
    truncated: Bool[Tensor, " n"]
    success: Bool[Tensor, " n"] | None = None
    """None where a task does not say it."""


@dataclass(frozen=True)
class Task(ABC):
    """The rules of a task, as a frozen dataclass of its options.

    Attributes:
        original: the name of the class that it equals, that of the task where it is left out; None
            where there is none.
        has_success: an episode that ends says whether it succeeded.
        action_names: for people; numbers where it is left out.
    """

    original: ClassVar[str | None] = ""
    has_success: ClassVar[bool] = False
    action_names: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def observation_space(self) -> spaces.Space:
        """Of one env."""

    @property
    @abstractmethod
    def action_space(self) -> spaces.Space:
        """Of one env."""

    @property
    @abstractmethod
    def num_draws(self) -> int:
        """How many random numbers the start of an episode takes."""

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """After how many an episode ends at the latest."""

    @abstractmethod
    def start(self, bits: Int64[Tensor, "n draws"]) -> State:
        """Return the first states of episodes, but for `stream` and `time`.

        Args:
            bits: random numbers below 2^31.
        """

    @abstractmethod
    def advance_(self, state: State, actions: Shaped[Tensor, "n ..."]) -> Outcome:
        """Take the actions, where `state["time"]` counts this step already."""

    @classmethod
    def of(cls, env: Any) -> Task:
        """Return the task that an original plays."""
        raise NotImplementedError

    def read(self, env: Any) -> dict[str, Any]:
        """Return the state of an original, but for `stream`, as NumPy takes it.

        What it does not keep of its last observation is read as 0.
        """
        raise NotImplementedError

    def first_state(self, stream: Int64[Tensor, " n"], numbers: Int64[Tensor, " draws"]) -> State:
        """Return the first states of episodes.

        Args:
            stream: keys of their own.
            numbers: 0 to num_draws - 1, on the device.
        """
        bits = CounterRandom(stream.unsqueeze(1), numbers).bits()
        return {"stream": stream, "time": torch.zeros_like(stream), **self.start(bits)}

    def draw(self, state: State, number: int = 0, per_step: int = 1) -> Int64[Tensor, " n"]:
        """Return a random number below 2^31 for each env, of the `per_step` that a step draws."""
        counter = state["time"] * per_step + (self.num_draws + number)
        return CounterRandom(state["stream"], counter).bits()


def pick(table: Shaped[Tensor, "n W"], place: Int64[Tensor, " n"]) -> Shaped[Tensor, " n"]:
    """Return one entry of each row."""
    return table.gather(1, place.unsqueeze(1)).squeeze(1)


def never(time: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return False for each env."""
    return torch.zeros_like(time, dtype=torch.bool)


def check_option(name: str, value: Any, least: int, most: int) -> None:
    """Raise ValueError unless a value is a whole number within its limits."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not least <= value <= most:
        raise ValueError(
            f"{name}={value!r} must be a whole number from {least} to {most}; change {name}"
        )
