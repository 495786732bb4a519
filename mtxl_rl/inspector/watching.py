"""What attention reads and what the write writes, seen by hooks: the core knows nothing of it.

Shapes: see `mtxl_rl.inspector`; B envs, T steps of a call, J keys that the call has, K head width,
G key-value heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mtxl_rl.core import MemoryTransformerXL
from mtxl_rl.core.parts.long_memory import GatedWrite


@dataclass
class Seen:
    """What the calls since the last `clear` did."""

    attention: list[Float[Tensor, "B H T J"]] = field(default_factory=list)
    """Weights, of each layer in turn."""
    gates: list[Float[Tensor, "B W SG"]] = field(default_factory=list)
    """How much each step of the segment wrote to each slot, of each write."""

    def clear(self) -> None:
        """Forget it."""
        self.attention.clear()
        self.gates.clear()


@contextmanager
def watching(core: MemoryTransformerXL) -> Iterator[Seen]:
    """Note what every call of `core` within attends to and writes.

    The weights are computed anew, from what each layer's attention gets.
    """
    seen = Seen()

    def attend(attention: Any, inputs: tuple[Any, ...]) -> None:
        with torch.no_grad():
            seen.attention.append(attention.weights(*inputs).float())

    def write(long_memory: Any, inputs: tuple[Any, ...]) -> None:
        hidden, valid, _ = inputs
        with torch.no_grad():
            seen.gates.append(long_memory.gates_and_values(hidden, valid)[0])

    hooks = [layer.attention.register_forward_pre_hook(attend) for layer in core.layers]
    if isinstance(core.long_memory, GatedWrite):
        hooks.append(core.long_memory.register_forward_pre_hook(write))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
