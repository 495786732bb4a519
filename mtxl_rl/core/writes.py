"""The writes to the long memory in one call of the core, and how much they change.

Shapes: B envs, n segments, R = B n rows, S long-memory slots, W segment length, D model width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtxl_rl.core.parts.long_memory import GatedWrite
from mtxl_rl.core.parts.memory_network import MemoryNetwork
from mtxl_rl.core.shapes import Bool, Float
from mtxl_rl.core.sight import Sight


class Write(NamedTuple):
    """What a write did."""

    before: Float[Tensor, "B S D"]
    after: Float[Tensor, "B S D"]
    retention: Float[Tensor, "B S _"]


class Writes:
    """The writes of a call.

    Args:
        long_memory: what writes.
        bptt_segments: cut the gradient at every n-th write; None never cuts it.

    Raises:
        ValueError: when `bptt_segments` is below 1.
    """

    def __init__(self, long_memory: GatedWrite | MemoryNetwork | None, bptt_segments: int | None):
        if bptt_segments is not None and bptt_segments < 1:
            raise ValueError(f"bptt_segments={bptt_segments} must be 1 or more, or None")
        self.long_memory = long_memory
        self.bptt_segments = bptt_segments
        self.made: list[Write] = []

    def before(
        self, long: Float[Tensor, "B S D"], goes_on: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B S D"]:
        """Return the slots that the next write starts from: new ones where an episode ended."""
        assert self.long_memory is not None
        if self.bptt_segments is not None and (len(self.made) + 1) % self.bptt_segments == 0:
            long = long.detach()
        return torch.where(goes_on[:, None, None], long, self.long_memory.initial_slot)

    def scan(
        self, long: Float[Tensor, "B S D"], hidden: Float[Tensor, "R W D"], sight: Sight
    ) -> tuple[Float[Tensor, "R S D"], Float[Tensor, "B S D"]]:
        """Return the slots at the start of each segment, and those after the last."""
        assert self.long_memory is not None
        lives = sight.of_steps[:, :, -1]  # (B, n): the episode that is alive at a segment's end
        num_envs, num_segments = lives.shape
        valid = sight.of_window == lives[..., None]
        changes = self.long_memory(hidden[:, None], valid.flatten(0, 1), num_envs)
        retention, written = (change.view(*lives.shape, *change.shape[1:]) for change in changes)
        goes_on = sight.of_slots == lives
        slots = []
        for segment in range(num_segments):
            slots.append(long)
            before = self.before(long, goes_on[:, segment])
            long = (retention[:, segment] * before + written[:, segment]).to(long.dtype)
            self.made.append(Write(before, long, retention[:, segment]))
        return torch.stack(slots, dim=1).flatten(0, 1), long

    def statistics(self) -> dict[str, Float[Tensor, ""]]:
        """Return how much the writes change; empty without one."""
        if not self.made:
            return {}
        before, after, retention = (torch.stack(part) for part in zip(*self.made, strict=True))
        change = (after - before).flatten(2).norm(dim=-1)
        size = before.flatten(2).norm(dim=-1).clamp_min(torch.finfo(before.dtype).tiny)
        return {"write_size": (change / size).mean(), "gate_openness": (1 - retention).mean()}
