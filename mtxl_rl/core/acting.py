"""Steps of the core, one after the other.

Shapes: B envs, P memory layers, M short-memory length, S long-memory slots, W segment length, N
persistent slots, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mtxl_rl.core.checks import check_dtypes, check_tensor
from mtxl_rl.core.shapes import Bool, Float
from mtxl_rl.core.state import Buffers, MemoryState
from mtxl_rl.core.transformer import MemoryTransformerXL
from mtxl_rl.core.writes import of_layers, pushed, write


class Acting:
    """A core in the middle of acting: each key and value is projected once, without gradients.

    `step` is the core's forward pass with T = 1. The keys and values follow from the state by the
    weights of the moment: make a new one after an update::

        acting = Acting(core, num_envs)
        for observation, is_first in steps:  # (B, input_dim), (B,)
            y = acting.step(observation, is_first)  # (B, D)

    Args:
        core: whose steps they are.
        state: where to start, which is not changed; or a number of envs that have seen nothing.

    Attributes:
        position: steps taken in the segment in progress.
    """

    def __init__(self, core: MemoryTransformerXL, state: MemoryState | int):
        if isinstance(state, int):
            state = core.initial_state(state)
        core.check_state(state)
        self._core = core
        state = state.detach().clone()
        self._short, self._long = state.short, state.long
        self.position = state.position
        with torch.no_grad():
            pairs = tuple(self._projected(state))
        self._buffers = Buffers(
            pairs=pairs,
            visible=torch.cat(
                (
                    state.long_valid.new_ones(state.batch_size, core.num_mem_kv),
                    state.long_valid[:, None].expand(state.batch_size, core.lmem_len),
                    state.short_valid,
                    state.segment_valid,
                ),
                dim=1,
            ),
            segment=state.segment,
        )

    @property
    def state(self) -> MemoryState:
        """The state after the last step, a value of its own."""
        visible, core = self._buffers.visible, self._core
        first = core.num_mem_kv
        no_slots = visible.new_zeros(len(visible))
        long_valid = visible[:, first] if core.lmem_len else no_slots
        short_valid = visible[:, first + core.lmem_len : visible.shape[1] - core.seq_len]
        state = MemoryState(
            short=self._short,
            short_valid=short_valid,
            long=self._long,
            long_valid=long_valid,
            segment=self._buffers.segment,
            segment_valid=visible[:, -core.seq_len :],
            position=self.position,
        )
        return state.clone()

    def step(
        self, x: Float[Tensor, "B input_dim"], reset: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B D"]:
        """Take a step.

        Args:
            x: the inputs.
            reset: True where the step starts an episode: it sees nothing earlier.

        Raises:
            ValueError: when shapes or dtypes do not fit; the state is as it was.
        """
        with torch.no_grad():
            y = self._advance(x, reset, is_taken=True)
            self.position += 1
            if self.position == self._core.seq_len:
                self._end_segment()
        return y

    def peek(
        self, x: Float[Tensor, "B input_dim"], reset: Bool[Tensor, " B"]
    ) -> Float[Tensor, "B D"]:
        """Return the output of a step that is not taken."""
        with torch.no_grad():
            return self._advance(x, reset, is_taken=False)

    def _advance(self, x: Tensor, reset: Tensor, is_taken: bool) -> Tensor:
        check_tensor("x", x)
        check_tensor("reset", reset)
        num_envs = len(self._buffers.visible)
        if x.shape != (num_envs, self._core.input_dim) or reset.shape != (num_envs,):
            raise ValueError(
                f"x is {tuple(x.shape)} and reset {tuple(reset.shape)}; pass "
                f"({num_envs}, {self._core.input_dim}) and ({num_envs},)"
            )
        check_dtypes(x, reset, self._core.positions.dtype)
        clock = torch.full((1,), self.position, device=x.device)
        return self._core.advance_(x, self._buffers, reset, clock, is_taken)

    def _projected(self, state: MemoryState) -> list[Tensor]:
        """Return the keys and values of each layer, with room for the rest of the segment."""
        core = self._core
        pairs = []
        for index, layer in enumerate(core.layers):
            inputs = [state.segment[:, index]]
            if core.has_memory(index):
                inputs = [state.long, state.short[:, core.memory_index(index)], *inputs]
            parts = layer.attention.persistent_key_value(state.batch_size)
            pairs.append(torch.cat((*parts, layer.key_value(torch.cat(inputs, dim=1))), dim=3))
        return pairs

    def _end_segment(self) -> None:
        """Push the segment to the short memory and write to the slots."""
        core, visible = self._core, self._buffers.visible
        first = core.num_mem_kv
        last = first + core.lmem_len
        hidden = of_layers(self._buffers.segment, core.memory_layers)
        valid = visible[:, last:].clone()
        if core.long_memory is not None:
            is_written = visible[:, first, None, None]
            before = torch.where(is_written, self._long, core.long_memory.initial_slot)
            self._long.copy_(write(core.long_memory, before, hidden, valid, self._short)[0])
            visible[:, first:last] = True
        self._short.copy_(pushed(self._short, hidden))
        visible[:, last:] = F.pad(valid[:, core.seq_len :], (0, core.seq_len))
        for index, pair in enumerate(self._buffers.pairs):
            if core.has_memory(index):
                pair[..., first:last, :] = core.layers[index].key_value(self._long)
                pair[..., last : -core.seq_len, :] = pair[..., last + core.seq_len :, :].clone()
        self.position = 0
