"""The interface of a recurrent core, its configuration, and the table of cores.

Shapes: B envs, T steps, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import tyro
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents.cores.baseline_cores import FeedForwardCore, ResidualCore
from agents.cores.delta_net import DeltaNet
from agents.cores.initialization import init_chrono, init_weights
from agents.cores.memory_core import MemoryCore
from agents.cores.min_gru import MinGRU
from agents.cores.rnn_cores import GRUCore, LSTMCore
from agents.trees import named_tensors
from mtxl_rl import MemoryTransformerXL
from mtxl_rl.core.gating import Gate
from mtxl_rl.core.transformer import MemWrite


@runtime_checkable
class CoreState(Protocol):
    """What a core carries for each env: a value that can be indexed by env."""

    def __getitem__(self, envs: Any, /) -> Any: ...

    def detach(self) -> Any: ...

    def clone(self) -> Any: ...


@runtime_checkable
class Acting(Protocol):
    """A core in the middle of acting: one step after the other, without gradients.

    `step` is the core's forward pass with T = 1; `peek` returns the output of a step that is not
    taken; `state` is what the core carries after the last step.
    """

    @property
    def state(self) -> Any: ...

    def step(self, x: Float[Tensor, "B D"], reset: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]: ...

    def peek(self, x: Float[Tensor, "B D"], reset: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]: ...


@runtime_checkable
class Core(Protocol):
    """A recurrent module; `reset` is True at a step that starts an episode, a state a `CoreState`.

    `__call__` and the steps of `acting` compute one function. What `acting` returns does not
    outlive a change of the weights, and leaves the state that it starts from as it is.
    """

    output_dim: int
    has_memory: bool

    def initial_state(self, batch_size: int) -> Any: ...

    def __call__(
        self, x: Float[Tensor, "B T D"], state: Any, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], Any]: ...

    def acting(self, state: Any) -> Acting: ...

    def statistics(
        self, x: Float[Tensor, "B T D"], state: Any, reset: Bool[Tensor, "B T"]
    ) -> dict[str, Tensor]:
        """Return scalars about the memory over a sequence, to be logged."""
        ...


CoreKind = Literal["mtxl", "gtrxl", "gru", "lstm", "mingru", "deltanet", "feedforward"]


COMMON_OPTIONS = ("kind", "dim", "depth", "past_action", "image_size", "norm_observations")
"""Options that every core has."""
RECURRENT_OPTIONS: dict[CoreKind, tuple[str, ...]] = {
    "gru": ("chrono",),
    "lstm": ("chrono",),
    "mingru": ("chrono",),
    "deltanet": ("heads",),
    "feedforward": (),
}
"""Those that a core without attention has beside them."""


def has_option(kind: CoreKind, name: str) -> bool:
    """Return whether an option of CoreConfig has an effect on some core of this kind."""
    if kind in RECURRENT_OPTIONS:
        return name in (*COMMON_OPTIONS, *RECURRENT_OPTIONS[kind])
    return name != "chrono"


@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    """The recurrent core.

    Cores other than mtxl and gtrxl have dim, depth, past_action, image_size and norm_observations;
    gru, lstm and mingru have chrono, and deltanet has heads.
    """

    kind: CoreKind = "mtxl"
    """mtxl: short and long memory. Controls: gtrxl (short memory only, GRU gates), gru, lstm,
    mingru (gates that do not see the state), deltanet (Gated DeltaNet: a matrix of each head, time
    constants of 10 to 10,000 steps at the start), feedforward (no memory)."""
    dim: int = 64
    """Width of the core and of its input."""
    depth: int = 2
    """Number of layers."""
    chrono: int | None = None
    """Of gru, lstm and mingru: largest time constant in steps at the start, 3 or more; that of each
    unit is drawn from 2 up to it. Left out: gates of about one half; of an lstm, .73."""
    past_action: bool = True
    """See the previous action and reward. An agent can keep a memory in its own actions: without
    them it needs that of the core."""
    image_size: Annotated[int, tyro.conf.arg(aliases=["--image-size"])] = 84
    """Longest side of a picture, in pixels; larger ones are made smaller, in proportion."""
    norm_observations: bool = False
    """Standardise vectors in the observation by their running mean and deviation, which checkpoints
    hold. It pays where their numbers are of very different size, or lie far from 0."""
    heads: int = 4
    """Heads of attention, or of deltanet; must divide dim."""
    seq_len: int = 16
    """Steps of a segment: attended at once, with a memory write after each."""
    mem_len: int = 16
    """Steps of short memory per layer; 0 for none."""
    lmem_len: int | None = None
    """Slots of long memory; 0 for none. Left out: 4, and 0 for gtrxl."""
    gate: Gate = "gru"
    """Gate of the residual connections: gru (near the identity at the start), nbrc (that of Memory
    Transformer-XL) or residual (none)."""
    memory_layers: tuple[int, ...] | None = None
    """Layers, from 1, that see and feed the memories. Left out: all."""
    num_mem_kv: int = 0
    """Learned persistent key-value slots."""
    mem_write: MemWrite = "gated"
    """How a segment is written to the slots. gated: each step by a gate that can be closed, so that
    a slot holds for as long as nothing is written to it. first: the same, but the gate sees a
    step's own input only, and a write costs: what holds for a hundred steps holds for ten thousand,
    and segments are trained at once. seed: by the memory network of Memory
    Transformer-XL, which rewrites all slots."""
    mem_write_iters: int = 2
    """Refinements of the slots in one write of the seed's memory network."""
    mem_write_gain: float | None = 4.0
    """Size of the seed's memory network's keys at the start: how sharply a write picks what it
    stores. None: the start of Memory Transformer-XL, small and even."""
    mogrify: bool = False
    """Let the inputs of each gate scale each other first."""
    ff_glu: bool = False
    """Use gated feed-forward layers."""
    one_kv_head: bool = False
    """Share one head of keys and values among all heads."""
    bptt_segments: int | None = None
    """Segments between cuts of the gradient through the long memory. Left out: the rollout."""

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(
                f"image_size={self.image_size} must be 1 pixel or more; set --image-size"
            )
        if self.chrono is not None and self.chrono < 3:
            raise ValueError(
                f"chrono={self.chrono} must be 3 or more; it is a number of steps, such as 1000"
            )
        if self.has_attention:
            if self.chrono is not None:
                raise ValueError(
                    f"chrono={self.chrono} has no effect on the core {self.kind}; leave it out, or "
                    "set --core.kind gru, lstm or mingru"
                )
            if self.bptt_segments is not None and self.bptt_segments < 1:
                raise ValueError(
                    f"bptt_segments={self.bptt_segments} must be 1 or more; leave it out for no cut"
                )
            gain = self.mem_write_gain
            if gain is not None and not 0 < gain < math.inf:
                raise ValueError(f"mem_write_gain={gain} must be above 0, or None")
            has_long_memory = self.kind == "mtxl" and self.lmem_len != 0
            if not has_long_memory and self.mem_write != "gated":
                raise ValueError(
                    f"mem_write={self.mem_write} has no effect without a long memory; leave it "
                    "out, or set --core.lmem-len"
                )
            for name in ("mem_write_iters", "mem_write_gain"):
                value = getattr(self, name)
                if self.mem_write != "seed" and value != LONG_MEMORY_OPTIONS[name]:
                    remedy = "set --core.mem-write seed" if has_long_memory else "add a long memory"
                    raise ValueError(
                        f"{name}={value} has an effect on the seed's write only; leave it out, or "
                        f"{remedy}"
                    )
            if self.kind == "gtrxl" and self.lmem_len:
                raise ValueError(
                    f"lmem_len={self.lmem_len} must be 0 for the core gtrxl, which has no long "
                    "memory; set --core.kind mtxl"
                )
            return
        for field in fields(self):
            if not has_option(self.kind, field.name):
                value = getattr(self, field.name)
                if value != field.default:
                    others = {"chrono": "gru, lstm or mingru", "heads": "mtxl or deltanet"}
                    kinds = others.get(field.name, "mtxl")
                    raise ValueError(
                        f"{field.name}={value} has no effect on the core {self.kind}; leave it "
                        f"out, or set --core.kind {kinds}"
                    )

    @property
    def resolved(self) -> CoreConfig:
        """The same core with what was left out written out."""
        if not self.has_attention:
            return self
        is_gtrxl = self.kind == "gtrxl"
        return replace(
            self,
            lmem_len=(0 if is_gtrxl else 4) if self.lmem_len is None else self.lmem_len,
            memory_layers=self.memory_layers or tuple(range(1, self.depth + 1)),
        )

    @property
    def has_attention(self) -> bool:
        """Whether the core is a memory transformer."""
        return self.kind in ("mtxl", "gtrxl")


