"""The recurrent state of the Memory Transformer-XL: a value, made of plain tensors.

Shapes: B envs, L layers, P memory layers, M short-memory length, S long-memory slots, W segment
length, D model width, G key-value heads, J keys, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mtxl_rl.core.shapes import Bool, Float


class Sizes(NamedTuple):
    """What the states of a core have in common."""

    dim: int
    depth: int
    num_memory_layers: int
    seq_len: int
    mem_len: int
    lmem_len: int
    dtype: torch.dtype

    def of_tensors(self, num_envs: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return shape and dtype of each tensor of a state, by name."""
        dim, layers, numbers = self.dim, self.num_memory_layers, self.dtype
        return {
            "short": ((num_envs, layers, self.mem_len, dim), numbers),
            "short_valid": ((num_envs, self.mem_len), torch.bool),
            "long": ((num_envs, self.lmem_len, dim), numbers),
            "long_valid": ((num_envs,), torch.bool),
            "segment": ((num_envs, self.depth, self.seq_len, dim), numbers),
            "segment_valid": ((num_envs, self.seq_len), torch.bool),
        }


class Buffers(NamedTuple):
    """What acting writes to, in place."""

    pairs: tuple[Float[Tensor, "2 B G _ K"], ...]
    """Keys and values of each layer: persistent, long, short (not in all layers), segment."""
    visible: Bool[Tensor, "B J"]
    """Which of them, in layers with memories, belong to the live episode."""
    segment: Float[Tensor, "B L W D"]
    """Inputs of each layer."""


@dataclass(frozen=True, eq=False)
class MemoryState:
    """What the core carries from one step to the next, for each env.

    The masks describe the episode that is alive: a reset clears them, so that what an earlier
    episode left in the buffers is never seen. All envs share the segment clock `position`. To
    torch it is a pytree of its tensors.
    """

    short: Float[Tensor, "B P M D"]  # past inputs of each memory layer, oldest first
    short_valid: Bool[Tensor, "B M"]  # True where the position belongs to the live episode
    long: Float[Tensor, "B S D"]  # the slots
    long_valid: Bool[Tensor, " B"]  # True once the live episode has written its slots
    segment: Float[Tensor, "B L W D"]  # inputs of each layer in the segment in progress
    segment_valid: Bool[Tensor, "B W"]  # True where the step belongs to the live episode
    position: int  # steps taken in the segment in progress, 0 <= position < W

    @classmethod
    def zeros(cls, num_envs: int, sizes: Sizes, device: torch.device) -> MemoryState:
        """Return the state of envs that have seen nothing."""
        tensors: dict[str, Any] = {
            name: torch.zeros(shape, dtype=dtype, device=device)
            for name, (shape, dtype) in sizes.of_tensors(num_envs).items()
        }
        return cls(**tensors, position=0)

    @property
    def sizes(self) -> Sizes:
        """Those of the core that it is of."""
        _, layers, mem_len, _ = self.short.shape
        _, depth, seq_len, dim = self.segment.shape
        lmem_len = self.long.shape[1]
        return Sizes(dim, depth, layers, seq_len, mem_len, lmem_len, self.segment.dtype)

    @property
    def batch_size(self) -> int:
        """Number of envs B."""
        return self.short.shape[0]

    def __getitem__(self, envs: Tensor | slice | list[int]) -> MemoryState:
        """Return the state of some envs (an index tensor, a mask, a slice or a list)."""
        return self._map(lambda tensor: tensor[envs])

    def detach(self) -> MemoryState:
        """Return the same values without their gradient history."""
        return self._map(Tensor.detach)

    def clone(self) -> MemoryState:
        """Return a copy that shares no memory with this state (gradients flow through it)."""
        return self._map(Tensor.clone)

    def to(self, to: torch.device | str | torch.dtype) -> MemoryState:
        """Return the state on a device, or its numbers (not its masks) in a dtype."""
        is_dtype = isinstance(to, torch.dtype)
        return self._map(lambda t: t if is_dtype and t.dtype == torch.bool else t.to(to))

    def where(self, condition: Bool[Tensor, ""], other: MemoryState) -> MemoryState:
        """Return this state where the condition holds, else the other one (at its position)."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in TENSOR_FIELDS}
        chosen: dict[str, Any] = {name: torch.where(condition, *pairs[name]) for name in pairs}
        return replace(other, **chosen)

    def to_dict(self) -> dict[str, Tensor]:
        """Return named tensors to save."""
        named = {name: getattr(self, name) for name in TENSOR_FIELDS}
        return named | {"position": torch.tensor(self.position)}

    @classmethod
    def from_dict(cls, named: dict[str, Tensor]) -> MemoryState:
        """Rebuild a state from `to_dict`.

        Raises:
            ValueError: when a tensor is missing or not known.
        """
        expected = {*TENSOR_FIELDS, "position"}
        if set(named) != expected:
            raise ValueError(
                f"memory state has tensors {sorted(named)}, expected {sorted(expected)}; "
                "pass what MemoryState.to_dict returned"
            )
        position = named["position"]
        if position.is_floating_point() or position.numel() != 1:
            raise ValueError(
                f"position is {position}; it must be a whole number, as MemoryState.to_dict gives"
            )
        tensors = dict[str, Any]((name, named[name]) for name in TENSOR_FIELDS)
        return cls(**tensors, position=int(position))

    def _map(self, fn: Callable[[Tensor], Tensor]) -> MemoryState:
        changed: dict[str, Any] = {name: fn(getattr(self, name)) for name in TENSOR_FIELDS}
        return replace(self, **changed)


TENSOR_FIELDS = tuple(field.name for field in fields(MemoryState) if field.name != "position")


def _flatten(state: MemoryState) -> tuple[list[Tensor], int]:
    return [getattr(state, name) for name in TENSOR_FIELDS], state.position


def _flatten_with_keys(state: MemoryState) -> tuple[list[tuple[Any, Tensor]], int]:
    # keys that are no start of another's: an exported program's guards are made by replacing text
    keyed = [(pytree.MappingKey(name), getattr(state, name)) for name in TENSOR_FIELDS]
    return keyed, state.position


def _unflatten(tensors: Any, position: Any) -> MemoryState:
    return MemoryState(**dict(zip(TENSOR_FIELDS, tensors, strict=True)), position=position)


torch.serialization.add_safe_globals([MemoryState])  # torch.load takes it without more

pytree.register_pytree_node(
    MemoryState,
    _flatten,
    _unflatten,
    serialized_type_name="mtxl_rl.MemoryState",
    flatten_with_keys_fn=_flatten_with_keys,
)
