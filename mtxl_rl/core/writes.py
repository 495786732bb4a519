"""What the core remembers of its steps: the writes to the long memory, and the state after them.

Shapes: B envs, n segments, R = B n rows, L layers, P memory layers, M short-memory length, S
long-memory slots, W segment length, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mtxl_rl.core.checks import is_whole
from mtxl_rl.core.parts.long_memory import GatedWrite
from mtxl_rl.core.parts.memory_network import MemoryNetwork
from mtxl_rl.core.shapes import Bool, Float
from mtxl_rl.core.sight import End, Piece, Sight
from mtxl_rl.core.state import MemoryState


class Write(NamedTuple):
    """What a write did."""

    before: Float[Tensor, "B S D"]
    after: Float[Tensor, "B S D"]
    retention: Float[Tensor, "B S _"]


def of_layers(inputs: Float[Tensor, "B L T D"], layers: Sequence[int]) -> Float[Tensor, "B P T D"]:
    """Pick layers, counted from 1."""
    # not by a list of indices, which a GPU would have to wait for
    return torch.stack([inputs[:, layer - 1] for layer in layers], dim=1)


def pushed(
    short: Float[Tensor, "B P M D"], hidden: Float[Tensor, "B P T D"]
) -> Float[Tensor, "B P M D"]:
    """Return short memory with steps at its end, and as many of the oldest left out."""
    return torch.cat((short, hidden), dim=2)[:, :, hidden.shape[2] :]


def write(
    long_memory: GatedWrite | MemoryNetwork,
    before: Float[Tensor, "B S D"],
    hidden: Float[Tensor, "B P W D"],
    valid: Bool[Tensor, "B MW"],
    short: Float[Tensor, "B P M D"],
) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S _"]]:
    """Return the slots after a segment, and how much of them was kept."""
    if isinstance(long_memory, GatedWrite):
        seen = hidden[:, : long_memory.num_layers]
        retention, written = long_memory(seen, valid, valid.shape[0])
        return (retention * before + written).to(before.dtype), retention
    written, retention = long_memory(before, hidden, valid, short)
    return written.to(before.dtype), retention


class Writes:
    """The writes of a call.

    Args:
        long_memory: what writes.
        memory_layers: which layers, counted from 1, feed the memories.
        bptt_segments: cut the gradient at every n-th write; None never cuts it.

    Raises:
        ValueError: when `bptt_segments` is below 1.
    """

    def __init__(
        self,
        long_memory: GatedWrite | MemoryNetwork | None,
        memory_layers: Sequence[int],
        bptt_segments: int | None,
    ):
        if bptt_segments is not None and (not is_whole(bptt_segments) or bptt_segments < 1):
            raise ValueError(
                f"bptt_segments={bptt_segments!r} must be a whole number, 1 or more, or None"
            )
        self.long_memory = long_memory
        self.memory_layers = memory_layers
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
        num_envs, num_segments = sight.of_slots.shape
        valid, goes_on = sight.end(slice(None))
        changes = self.long_memory(hidden[:, None], valid.flatten(0, 1), num_envs)
        retention, written = (change.unflatten(0, (num_envs, num_segments)) for change in changes)
        slots = []
        for segment in range(num_segments):
            slots.append(long)
            before = self.before(long, goes_on[:, segment])
            long = (retention[:, segment] * before + written[:, segment]).to(long.dtype)
            self.made.append(Write(before, long, retention[:, segment]))
        return torch.stack(slots, dim=1).flatten(0, 1), long

    def write(
        self,
        long: Float[Tensor, "B S D"],
        hidden: Float[Tensor, "B P W D"],
        end: End,
        short: Float[Tensor, "B P M D"],
    ) -> Float[Tensor, "B S D"]:
        """Return the slots after a segment; as they are where nothing writes."""
        if self.long_memory is None:
            return long
        before = self.before(long, end.goes_on)
        after, retention = write(self.long_memory, before, hidden, end.valid, short)
        self.made.append(Write(before, after, retention))
        return after

    def state_after(
        self,
        state: MemoryState,
        steps: Float[Tensor, "B L nW D"],
        sight: Sight,
        piece: Piece | None,
    ) -> MemoryState:
        """Return the state after whole segments or a piece of one, with the write if it is due.

        Args:
            state: before them; the slots are those after whole segments.
            steps: inputs of each layer, of a whole segment where they are a piece of one.
            sight: of the steps.
            piece: None for whole segments.
        """
        hidden = of_layers(steps.detach(), self.memory_layers)
        end = sight.end(-1)
        if piece is None:
            return self._full(state, hidden, end.valid, state.long)
        if piece.is_last is True:
            long = self.write(state.long, hidden, end, state.short)
            return self._full(state, hidden, end.valid, long)
        mem_len = state.short_valid.shape[1]
        unfinished = MemoryState(
            short=state.short,
            short_valid=end.valid[:, :mem_len].contiguous(),
            long=state.long,
            long_valid=end.goes_on,
            segment=steps,
            segment_valid=end.valid[:, mem_len:].contiguous(),
            position=state.position + piece.step.shape[0],
        )
        if piece.is_last is False:
            return unfinished
        # what is not to be written is not charged
        charged = end._replace(valid=end.valid & piece.is_last)
        long = self.write(state.long, hidden, charged, state.short)
        finished = self._full(state, hidden, charged.valid, long)
        return finished.where(piece.is_last, unfinished)

    def _full(self, state: MemoryState, hidden: Tensor, valid: Tensor, long: Tensor) -> MemoryState:
        """Return the state after whole segments, of which the last is pushed to short memory."""
        seq_len = state.segment_valid.shape[1]
        return MemoryState(
            # of its own memory, so that a compiled form takes the states that it returns
            short=pushed(state.short, hidden).detach().contiguous(),
            short_valid=valid[:, seq_len:].contiguous(),
            long=long,
            long_valid=torch.full_like(state.long_valid, self.long_memory is not None),
            segment=torch.zeros_like(state.segment),
            segment_valid=torch.zeros_like(state.segment_valid),
            position=0,
        )

    def statistics(self) -> dict[str, Float[Tensor, ""]]:
        """Return how much the writes change; empty without one."""
        if not self.made:
            return {}
        before, after, retention = (torch.stack(part) for part in zip(*self.made, strict=True))
        change = (after - before).flatten(2).norm(dim=-1)
        size = before.flatten(2).norm(dim=-1).clamp_min(torch.finfo(before.dtype).tiny)
        return {"write_size": (change / size).mean(), "gate_openness": (1 - retention).mean()}
