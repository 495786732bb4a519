"""The Memory Transformer-XL behind the agent's core interface, with long memory and without.

Dropout is not offered here: acting and training would no longer be one function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents.cores.core_config import LayeredConfig
from agents.cores.tensor_step import first_tensors, step_tensors
from mtxl_rl.core import Acting, MemoryState, MemoryTransformerXL
from mtxl_rl.core.checks import check_gain, check_memory_layers, check_timesteps
from mtxl_rl.core.parts.gating import Gate
from mtxl_rl.core.transformer import MemWrite


@dataclass(frozen=True, kw_only=True)
class GTrXLConfig(LayeredConfig):
    """A transformer with a short memory."""

    has_attention: ClassVar[bool] = True

    kind: str = "gtrxl"
    heads: int = 4
    """Heads of attention; must divide dim."""
    seq_len: int = 16
    """Steps of a segment: attended at once, with a memory write after each."""
    mem_len: int = 16
    """Steps of short memory per layer; 0 for none."""
    gate: Gate = "gru"
    """Gate of the residual connections: gru (near the identity at the start), nbrc (that of Memory
    Transformer-XL) or residual (none)."""
    memory_layers: tuple[int, ...] | None = None
    """Layers, from 1, that see and feed the memories. Left out: all."""
    num_mem_kv: int = 0
    """Learned persistent key-value slots."""
    mogrify: bool = False
    """Let the inputs of each gate scale each other first."""
    ff_glu: bool = False
    """Use gated feed-forward layers."""
    one_kv_head: bool = False
    """Share one head of keys and values among all heads."""
    timesteps: bool = False
    """Tell each step how many came before it in its episode, as far as the short memory reaches (0
    to mem_len): for what is counted, or due at a certain step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory_layers is not None:
            check_memory_layers(self.memory_layers, self.depth)
        check_timesteps(self.timesteps, self.mem_len)

    @property
    def resolved(self) -> GTrXLConfig:
        return replace(self, memory_layers=self.memory_layers or tuple(range(1, self.depth + 1)))


@dataclass(frozen=True, kw_only=True)
class MTXLConfig(GTrXLConfig):
    """A transformer with a short and a long memory."""

    kind: str = "mtxl"
    lmem_len: int = 4
    """Slots of long memory; 0 for none. Give twice as many as there are things to keep."""
    mem_write: MemWrite = "parts"
    """How a segment is written to the slots. parts: each step by steep gates for sixteen parts of a
    slot, which see its own input only; what is not written to stays as it is. gated: by one gate
    for a slot, which sees all memory layers: holds less. seed: by the memory network of Memory
    Transformer-XL, which rewrites all slots."""
    mem_write_iters: int = 2
    """Refinements of the slots in one write of the seed's memory network."""
    mem_write_gain: float | None = 4.0
    """Size of the seed's memory network's keys at the start: how sharply a write picks what it
    stores. None: the start of Memory Transformer-XL, small and even."""
    bptt_segments: int | None = None
    """Segments between cuts of the gradient through the long memory. Left out: the rollout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bptt_segments is not None and self.bptt_segments < 1:
            raise ValueError(
                f"bptt_segments={self.bptt_segments} must be 1 or more; leave it out for no cut"
            )
        check_gain(self.mem_write_gain)
        if not self.lmem_len and self.mem_write == "seed":
            raise ValueError(
                f"mem_write={self.mem_write} has no effect without a long memory; leave it out, "
                "or set --core.lmem-len"
            )
        for name in ("mem_write_iters", "mem_write_gain"):
            value = getattr(self, name)
            if self.mem_write != "seed" and value != getattr(MTXLConfig, name):
                remedy = "set --core.mem-write seed" if self.lmem_len else "add a long memory"
                raise ValueError(
                    f"{name}={value} has an effect on the seed's write only; leave it out, or "
                    f"{remedy}"
                )


class MemoryCore(nn.Module):
    """Adds a limit on backpropagation through the long memory to the transformer."""

    Config: ClassVar[type[GTrXLConfig]] = MTXLConfig

    def __init__(self, config: GTrXLConfig):
        super().__init__()
        resolved = config.resolved
        given: dict[str, Any] = {"lmem_len": 0}
        for name in signature(MemoryTransformerXL).parameters:
            if hasattr(resolved, name):
                given[name] = getattr(resolved, name)
        self.transformer = transformer = MemoryTransformerXL(**given)
        self.bptt_segments = config.bptt_segments if isinstance(config, MTXLConfig) else None
        self.output_dim = transformer.dim
        self.segment_len = transformer.seq_len
        self.has_memory = (
            max(transformer.seq_len - 1, transformer.mem_len, transformer.lmem_len) > 0
        )
        sizes: dict[Literal["short", "long"], int] = {
            "short": transformer.mem_len, "long": transformer.lmem_len
        }  # fmt: skip
        self.memories = tuple(name for name, size in sizes.items() if size)

    @property
    def description(self) -> str:
        first, last = self.transformer.reach
        slots = self.transformer.lmem_len or "no"
        return f"of the last {first} to {last} steps, and {slots} slots of long memory"

    def initial_state(self, batch_size: int) -> MemoryState:
        return self.transformer.initial_state(batch_size)

    def forward(
        self, x: Float[Tensor, "B T D"], state: MemoryState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        return self.transformer(x, state, reset, bptt_segments=self.bptt_segments)

    def acting(self, state: MemoryState) -> Acting:
        return Acting(self.transformer, state)

    def statistics(
        self, x: Float[Tensor, "B T D"], state: MemoryState, reset: Bool[Tensor, "B T"]
    ) -> dict[str, Tensor]:
        return self.transformer.write_statistics(x, state, reset)

    def compile_(self) -> None:
        self.transformer.compile_parts_(dynamic=False)

    def uncompile_(self) -> None:
        self.transformer.uncompile_parts_()

    def first_tensors(self) -> dict[str, Tensor]:
        return first_tensors(self.transformer)

    def step_tensors(
        self, x: Float[Tensor, "1 D"], reset: Bool[Tensor, " 1"], tensors: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "1 D"], tuple[Tensor, ...]]:
        return step_tensors(self.transformer, x, reset, *tensors)


class GTrXLCore(MemoryCore):
    """The transformer without its long memory."""

    Config = GTrXLConfig
