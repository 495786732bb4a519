"""Memory Transformer-XL as the recurrent core of an agent.

A pre-norm transformer whose layers see a short memory (a FIFO of each layer's past inputs) and a
long memory (slots that are written after every segment). The architecture is that of the PyPI
package memory-transformer-xl (Transformer-XL, arXiv 1901.02860, with the memory network of the same
author), with a continuous embedding in place of tokens, a mask that separates episodes, one
normalisation for memories and steps (as in GTrXL, arXiv 1910.06764), and by default another write
(`long_memory.PartedWrite`).

What a step sees is a row of keys and values of fixed width: persistent slots, long memory, short
memory, segment; one mask and one table of positions say which of them, and how far away they are.
`core(x, state, reset)` takes whole sequences, for training (`unroll.Unroll`); `acting.Acting` takes
one step at a time and projects every key and value once. Both are one function.

Shapes: B envs, T steps, n segments, R = B n rows, L layers, P memory layers, M short-memory length,
S long-memory slots, W segment length, N persistent slots, D model width, H heads, G key-value
heads, J keys, C = J - N of them with a position, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtxl_rl.core.checks import (
    check_gain,
    check_heads,
    check_inputs,
    check_memory_layers,
    check_sizes,
    check_state,
    check_tensor,
    check_timesteps,
)
from mtxl_rl.core.parts.attention import RelativeAttention, init_normal
from mtxl_rl.core.parts.feed_forward import FeedForward
from mtxl_rl.core.parts.gating import Gate, make_gate
from mtxl_rl.core.parts.initialization import (
    init_memory_network,
    init_orthogonal,
    init_sinusoids,
)
from mtxl_rl.core.parts.layer import Layer
from mtxl_rl.core.parts.long_memory import GatedWrite, PartedWrite
from mtxl_rl.core.parts.memory_network import MemoryNetwork
from mtxl_rl.core.pretrained import Pretrained
from mtxl_rl.core.shapes import Bool, Float, Int64
from mtxl_rl.core.state import Buffers, MemoryState, Sizes
from mtxl_rl.core.unroll import Unroll
from mtxl_rl.core.writes import Writes

MemWrite = Literal["parts", "gated", "seed"]

POSITION_STD = 0.3
"""Size of the vectors of positions at the start. From 0, as in Memory Transformer-XL, attention
cannot tell distances apart until they have grown: recall is learned three times as slowly."""

TIMESTEP_STD = 0.4
"""Size of the vectors of timesteps at the start, beside inputs of size 1."""


class MemoryTransformerXL(Pretrained):
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
        mem_write: parts (each step of a segment writes to slots through steep gates for parts of
            them, which see the inputs of the first memory layer), gated (through hard gates for
            whole slots, which see those of all) or seed (the memory network of Memory
            Transformer-XL).
        mem_write_iters: how often the seed's memory network refines the slots in one write.
        mem_write_gain: size of its keys at the start: how sharply a write picks what it stores;
            None for the start of Memory Transformer-XL, small and even.
        gate: what joins a sub-layer to its input: gru (near the identity at the start), nbrc
            (that of Memory Transformer-XL) or residual.
        mogrify: whether the gate's inputs scale each other first.
        ff_glu: whether the feed-forward layer is gated.
        one_kv_head: whether all heads share one head of keys and values.
        timesteps: whether a learned vector for how many steps old the episode is, as far as the
            short memory reaches (0 to M), is added to the inputs of the first layer. Attention is a
            mean, and does not tell one step from ten alike: by this it can count. They start as
            sinusoids.
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
        mem_write: MemWrite = "parts",
        mem_write_iters: int = 2,
        mem_write_gain: float | None = 4.0,
        gate: Gate = "gru",
        mogrify: bool = False,
        ff_glu: bool = False,
        one_kv_head: bool = False,
        timesteps: bool = False,
        attn_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        attn_layer_dropout: float = 0.0,
        input_dim: int | None = None,
    ):
        super().__init__()
        memory_layers = range(1, depth + 1) if memory_layers is None else memory_layers
        input_dim = dim if input_dim is None else input_dim
        check_sizes(
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
        check_gain(mem_write_gain)
        check_timesteps(timesteps, mem_len)
        self.dim = dim
        self.input_dim = input_dim
        self.seq_len = seq_len
        self.mem_len = mem_len
        self.lmem_len = lmem_len
        self.num_mem_kv = num_mem_kv
        self.memory_layers = check_memory_layers(memory_layers, depth)

        self.input_proj = nn.Identity() if input_dim == dim else nn.Linear(input_dim, dim)
        num_keys = lmem_len + mem_len + seq_len
        self.positions = init_normal(heads, num_keys, dim // heads, std=POSITION_STD)
        self.timesteps = init_sinusoids(mem_len + 1, dim, TIMESTEP_STD) if timesteps else None
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
        self.long_memory: GatedWrite | MemoryNetwork | None = None
        num_places = mem_len + seq_len
        if lmem_len and mem_write == "gated":
            self.long_memory = GatedWrite(dim, len(self.memory_layers), lmem_len, num_places)
        elif lmem_len and mem_write == "parts":
            self.long_memory = PartedWrite(dim, lmem_len, num_places)
        elif lmem_len:
            self.long_memory = MemoryNetwork(
                dim, heads, len(self.memory_layers), lmem_len, num_mem_kv, mem_write_iters
            )
        self.reset_parameters(mem_write_gain)

    def reset_parameters(self, mem_write_gain: float | None) -> None:
        """Draw the weights of projections orthogonal, and those of the write as it wants them."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init_orthogonal(module)
        if isinstance(self.long_memory, GatedWrite):
            self.long_memory.reset_parameters()
        elif isinstance(self.long_memory, MemoryNetwork) and mem_write_gain is not None:
            init_memory_network(self.long_memory, mem_write_gain)

    @property
    def sizes(self) -> Sizes:
        """What its states have in common."""
        return Sizes(
            self.dim,
            len(self.layers),
            len(self.memory_layers),
            self.seq_len,
            self.mem_len,
            self.lmem_len,
            self.positions.dtype,
        )

    @property
    def is_scanned(self) -> bool:
        """Whether the slots of all segments follow from the first memory layer's inputs."""
        return self.long_memory is None or isinstance(self.long_memory, PartedWrite)

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
        return MemoryState.zeros(batch_size, self.sizes, self.positions.device)

    def forward(
        self,
        x: Float[Tensor, "B T input_dim"],
        state: MemoryState | None = None,
        reset: Bool[Tensor, "B T"] | None = None,
        bptt_segments: int | None = None,
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        """Run T >= 1 steps from any place within a segment.

        However a sequence is cut into calls, outputs and memories are the same. Compiled, calls of
        as many steps have at most two graphs, if the first of them starts a segment (torch takes
        its place for a constant): one for that place, and one for any other. As everywhere in
        torch, a state that is left out, and states with a gradient and without, have graphs of
        their own; so have other numbers of steps, with `dynamic=False`, which they need.

        A step that is not finite is not remembered: its own output is not finite, those of other
        steps and envs are. A gradient through a call that holds such a step is not finite.

        Args:
            x: the inputs.
            state: from `initial_state`, this method or `Acting`; None: envs that have seen nothing.
            reset: True where a step starts an episode: it and later steps see nothing earlier.
                None: nowhere.
            bptt_segments: cut the gradient through the long memory at every n-th write of this
                call; None never cuts it.

        Raises:
            ValueError: when shapes or dtypes do not fit, or `bptt_segments` is below 1.
        """
        return self._run(x, state, reset, self._writes(bptt_segments))

    def advance_(
        self,
        x: Float[Tensor, "B input_dim"],
        buffers: Buffers,
        reset: Bool[Tensor, " B"],
        clock: Int64[Tensor, " 1"],
        is_taken: bool,
    ) -> Float[Tensor, "B D"]:
        """Return the output of a step at the place `clock` of its segment, written to `buffers`.

        What a step that is not taken leaves there is not seen. No shape depends on the place: a
        compiled form serves all steps.
        """
        place = buffers.visible.shape[1] - self.seq_len + clock
        is_persistent = torch.arange(buffers.visible.shape[1], device=x.device) < self.num_mem_kv
        mask = buffers.visible & (is_persistent | ~reset[:, None])
        mask = mask.index_fill(1, place, True)
        local = torch.cat((mask[:, : self.num_mem_kv], mask[:, -self.seq_len :]), dim=1)
        # the last vector is that of distance 0; keys of later places are masked
        last = self.positions.shape[1] - 1
        distances = torch.arange(last + 1, device=x.device) + (self.seq_len - 1 - clock)
        table = self.positions.index_select(1, distances.clamp_max(last))

        x = self.embed(x[:, None], mask[:, None])  # (B, 1, D)
        inputs = []
        for index, (layer, key_value) in enumerate(zip(self.layers, buffers.pairs, strict=True)):
            inputs.append(x)
            seen = mask if self.has_memory(index) else local
            own = key_value.shape[3] - self.seq_len + clock
            positions = table[:, self.num_mem_kv - seen.shape[1] :]
            x = layer.step(x, key_value, own, positions, seen[:, None])
        if is_taken:  # only now: a step that fails is not seen
            steps = torch.stack(inputs, dim=1).to(buffers.segment.dtype)
            buffers.segment.index_copy_(2, clock, steps)
            buffers.visible.copy_(mask)
        return x[:, 0]

    @torch.no_grad()
    def write_statistics(
        self, x: Float[Tensor, "B T input_dim"], state: MemoryState, reset: Bool[Tensor, "B T"]
    ) -> dict[str, Float[Tensor, ""]]:
        """Return how much the writes of a sequence change the slots; empty without a write.

        `write_size` is the mean of `|new - old| / |old|` over writes and envs, `gate_openness` the
        mean of 1 - retention of the write's gate (0 keeps the slots, 1 replaces them).
        """
        writes = self._writes(None)
        self._run(x, state, reset, writes)
        return writes.statistics()

    def _run(
        self, x: Tensor, state: MemoryState | None, reset: Tensor | None, writes: Writes
    ) -> tuple[Tensor, MemoryState]:
        """Check what is given, and run; collect the writes."""
        check_tensor("x", x)
        if state is None:
            state = self.initial_state(x.shape[0] if x.ndim else 0)
        if reset is None:
            reset = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        check_tensor("reset", reset)
        self.check_state(state)
        check_inputs(x, state, reset, self.input_dim, self.positions.dtype)
        return Unroll(self, writes).run(x, state, reset)

    def _writes(self, bptt_segments: int | None) -> Writes:
        return Writes(self.long_memory, self.memory_layers, bptt_segments)

    @property
    def _parts(self) -> list[nn.Module]:
        return [*self.layers, *([self.long_memory] if self.long_memory else [])]

    def compile_parts_(self, **options: Any) -> None:
        """Compile each layer, the write, and a step of acting, with options of `torch.compile`.

        They are so small that there is one graph for all layers and steps of as many rows.
        """
        for part in self._parts:
            part.compile(**options)
        self.advance_ = torch.compile(self.advance_, **options)

    def uncompile_parts_(self) -> None:
        """Run as written again after `compile_parts_`."""
        for part in self._parts:
            part._compiled_call_impl = None  # what nn.Module.compile sets, and has no way back
        self.__dict__.pop("advance_", None)

    def embed(
        self, x: Float[Tensor, "R T input_dim"], mask: Bool[Tensor, "R T J"]
    ) -> Float[Tensor, "R T D"]:
        """Return the inputs of the first layer.

        Args:
            x: steps.
            mask: which keys they may see, in layers with memories.
        """
        x = self.input_proj(x)
        if self.timesteps is None:
            return x
        earlier = mask[..., self.num_mem_kv + self.lmem_len :].sum(dim=-1) - 1
        return x + F.embedding(earlier.clamp(0, self.mem_len), self.timesteps)

    def has_memory(self, index: int) -> bool:
        """Return whether a layer, from 0, sees the memories."""
        return index + 1 in self.memory_layers

    def memory_index(self, index: int) -> int:
        """Return which of the memory layers a layer is."""
        return self.memory_layers.index(index + 1)

    def check_state(self, state: MemoryState) -> None:
        """Raise ValueError for the state of another core."""
        check_state(state, self.sizes)
