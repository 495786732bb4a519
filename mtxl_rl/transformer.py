"""Memory Transformer-XL as the recurrent core of an agent.

A pre-norm transformer whose layers see a short memory (a FIFO of each layer's past inputs) and a
long memory (slots that are written after every segment). The architecture is that of the PyPI
package memory-transformer-xl (Transformer-XL, arXiv 1901.02860, with the memory network of the same
author), with a continuous embedding in place of tokens, a mask that separates episodes, one
normalisation for memories and steps (as in GTrXL, arXiv 1910.06764), and by default another write
(`long_memory.GatedWrite`).

Two forms compute one function: `core(x, state, reset)` takes whole sequences, for training;
`core.step(x_t, state, reset_t)` takes one step, for acting, and projects every key and value once.

Shapes: B envs, T steps, E earlier steps of the segment, L layers, P memory layers, M short-memory
length, S long-memory slots, W segment length, N persistent slots, D model width, H heads, G
key-value heads, J keys, C = J - N of them with a position, K head width. NSM is N + S + M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.attention import RelativeAttention
from mtxl_rl.feed_forward import FeedForward
from mtxl_rl.gating import Gate, make_gate
from mtxl_rl.long_memory import GatedWrite, LongMemory
from mtxl_rl.memory import MemoryState
from mtxl_rl.memory_network import MemoryNetwork
from mtxl_rl.shapes import Bool, Float, Int64

MemWrite = Literal["gated", "seed"]

POSITION_STD = 0.3
"""Size of the vectors of positions at the start. From 0, as in Memory Transformer-XL, attention
cannot tell distances apart until they have grown: recall is learned three times as slowly."""

Projected = tuple[Tensor, ...]
"""Keys and values of each layer (2, B, G, J, K), and then the context of the memory's write."""


