"""What a core is: the interface that the agent uses.

Shapes: B envs, T steps, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class CoreState(Protocol):
    """What a core carries for each env: a value that can be indexed by env."""

    def __getitem__(self, envs: Any, /) -> Any: ...

    def detach(self) -> Any: ...

    def clone(self) -> Any: ...


@runtime_checkable
class Acting(Protocol):
    """A core in the middle of acting: one step after the other, without gradients.

    `step` is the core's forward pass with T = 1; `peek` returns the output of a step that is not
    taken; `state` is what the core carries after the last step.
    """

    @property
    def state(self) -> Any: ...

    @property
    def position(self) -> int:
        """Steps taken in the segment in progress."""
        ...

    def step(self, x: Float[Tensor, "B D"], reset: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]: ...

    def peek(self, x: Float[Tensor, "B D"], reset: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]: ...


@runtime_checkable
class Core(Protocol):
    """A recurrent module; `reset` is True at a step that starts an episode, a state a `CoreState`.

    `__call__`, the steps of `acting` and `step_tensors` compute one function. What `acting` returns
    does not outlive a change of the weights, and leaves the state that it starts from as it is.
    `BaselineCore` has all but `initial_state` and `forward`.

    Attributes:
        Config: the class of its options; the core is made with one of these.
        output_dim: width of the output.
        has_memory: whether anything of earlier steps is seen.
        segment_len: steps from one change of the memories to the next; 1 without segments.
        memories: which of them interventions can take away. For "short" a state is a dataclass
            with the mask `short_valid` (B, M), for "long" with the slots `long` (B, S, D) and their
            mask `long_valid` (B,).
        description: of the memory, a line for people; "" for none.
    """

    Config: ClassVar[type[Any]]
    output_dim: int
    has_memory: bool

    @property
    def segment_len(self) -> int: ...

    @property
    def memories(self) -> Sequence[Literal["short", "long"]]: ...

    @property
    def description(self) -> str: ...

    def initial_state(self, batch_size: int) -> Any: ...

    def __call__(
        self, x: Float[Tensor, "B T D"], state: Any, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], Any]: ...

    def acting(self, state: Any) -> Acting: ...

    def statistics(
        self, x: Float[Tensor, "B T D"], state: Any, reset: Bool[Tensor, "B T"]
    ) -> dict[str, Tensor]:
        """Return scalars about the memory over a sequence, to be logged."""
        ...

    def compile_(self) -> None:
        """Compile what is worth it.

        Raises:
            ValueError: where there is nothing.
        """
        ...

    def uncompile_(self) -> None:
        """Take `compile_` back."""
        ...

    def first_tensors(self) -> dict[str, Tensor]:
        """Return the state of one env that has seen nothing as named tensors, for export."""
        ...

    def step_tensors(
        self, x: Float[Tensor, "1 D"], reset: Bool[Tensor, " 1"], tensors: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "1 D"], tuple[Tensor, ...]]:
        """Take a step from a state of `first_tensors`' form, without branches on what they hold."""
        ...
