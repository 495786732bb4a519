"""Whole sequences through the core.

A write needs the inputs of the layers that it sees: up to the last of them layers run segment by
segment, from there on all segments are one batch, as the slots are known and short memory is the
segment before. Where only the first memory layer is seen, all layers run so.

Shapes: B envs, T steps, n segments, R = B n rows, L layers, P memory layers, M short-memory length,
S long-memory slots, W segment length, D model width, H heads, C keys with a position, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mtxl_rl.core.shapes import Bool, Float
from mtxl_rl.core.sight import Piece, Sight
from mtxl_rl.core.state import MemoryState
from mtxl_rl.core.writes import Writes, pushed

if TYPE_CHECKING:
    from mtxl_rl.core.transformer import MemoryTransformerXL


class Unroll:
    """One call of a core: its steps, with the writes between them.

    Args:
        core: whose steps they are.
        writes: of the call; what they do is collected there.
    """

    def __init__(self, core: MemoryTransformerXL, writes: Writes):
        self._core, self._writes = core, writes

    def run(
        self, x: Float[Tensor, "B T input_dim"], state: MemoryState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        """Run the rest of a segment, then whole ones, then a piece."""
        core = self._core
        num_steps = x.shape[1]
        if torch.compiler.is_dynamo_compiling() and (num_steps < core.seq_len or state.position):
            return self._run_anywhere(x, state, reset)
        outputs = []
        start = 0
        while start < num_steps:
            left = num_steps - start
            length = left - left % core.seq_len
            if is_piece := state.position > 0 or not length:
                length = min(left, core.seq_len - state.position)
            steps = slice(start, start + length)
            here = (x[:, steps], state, reset[:, steps])
            if is_piece:
                is_last = state.position + length == core.seq_len
                piece = Piece.of(-state.position, length, length, core.seq_len, is_last, x)
                y, state = self._piece(*here, piece)
            else:
                y, state = self._segments(*here)
            outputs.append(y)
            start += length
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), state

    def _run_anywhere(
        self, x: Tensor, state: MemoryState, reset: Tensor
    ) -> tuple[Tensor, MemoryState]:
        """Run all steps in pieces of as many rows wherever in a segment they start.

        One compiled graph serves all places. It has rows without a step and computes each piece's
        write, which where a place is known would be a waste.
        """
        core = self._core
        num_steps, place = x.shape[1], state.position
        num_rows = min(num_steps, core.seq_len)
        outputs, order = [], []
        for start in range(0, num_steps + core.seq_len - 1, core.seq_len):
            piece = Piece.of(start - place, num_steps, num_rows, core.seq_len, None, x)
            rows = piece.step.clamp(0, num_steps - 1)
            reset_here = reset.index_select(1, rows) & piece.is_step
            y, state = self._piece(x.index_select(1, rows), state, reset_here, piece)
            outputs.append(y)
            order.append(torch.where(piece.is_step, piece.step, num_steps))
        first_rows = torch.cat(order).argsort()[:num_steps]
        y = torch.cat(outputs, dim=1).index_select(1, first_rows)
        return y, replace(state, position=(place + num_steps) % core.seq_len)

    def _segments(self, x: Tensor, state: MemoryState, reset: Tensor) -> tuple[Tensor, MemoryState]:
        """Run n whole segments: as far as the writes need it in their way, then all at once."""
        core = self._core
        sight = Sight.of(state, reset, None)
        masks = sight.masks(core.num_mem_kv, core.lmem_len, core.mem_len, 0)
        x = core.embed(x.unflatten(1, (-1, core.seq_len)).flatten(0, 1), masks[0])
        run_first = self._all_at_once if core.is_scanned else self._one_by_one
        inputs, slots, long = run_first(x, state, sight, masks)
        for index in range(len(inputs) - 1, len(core.layers)):
            inputs.append(self._layer(index, inputs[-1], slots, state.short, core.positions, masks))
        *inputs, y = (rows.view(*reset.shape, core.dim) for rows in inputs)
        steps = torch.stack(inputs, dim=1).to(state.segment.dtype)  # (B, L, nW, D)
        return y, self._writes.state_after(replace(state, long=long), steps, sight, None)

    def _all_at_once(
        self, x: Tensor, state: MemoryState, sight: Sight, masks: Sequence[Tensor]
    ) -> tuple[list[Float[Tensor, "R W D"]], Float[Tensor, "_ S D"], Float[Tensor, "B S D"]]:
        """Return the inputs of the layers up to the first that sees memories, and the slots.

        Those at each segment's start, and those after the last.
        """
        core = self._core
        inputs = [x]
        for index in range(core.memory_layers[0] - 1):
            y = self._layer(index, inputs[-1], state.long, state.short, core.positions, masks)
            inputs.append(y)
        if not core.long_memory:
            return inputs, state.long, state.long
        return inputs, *self._writes.scan(state.long, inputs[-1], sight)

    def _one_by_one(
        self, x: Tensor, state: MemoryState, sight: Sight, masks: Sequence[Tensor]
    ) -> tuple[list[Float[Tensor, "R W D"]], Float[Tensor, "R S D"], Float[Tensor, "B S D"]]:
        """Return the inputs of the layers up to the last that sees memories, and the slots.

        A segment's write sees them all, and what they are follows from the write before.
        """
        core = self._core
        num_layers = core.memory_layers[-1] - 1
        long, short = state.long, state.short
        x, *masks = (part.unflatten(0, sight.of_slots.shape) for part in (x, *masks))
        segments, slots = [], []
        for segment, rows in enumerate(x.unbind(1)):
            inputs, here = [rows], [mask[:, segment] for mask in masks]
            for index in range(num_layers):
                inputs.append(self._layer(index, inputs[-1], long, short, core.positions, here))
            segments.append(inputs)
            slots.append(long)
            seen = [inputs[layer - 1].detach() for layer in core.memory_layers]
            hidden = torch.stack(seen, dim=1).to(short.dtype)
            long = self._writes.write(long, hidden, sight.end(segment), short)
            short = pushed(short, hidden)
        by_layer = [torch.stack(each, dim=1).flatten(0, 1) for each in zip(*segments, strict=True)]
        return by_layer, torch.stack(slots, dim=1).flatten(0, 1), long

    def _piece(
        self, x: Tensor, state: MemoryState, reset: Tensor, piece: Piece
    ) -> tuple[Tensor, MemoryState]:
        """Run a piece of a segment."""
        core = self._core
        sight = Sight.of(state, reset, piece)
        masks = sight.masks(core.num_mem_kv, core.lmem_len, core.mem_len, piece.first)
        table = piece.positions(core.positions)
        # what is not seen may not be finite, and would spoil the gradient
        segment = torch.where(state.segment_valid[:, None, :, None], state.segment, 0.0)
        x = core.embed(x, masks[0])
        inputs = []
        for index in range(len(core.layers)):
            inputs.append(x)
            past = segment[:, index]
            x = self._layer(index, x, state.long, state.short, table, masks, past, piece.order)
        steps = torch.stack(inputs, dim=1).to(state.segment.dtype)
        steps = torch.cat((segment, steps), dim=2).index_select(2, piece.order)
        return x, self._writes.state_after(state, steps, sight, piece)

    def _layer(
        self,
        index: int,
        x: Float[Tensor, "R T D"],
        long: Float[Tensor, "_ S D"],
        short: Float[Tensor, "B P M D"],
        table: Float[Tensor, "H C K"],
        masks: Sequence[Bool[Tensor, "R T _"]],
        past: Float[Tensor, "R W D"] | None = None,
        order: Tensor | None = None,
    ) -> Float[Tensor, "R T D"]:
        """Run a layer, with what it sees of the memories."""
        core = self._core
        has_memory = core.has_memory(index)
        mask = masks[0 if has_memory else 1]
        positions = table[:, core.num_mem_kv - mask.shape[2] :]
        own_long = long if has_memory and core.lmem_len else None
        own_short = short[:, core.memory_index(index)] if has_memory and core.mem_len else None
        return core.layers[index](x, past, own_long, own_short, positions, mask, order)