class Layer(nn.Module):
    """Attention and feed-forward, each pre-normed and joined to its input by a gate."""

    def __init__(
        self, attention: RelativeAttention, feed_forward: FeedForward, gates: list[nn.Module]
    ):
        super().__init__()
        dim = attention.out.out_features
        self.attn_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.attn_gate, self.ff_gate = gates
        self.ff_norm = nn.LayerNorm(dim)
        self.feed_forward = feed_forward

    def key_value(self, inputs: Float[Tensor, "B J D"]) -> Float[Tensor, "2 B G J K"]:
        """Return keys and values of raw layer inputs."""
        return self.attention.project(self._normed(inputs))

    def persistent_key_value(self, batch_size: int) -> Float[Tensor, "2 B G N K"]:
        """Return keys and values of the persistent slots."""
        return self.attention.project(self.attention.persistent.expand(batch_size, -1, -1))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        past: Float[Tensor, "B E D"],
        memory: Float[Tensor, "2 B G NSM K"],
        positions: Float[Tensor, "H C K"],
        mask: Bool[Tensor, "B T J"],
    ) -> Float[Tensor, "B T D"]:
        """Run the steps `x`, which see memories and the steps `past` of their segment."""
        normed = self._normed(torch.cat((past, x), dim=1) if past.shape[1] else x)
        key_value = torch.cat((memory, self.attention.project(normed)), dim=3)
        steps = normed[:, past.shape[1] :]
        return self._join(x, self.attention(steps, key_value, positions, mask))

    def step(
        self,
        x: Float[Tensor, "B 1 D"],
        key_value: Float[Tensor, "2 B G J K"],
        positions: Float[Tensor, "H C K"],
        mask: Bool[Tensor, "B J"],
    ) -> tuple[Float[Tensor, "B 1 D"], Float[Tensor, "2 B G 1 K"]]:
        """Run one step, which sees `key_value`; return its own key and value with the output."""
        normed = self._normed(x)
        own = self.attention.project(normed)
        return self._join(x, self.attention.step(normed, own, key_value, positions, mask)), own

    def _normed(self, x: Tensor) -> Tensor:
        """Return what queries, keys and values are made of: 0 where it would not be finite.

        A weight of 0 does not hide a NaN from steps before it or of another episode: 0 x NaN is
        NaN. The output of a step that is not finite is not finite, by the gate.
        """
        return torch.nan_to_num(self.attn_norm(x), nan=0.0, posinf=0.0, neginf=0.0)

    def _join(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.attn_gate(attended, x)
        return self.ff_gate(self.feed_forward(self.ff_norm(x)), x)


class MemoryTransformerXL(nn.Module):
    """The recurrent core: (B, T, input_dim) -> (B, T, dim), and a state that is a value.

    Args:
        dim: model width D; divisible by `heads`.
        depth: number of layers L.
        seq_len: steps of a segment W: attended at once, and memory is written after each.
        mem_len: steps of short memory M; 0 for none.
        lmem_len: slots of long memory S; 0 for none.
        heads: attention heads H.
        memory_layers: which layers, counted from 1, see and feed the memories; None for all.
        num_mem_kv: learned persistent key-value slots N, per layer and in the seed's
            memory network.
        mem_write: gated (each step of a segment writes to slots through hard gates) or seed (the
            memory network of Memory Transformer-XL).
        mem_write_iters: how often the seed's memory network refines the slots in one write.
        gate: what joins a sub-layer to its input: gru (near the identity at the start), nbrc
            (that of Memory Transformer-XL) or residual.
        mogrify: whether the gate's inputs scale each other first.
        ff_glu: whether the feed-forward layer is gated.
        one_kv_head: whether all heads share one head of keys and values.
        attn_dropout, ff_dropout, attn_layer_dropout: dropout of attention weights, inside the
            feed-forward layer, and of the attention layer's output.
        input_dim: width of the inputs; None for `dim`, without a projection.

    Raises:
        ValueError: for a configuration that cannot be built.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        seq_len: int,
        mem_len: int,
        lmem_len: int,
        heads: int = 4,
        memory_layers: Sequence[int] | None = None,
        num_mem_kv: int = 0,
        mem_write: MemWrite = "gated",
        mem_write_iters: int = 2,
        gate: Gate = "gru",
        mogrify: bool = False,
        ff_glu: bool = False,
        one_kv_head: bool = False,
        attn_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        attn_layer_dropout: float = 0.0,
        input_dim: int | None = None,
    ):
        super().__init__()
        memory_layers = range(1, depth + 1) if memory_layers is None else memory_layers
        input_dim = dim if input_dim is None else input_dim
        _check_sizes(
            at_least_1={
                "dim": dim,
                "depth": depth,
                "seq_len": seq_len,
                "heads": heads,
                "mem_write_iters": mem_write_iters,
                "input_dim": input_dim,
            },
            at_least_0={"mem_len": mem_len, "lmem_len": lmem_len, "num_mem_kv": num_mem_kv},
        )
        check_heads(dim, heads)
        if mem_write not in get_args(MemWrite):
            raise ValueError(
                f"mem_write={mem_write!r} must be one of {', '.join(get_args(MemWrite))}"
            )
        self.dim = dim
        self.input_dim = input_dim
        self.seq_len = seq_len
        self.mem_len = mem_len
        self.lmem_len = lmem_len
        self.num_mem_kv = num_mem_kv
        self.memory_layers = _check_memory_layers(memory_layers, depth)

        self.input_proj = nn.Identity() if input_dim == dim else nn.Linear(input_dim, dim)
        self.positions = nn.Parameter(
            torch.empty(heads, lmem_len + mem_len + seq_len, dim // heads).normal_(std=POSITION_STD)
        )
        layers = [
            Layer(
                RelativeAttention(
                    dim, heads, num_mem_kv, one_kv_head, attn_dropout, attn_layer_dropout
                ),
                FeedForward(dim, ff_glu, ff_dropout),
                [make_gate(gate, dim, mogrify) for _ in range(2)],
            )
            for _ in range(depth)
        ]
        self.layers = cast(Sequence[Layer], nn.ModuleList(layers))
        self.long_memory: LongMemory | None = None
        if lmem_len and mem_write == "gated":
            self.long_memory = GatedWrite(
                dim, len(self.memory_layers), lmem_len, num_positions=mem_len + seq_len
            )
        elif lmem_len:
            self.long_memory = MemoryNetwork(
                dim, heads, len(self.memory_layers), lmem_len, num_mem_kv, mem_write_iters
            )

    @property
    def reach(self) -> tuple[int, int]:
        """How many steps back a step sees without long memory, at a segment's first and last.

        Deeper layers see further: what a layer remembers of an earlier segment had seen what was
        remembered there.
        """
        first = 0  # the earliest step seen, counted from the start of the segment
        for layer in range(len(self.layers), 0, -1):
            start = first // self.seq_len * self.seq_len
            first = start - self.mem_len if layer in self.memory_layers else start
        return -first, self.seq_len - 1 - first

    def initial_state(self, batch_size: int) -> MemoryState:
        """Return the state of `batch_size` envs that have seen nothing."""
        weights = self.positions

        def mask(*shape: int) -> Tensor:
            return torch.zeros(batch_size, *shape, dtype=torch.bool, device=weights.device)

        def buffer(*shape: int) -> Tensor:
            return torch.zeros(
                batch_size, *shape, self.dim, dtype=weights.dtype, device=weights.device
            )

        return MemoryState(
            short=buffer(len(self.memory_layers), self.mem_len),
            short_valid=mask(self.mem_len),
            long=buffer(self.lmem_len),
            long_valid=mask(),
            segment=buffer(len(self.layers), self.seq_len),
            segment_valid=mask(self.seq_len),
            position=0,
        )

    def forward(
        self,
        x: Float[Tensor, "B T input_dim"],
        state: MemoryState,
        reset: Bool[Tensor, "B T"],
        bptt_segments: int | None = None,
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        """Run T >= 1 steps from any place within a segment.

        However a sequence is cut into calls, outputs and memories are the same.

        A step that is not finite is not remembered: its own output is not finite, those of other
        steps and envs are. A gradient through a call that holds such a step is not finite.

        Args:
            x: the inputs.
            state: from `initial_state`, this method or `step`.
            reset: True where a step starts an episode: it and later steps see nothing earlier.
            bptt_segments: cut the gradient through the long memory at every n-th write of this
                call; None never cuts it.

        Raises:
            ValueError: when shapes do not fit, or `bptt_segments` is below 1.
        """
        return self._run(x, state, reset, bptt_segments, [])

    def step(
        self,
        x: Float[Tensor, "B input_dim"],
        state: MemoryState,
        reset: Bool[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B D"], MemoryState]:
        """Run one step: `forward` with T = 1, without projecting a key or value twice."""
        cached, y, inputs, pairs = self._begin_step(x, state, reset)
        return y, self._take_(cached.clone(), reset, inputs, pairs)

    @torch.no_grad()
    def step_(
        self,
        x: Float[Tensor, "B input_dim"],
        state: MemoryState,
        reset: Bool[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B D"], MemoryState]:
        """Run one step without gradients, writing into the buffers of `state`.

        The returned state has the same buffers; `state` itself must not be used again.
        """
        cached, y, inputs, pairs = self._begin_step(x, state, reset)
        after = self._take_(cached, reset, inputs, pairs)
        if after.position == 0:  # memory was written, to new tensors
            cached.copy_(after)
            after = replace(cached, position=0)
        return y, after

    def peek(
        self,
        x: Float[Tensor, "B input_dim"],
        state: MemoryState,
        reset: Bool[Tensor, " B"],
    ) -> Float[Tensor, "B D"]:
        """Return the output of a step that is not taken."""
        return self._begin_step(x, state, reset)[1]

    def _begin_step(
        self, x: Tensor, state: MemoryState, reset: Tensor
    ) -> tuple[MemoryState, Tensor, Tensor, Projected]:
        """Return the state with its cache, and what `look` sees of the step."""
        self._check_inputs(x[:, None], state, reset[:, None])
        cached = replace(state, cache=self._cache(state))
        return cached, *self.look(x, cached, reset, cached.clock())

    @torch.no_grad()
    def write_statistics(
        self, x: Float[Tensor, "B T input_dim"], state: MemoryState, reset: Bool[Tensor, "B T"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return how much the writes of a sequence change the slots; empty without a write.

        `write_size` is the mean of |new - old| / |old| over writes and envs, `gate_openness` the
        mean of 1 - retention of the write's gate (0 keeps the slots, 1 replaces them).
        """
        writes: list[tuple[Tensor, Tensor, Tensor]] = []
        self._run(x, state, reset, None, writes)
        if not writes:
            return {}
        before, after, retention = (torch.stack(tensors) for tensors in zip(*writes, strict=True))
        change = (after - before).flatten(2).norm(dim=-1)
        size = before.flatten(2).norm(dim=-1).clamp_min(torch.finfo(before.dtype).tiny)
        return {"write_size": (change / size).mean(), "gate_openness": (1 - retention).mean()}

    def _run(
        self,
        x: Tensor,
        state: MemoryState,
        reset: Tensor,
        bptt_segments: int | None,
        writes: list[tuple[Tensor, Tensor, Tensor]],
    ) -> tuple[Tensor, MemoryState]:
        """Run segment by segment; append (slots before, after, retention) of each write."""
        self._check_inputs(x, state, reset)
        if bptt_segments is not None and bptt_segments < 1:
            raise ValueError(f"bptt_segments={bptt_segments} must be 1 or more, or None")
        num_steps = x.shape[1]
        projected = self._project(state)
        outputs = []
        start = num_segments = 0
        while start < num_steps:
            stop = min(num_steps, start + self.seq_len - state.position)
            y, state = self._chunk(x[:, start:stop], state, reset[:, start:stop], projected)
            if state.position == self.seq_len:
                num_segments += 1
                is_cut = bptt_segments is not None and num_segments % bptt_segments == 0
                state, projected = self._write(
                    state, projected, is_cut, writes, is_last=stop == num_steps
                )
            outputs.append(y)
            start = stop
        return torch.cat(outputs, dim=1), state

    def _chunk(
        self, x: Tensor, state: MemoryState, reset: Tensor, projected: Projected
    ) -> tuple[Tensor, MemoryState]:
        """Run steps that stay within the segment in progress."""
        num_steps, position = x.shape[1], state.position
        episode = reset.long().cumsum(dim=1)  # (B, T): 0 is the episode of the state
        is_live = episode == 0
        past_mask = is_live[:, :, None] & state.segment_valid[:, None, :position]
        own_mask = (episode[:, :, None] == episode[:, None, :]).tril()
        persistent_mask = own_mask.new_ones(*episode.shape, self.num_mem_kv)
        memory_mask = is_live[:, :, None] & self._memory_mask(state)[:, None, :]
        local_mask = torch.cat((persistent_mask, past_mask, own_mask), dim=2)
        full_mask = torch.cat((persistent_mask, memory_mask, past_mask, own_mask), dim=2)

        x = self.input_proj(x).contiguous()
        inputs = []
        for index, layer in enumerate(self.layers):
            inputs.append(x)
            past = state.segment[:, index, :position]
            mask = full_mask if self._has_memory(index) else local_mask
            positions = self.positions[:, self.num_mem_kv - mask.shape[2] :]
            x = layer(x, past, projected[index], positions, mask)

        ends_live = is_live[:, -1]
        steps = torch.stack(inputs, dim=1).to(state.segment.dtype)  # (B, L, T, D)
        remaining = self.seq_len - position - num_steps
        segment = torch.cat(
            (
                state.segment[:, :, :position],
                steps,
                steps.new_zeros(*steps.shape[:2], remaining, self.dim),
            ),
            dim=2,
        )
        own_valid = F.pad(episode == episode[:, -1:], (0, remaining))
        past_valid = state.segment_valid[:, :position] & ends_live[:, None]
        return x, MemoryState(
            short=state.short,
            short_valid=state.short_valid & ends_live[:, None],
            long=state.long,
            long_valid=state.long_valid & ends_live,
            segment=segment,
            segment_valid=torch.cat((past_valid, own_valid), dim=1),
            position=position + num_steps,
        )

    def look(
        self, x: Tensor, state: MemoryState, reset: Tensor, clock: Int64[Tensor, " 1"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B L 1 D"], Projected]:
        """Return the output of a step, and each layer's input, key and value; write nothing.

        No shape depends on the place `clock` of the step in its segment, and nothing else is known
        of it: a compiled form serves all steps.
        """
        assert state.cache is not None
        goes_on = ~reset[:, None]
        persistent_mask = torch.ones_like(goes_on).expand(-1, self.num_mem_kv)
        memory_mask = self._memory_mask(state) & goes_on
        segment_mask = state.segment_valid & goes_on
        local_mask = torch.cat((persistent_mask, segment_mask), dim=1)
        full_mask = torch.cat((persistent_mask, memory_mask, segment_mask), dim=1)
        # the last vector is that of distance 0; keys of later places are masked
        last = self.positions.shape[1] - 1
        places = torch.arange(last + 1, device=x.device) + (self.seq_len - 1 - clock)
        table = self.positions.index_select(1, F.pad(places.clamp_max(last), (0, 1), value=last))

        x = self.input_proj(x)[:, None]  # (B, 1, D)
        inputs, pairs = [], []
        for index, (layer, key_value) in enumerate(zip(self.layers, state.cache, strict=False)):
            inputs.append(x)
            mask = full_mask if self._has_memory(index) else local_mask
            positions = table[:, self.num_mem_kv - mask.shape[1] - 1 :]
            x, own = layer.step(x, key_value, positions, mask)
            pairs.append(own)
        return x[:, 0], torch.stack(inputs, dim=1), tuple(pairs)

    def _take_(
        self, state: MemoryState, reset: Tensor, inputs: Tensor, pairs: Projected
    ) -> MemoryState:
        """Take the step that `look` saw, in the buffers of `state`, and move the clock on.

        A write at the segment's end returns new tensors.
        """
        goes_on, place = ~reset, state.position
        state.short_valid.logical_and_(goes_on[:, None])
        state.long_valid.logical_and_(goes_on)
        state.segment_valid.logical_and_(goes_on[:, None])
        state.segment_valid[:, place] = True
        state.segment[:, :, place] = inputs[:, :, 0]
        cache = state.cache
        assert cache is not None
        for key_value, own in zip(cache, pairs, strict=False):
            key_value[..., place - self.seq_len, :] = own[..., 0, :]
        state = replace(state, position=place + 1)
        if state.position < self.seq_len:
            return state
        memories = (pair[..., : -self.seq_len, :] for pair in self._pairs(cache))
        state, projected = self._write(state, (*memories, *cache[len(self.layers) :]))
        return replace(state, cache=self._with_room(projected, state))

    def _write(
        self,
        state: MemoryState,
        projected: Projected,
        is_cut: bool = False,
        writes: list[tuple[Tensor, Tensor, Tensor]] | None = None,
        is_last: bool = False,
    ) -> tuple[MemoryState, Projected]:
        """End a segment: push it to the short memory and rewrite the slots.

        Returns the state, and keys and values of its memories; () if this `is_last`.
        """
        # not by a list of indices, which a GPU would have to wait for
        hidden = torch.stack(
            [state.segment[:, layer - 1] for layer in self.memory_layers], dim=1
        ).detach()
        valid = torch.cat((state.short_valid, state.segment_valid), dim=1)
        long, long_valid, context = state.long, state.long_valid, ()
        if self.long_memory is not None:
            before = self.long_memory.slots(replace(state, long=long.detach()) if is_cut else state)
            written, retention, context = self.long_memory(
                before, hidden, valid, projected[len(self.layers) :]
            )
            long, long_valid = written.to(state.long.dtype), torch.ones_like(long_valid)
            if writes is not None:
                writes.append((before, long, retention))
        pairs = [
            self._pushed(index, pair, long, hidden)
            for index, pair in enumerate(() if is_last else self._pairs(projected))
        ]
        after = MemoryState(
            short=torch.cat((state.short, hidden), dim=2)[:, :, self.seq_len :].detach(),
            short_valid=valid[:, self.seq_len :],
            long=long,
            long_valid=long_valid,
            segment=torch.zeros_like(state.segment),
            segment_valid=torch.zeros_like(state.segment_valid),
            position=0,
        )
        return after, (*pairs, *context)

    def _pushed(self, index: int, pair: Tensor, long: Tensor, hidden: Tensor) -> Tensor:
        """Return a layer's keys and values after a write: new slots, and a segment pushed."""
        if not self._has_memory(index):
            return pair
        layer = self.layers[index]
        first, last = self.num_mem_kv, self.num_mem_kv + self.lmem_len
        kept = max(0, self.mem_len - self.seq_len)
        segment = hidden[
            :, self.memory_layers.index(index + 1), self.seq_len - self.mem_len + kept :
        ]
        parts = (
            pair[..., :first, :],
            layer.key_value(long),
            pair[..., last + self.mem_len - kept :, :],
            layer.key_value(segment),
        )
        return torch.cat(parts, dim=3)

    def _project(self, state: MemoryState) -> Projected:
        """Return keys and values of persistent slots and memories, by layer, and of the writer."""
        pairs = []
        for index, layer in enumerate(self.layers):
            pair = layer.persistent_key_value(state.batch_size)
            if self._has_memory(index):
                short = state.short[:, self.memory_layers.index(index + 1)]
                memory = layer.key_value(torch.cat((state.long, short), dim=1))
                pair = torch.cat((pair, memory), dim=3)
            pairs.append(pair)
        if self.long_memory is not None:
            pairs += self.long_memory.context(state.short)
        return tuple(pairs)

    def _cache(self, state: MemoryState) -> Projected:
        """Return the keys and values of `state` with room for the rest of the segment."""
        return state.cache or self._with_room(self._project(state), state)

    def _with_room(self, projected: Projected, state: MemoryState) -> Projected:
        """Add the segment so far to the keys and values of each layer, and room for its rest."""
        pairs = []
        for index, (layer, pair) in enumerate(zip(self.layers, projected, strict=False)):
            segment = layer.key_value(state.segment[:, index, : state.position])
            room = (0, 0, 0, self.seq_len - state.position)
            pairs.append(F.pad(torch.cat((pair, segment), dim=3), room))
        return (*pairs, *projected[len(pairs) :])

    def _pairs(self, projected: Projected) -> Projected:
        """Leave out the writer's."""
        return projected[: len(self.layers)]

    def _has_memory(self, index: int) -> bool:
        return index + 1 in self.memory_layers

    def _memory_mask(self, state: MemoryState) -> Bool[Tensor, "B SM"]:
        long_mask = state.long_valid[:, None].expand(-1, self.lmem_len)
        return torch.cat((long_mask, state.short_valid), dim=1)

    def _check_inputs(self, x: Tensor, state: MemoryState, reset: Tensor) -> None:
        expected = (state.batch_size, reset.shape[1], self.input_dim)
        if x.shape != expected or reset.shape[0] != state.batch_size or not x.shape[1]:
            raise ValueError(
                f"x is {tuple(x.shape)}, reset {tuple(reset.shape)} and the state holds "
                f"{state.batch_size} envs; pass x (B, T, {self.input_dim}), reset (B, T) and a "
                "state of B envs, with T >= 1 (step takes them without T)"
            )
        if reset.dtype != torch.bool:
            raise ValueError(f"reset has dtype {reset.dtype}; pass a bool tensor")


def _check_sizes(at_least_1: dict[str, int], at_least_0: dict[str, int]) -> None:
    for least, sizes in ((1, at_least_1), (0, at_least_0)):
        for name, size in sizes.items():
            if size < least:
                raise ValueError(f"{name}={size} must be {least} or more; raise {name}")


def check_heads(dim: int, heads: int) -> None:
    """Raise ValueError for a number of heads that does not divide the width."""
    if dim % heads:
        divisors = [count for count in range(1, dim + 1) if dim % count == 0]
        below = max(count for count in divisors if count <= heads)
        above = min((count for count in divisors if count >= heads), default=below)
        raise ValueError(
            f"heads={heads} must divide dim={dim}; set heads to {below} or {above}, "
            f"or dim to {(dim // heads + 1) * heads}"
        )


def _check_memory_layers(memory_layers: Sequence[int], depth: int) -> tuple[int, ...]:
    chosen = tuple(sorted(set(memory_layers)))
    if not chosen or chosen[0] < 1 or chosen[-1] > depth:
        raise ValueError(
            f"memory_layers={tuple(memory_layers)} must name layers from 1 to depth={depth}, at "
            "least one; for no memory at all set mem_len=0 and lmem_len=0"
        )
    return chosen
