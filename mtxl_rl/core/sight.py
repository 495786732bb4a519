"""Which keys a step may see: those of its own episode, up to itself.

Shapes: B envs, T steps of a segment, E earlier steps of it, n segments, R = B n rows, M
short-memory length, J keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mtxl_rl.core.shapes import Bool, Int64
from mtxl_rl.core.state import MemoryState


class Sight(NamedTuple):
    """Which steps and slots belong to which episode, counted from that of the state, 0."""

    of_window: Int64[Tensor, "B n MET"]
    """The steps that a segment sees, short memory first; -1 for none."""
    of_steps: Int64[Tensor, "B n T"]
    of_slots: Int64[Tensor, "B n"]
    """At the segment's start; -1 where they are not written."""

    @classmethod
    def of(cls, state: MemoryState, reset: Bool[Tensor, "B nT"], num_steps: int) -> Sight:
        """Return what segments, or pieces of one, of `num_steps` steps see after a state."""
        episode = reset.long().cumsum(dim=1)  # 0 is the episode of the state
        earlier = torch.cat(
            (state.short_valid, state.segment_valid[:, : state.position]), dim=1
        ).long()
        timeline = torch.cat((earlier - 1, episode), dim=1)
        of_steps = episode.view(len(episode), -1, num_steps)
        of_slots = torch.cat((state.long_valid.long()[:, None] - 1, of_steps[:, :-1, -1]), dim=1)
        return cls(timeline.unfold(1, earlier.shape[1] + num_steps, num_steps), of_steps, of_slots)

    def masks(
        self, num_mem_kv: int, lmem_len: int, mem_len: int
    ) -> tuple[Bool[Tensor, "R T J"], Bool[Tensor, "R T _"]]:
        """Return which keys each step sees, in layers with and without memories."""
        steps = self.of_steps[..., None]  # (B, n, T, 1)
        window, num_steps = self.of_window.shape[2], self.of_steps.shape[2]
        is_earlier = steps.new_ones((num_steps, window), dtype=torch.bool).tril(window - num_steps)
        in_window = (self.of_window[:, :, None] == steps) & is_earlier
        persistent = in_window.new_ones(*in_window.shape[:3], num_mem_kv)
        long = (self.of_slots[..., None, None] == steps).expand(-1, -1, -1, lmem_len)
        full = torch.cat((persistent, long, in_window), dim=3)
        local = torch.cat((persistent, in_window[..., mem_len:]), dim=3)
        return full.flatten(0, 1), local.flatten(0, 1)
