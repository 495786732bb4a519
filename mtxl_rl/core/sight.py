"""Which keys a step may see: those of its own episode, up to itself.

Shapes: B envs, T steps of a segment or rows of a piece of one, n segments, R = B n rows, M
short-memory length, W segment length, J keys, C of them with a position.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtxl_rl.core.shapes import Bool, Float, Int64
from mtxl_rl.core.state import MemoryState


class Piece(NamedTuple):
    """T rows that are part of a segment, next to each other, and no other part of the call.

    No shape depends on where they lie: its earlier steps are there in W places, taken or not.
    """

    first: int
    """Place of the first row; the last one is in the segment, too."""
    step: Int64[Tensor, " T"]
    """Which step of the call a row is."""
    is_step: Bool[Tensor, " T"]
    """Whether it is one; the others fill up."""
    order: Int64[Tensor, " W"]
    """What is at each place of the segment after the rows: place j of before, or row j - W."""
    is_last: bool | Bool[Tensor, ""]
    """Whether the segment is full after them."""

    @classmethod
    def of(
        cls,
        start: int,
        num_steps: int,
        num_rows: int,
        seq_len: int,
        is_last: bool | None,
        like: Tensor,
    ) -> Piece:
        """Return the part of a segment which starts `start` steps after the call's first.

        Args:
            start: negative in the segment that is in progress.
            num_steps: of the call.
            num_rows: no fewer than those of its steps that are in the segment.
            seq_len: W.
            is_last: None to find out without a look at `start`.
            like: a tensor on the device.
        """
        first = min(max(-start, 0), seq_len - num_rows)
        places = torch.arange(seq_len, device=like.device)
        is_step = _is_within(places + start, num_steps)
        rows = torch.arange(num_rows, device=like.device) + (start + first)
        order = torch.where(is_step, places + (seq_len - first), places)
        return cls(
            first,
            rows,
            _is_within(rows, num_steps),
            order,
            is_step[-1] if is_last is None else is_last,
        )

    def positions(self, vectors: Float[Tensor, "H C K"]) -> Float[Tensor, "H C K"]:
        """Return the vectors of the keys, of which the last place's is no longer the last row's."""
        num_keys, num_rows, seq_len = vectors.shape[1], self.step.shape[0], self.order.shape[0]
        index = torch.arange(num_keys, device=vectors.device)
        index = index + (seq_len - num_rows - self.first)
        return vectors.index_select(1, index.clamp_max(num_keys - 1))  # later places are masked


def _is_within(steps: Int64[Tensor, " _"], num_steps: int) -> Bool[Tensor, " _"]:
    return (steps >= 0) & (steps < num_steps)


class End(NamedTuple):
    """What belongs to the episode that is alive at a segment's end."""

    valid: Bool[Tensor, "B MW"]
    """The steps that the segment sees."""
    goes_on: Bool[Tensor, " B"]
    """The slots at the segment's start."""


class Sight(NamedTuple):
    """Which steps and slots belong to which episode, counted from that of the state, 0."""

    of_window: Int64[Tensor, "B n MW"]
    """The steps that a segment sees, short memory first; -1 for none."""
    of_steps: Int64[Tensor, "B n T"]
    of_slots: Int64[Tensor, "B n"]
    """At the segment's start; -1 where they are not written."""

    @classmethod
    def of(cls, state: MemoryState, reset: Bool[Tensor, "B nT"], piece: Piece | None) -> Sight:
        """Return what a piece, or whole segments from the start of one, see after a state."""
        episode = reset.long().cumsum(dim=1)  # 0 is the episode of the state
        num_envs, num_steps = episode.shape
        short, segment = (valid.long() - 1 for valid in (state.short_valid, state.segment_valid))
        if piece is None:
            seq_len, mem_len = segment.shape[1], short.shape[1]
            of_window = torch.cat((short, episode), dim=1).unfold(1, mem_len + seq_len, seq_len)
        else:
            seq_len = num_steps
            segment = torch.cat((segment, episode), dim=1).index_select(1, piece.order)
            of_window = torch.cat((short, segment), dim=1)[:, None]
        of_steps = episode.view(num_envs, num_steps // seq_len, seq_len)
        of_slots = torch.cat((state.long_valid.long()[:, None] - 1, of_steps[:, :-1, -1]), dim=1)
        return cls(of_window, of_steps, of_slots)

    def end(self, segment: int | slice) -> End:
        """Return what the write at a segment's end may see, or those of several, (B, n, ...)."""
        alive = self.of_steps[:, segment, -1]
        valid = self.of_window[:, segment] == alive[..., None]
        return End(valid, self.of_slots[:, segment] == alive)

    def masks(
        self, num_mem_kv: int, lmem_len: int, mem_len: int, first: int
    ) -> tuple[Bool[Tensor, "R T J"], Bool[Tensor, "R T _"]]:
        """Return which keys each step sees, in layers with and without memories.

        Args:
            num_mem_kv: persistent slots, which every step sees.
            lmem_len: slots of long memory.
            mem_len: M.
            first: place of the first step in its segment.
        """
        steps = self.of_steps[..., None]  # (B, n, T, 1)
        keys, own = (
            torch.arange(count, device=steps.device)
            for count in (self.of_window.shape[2], steps.shape[2])
        )
        is_earlier = keys <= own[:, None] + (mem_len + first)
        in_window = (self.of_window[:, :, None] == steps) & is_earlier
        persistent = in_window.new_ones(*in_window.shape[:3], num_mem_kv)
        long = (self.of_slots[..., None, None] == steps).expand(-1, -1, -1, lmem_len)
        full = torch.cat((persistent, long, in_window), dim=3)
        local = torch.cat((persistent, in_window[..., mem_len:]), dim=3)
        return full.flatten(0, 1), local.flatten(0, 1)