LONG_MEMORY_OPTIONS = {
    name: getattr(CoreConfig, name) for name in ("mem_write", "mem_write_iters", "mem_write_gain")
}
"""Options, with their defaults, that must be left out where there is no long memory."""


def make_core(config: CoreConfig) -> Core:
    """Build the core; its input has width `config.dim`.

    Raises:
        ValueError: for a configuration that cannot be built.
    """
    core = CORES[config.kind](config)
    assert isinstance(core, nn.Module)
    if not isinstance(core, MemoryCore):
        init_weights(core)
    if config.chrono is not None:
        init_chrono(core, config.chrono)
    return core


def state_size(core: Core) -> int:
    """Return how many floats a core carries for each env: no masks, nothing that is derived."""
    tensors = named_tensors(core.initial_state(1), "state").values()
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())


def _memory_transformer(config: CoreConfig) -> MemoryCore:
    config = config.resolved
    assert config.lmem_len is not None
    transformer = MemoryTransformerXL(
        dim=config.dim,
        depth=config.depth,
        seq_len=config.seq_len,
        mem_len=config.mem_len,
        lmem_len=config.lmem_len,
        heads=config.heads,
        memory_layers=config.memory_layers,
        num_mem_kv=config.num_mem_kv,
        mem_write=config.mem_write,
        mem_write_iters=config.mem_write_iters,
        mem_write_gain=config.mem_write_gain,
        gate=config.gate,
        mogrify=config.mogrify,
        ff_glu=config.ff_glu,
        one_kv_head=config.one_kv_head,
    )
    return MemoryCore(transformer, config.bptt_segments)


CORES: dict[CoreKind, Callable[[CoreConfig], Core]] = {
    "mtxl": _memory_transformer,
    "gtrxl": _memory_transformer,
    "gru": lambda c: GRUCore(nn.GRU(c.dim, c.dim, c.depth, batch_first=True)),
    "lstm": lambda c: LSTMCore(nn.LSTM(c.dim, c.dim, c.depth, batch_first=True)),
    "mingru": lambda c: ResidualCore(c.dim, [MinGRU(c.dim) for _ in range(c.depth)]),
    "deltanet": lambda c: ResidualCore(c.dim, [DeltaNet(c.dim, c.heads) for _ in range(c.depth)]),
    "feedforward": lambda c: FeedForwardCore(c.dim, c.depth),
}
