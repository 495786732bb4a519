"""The recurrent state of the Memory Transformer-XL: a value, made of plain tensors.

Shapes: B envs, L layers, P memory layers, M short-memory length, S long-memory slots, W segment
length, D model width, G key-value heads, J keys of a layer, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mtxl_rl.shapes import Bool, Float, Int64


@dataclass(frozen=True)
class MemoryState:
    """What the core carries from one step to the next, for each env.

    The masks describe the episode that is alive: a reset clears them, so that what an earlier
    episode left in the buffers is never seen. All envs share the segment clock `position`.
    """

    short: Float[Tensor, "B P M D"]  # past inputs of each memory layer, oldest first
    short_valid: Bool[Tensor, "B M"]  # True where the position belongs to the live episode
    long: Float[Tensor, "B S D"]  # the slots
    long_valid: Bool[Tensor, " B"]  # True once the live episode has written its slots
    segment: Float[Tensor, "B L W D"]  # inputs of each layer in the segment in progress
    segment_valid: Bool[Tensor, "B W"]  # True where the step belongs to the live episode
    position: int  # steps taken in the segment in progress, 0 <= position < W
    cache: tuple[Float[Tensor, "2 B _ _ _"], ...] | None = None
    """Keys and values, for `step`: of each layer, with room for the segment, and then those with
    which the seed's memory network sees the short memory. None until a step has been taken.

    They are derived from the other fields by the network's weights: after a change of the weights
    go on from `without_cache()`.
    """

    @property
    def batch_size(self) -> int:
        """Number of envs B."""
        return self.short.shape[0]

    def __getitem__(self, envs: Tensor | slice | list[int]) -> MemoryState:
        """Return the state of some envs (an index tensor, a mask, a slice or a list)."""
        return self._map(lambda tensor: tensor[envs], lambda pair: pair[:, envs])

    def detach(self) -> MemoryState:
        """Return the same values without their gradient history."""
        return self._map(Tensor.detach)

    def clone(self) -> MemoryState:
        """Return a copy that shares no memory with this state (gradients flow through it)."""
        return self._map(Tensor.clone)

    def to(self, device: torch.device | str) -> MemoryState:
        """Return the state on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def copy_(self, source: MemoryState) -> None:
        """Copy every tensor of `source` into the buffers of this state."""
        assert self.cache is not None
        assert source.cache is not None
        for name in _TENSOR_FIELDS:
            getattr(self, name).copy_(getattr(source, name))
        for buffer, pair in zip(self.cache, source.cache, strict=True):
            buffer.copy_(pair)

    def clock(self) -> Int64[Tensor, " 1"]:
        """Return `position` as a tensor: a compiled step is compiled once for all positions."""
        return torch.full((1,), self.position, device=self.short.device)

    def without_cache(self) -> MemoryState:
        """Return the state without its derived keys and values."""
        return replace(self, cache=None)

    def to_dict(self) -> dict[str, Tensor]:
        """Return named tensors to save (without the cache, which is derived)."""
        named = {name: getattr(self, name) for name in _TENSOR_FIELDS}
        return named | {"position": torch.tensor(self.position)}

    @classmethod
    def from_dict(cls, named: dict[str, Tensor]) -> MemoryState:
        """Rebuild a state from `to_dict`.

        Raises:
            ValueError: when a tensor is missing or not known.
        """
        expected = {*_TENSOR_FIELDS, "position"}
        if set(named) != expected:
            raise ValueError(
                f"memory state has tensors {sorted(named)}, expected {sorted(expected)}; "
                "pass what MemoryState.to_dict returned"
            )
        tensors = dict[str, Any]((name, named[name]) for name in _TENSOR_FIELDS)
        return cls(**tensors, position=int(named["position"]))

    def _map(
        self,
        fn: Callable[[Tensor], Tensor],
        cache_fn: Callable[[Tensor], Tensor] | None = None,
    ) -> MemoryState:
        """Apply `fn` to each tensor; `cache_fn` to those of the cache, where B is axis 1."""
        cache = self.cache
        if cache is not None:
            cache = tuple((cache_fn or fn)(pair) for pair in cache)
        changed: dict[str, Any] = {name: fn(getattr(self, name)) for name in _TENSOR_FIELDS}
        return replace(self, cache=cache, **changed)


_TENSOR_FIELDS = tuple(
    field.name for field in fields(MemoryState) if field.name not in ("position", "cache")
)
