"""Cores to compare with: feed-forward (no memory), and a stack for recurrences.

`min_gru` and `delta_net` have what goes into that stack, `rnn_cores` GRU and LSTM.

Shapes: B envs, T steps, L layers, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents.cores.core_config import CoreConfig, LayeredConfig
from agents.cores.initialization import init_weights
from mtxl_rl.core.parts.feed_forward import FeedForward


@dataclass(frozen=True)
class TensorState:
    """A recurrent state of tensors (B, ...); none at all for a core without memory."""

    tensors: tuple[Float[Tensor, "B ..."], ...] = ()

    def __getitem__(self, envs: Tensor | slice | list[int]) -> TensorState:
        return TensorState(tuple(tensor[envs] for tensor in self.tensors))

    def detach(self) -> TensorState:
        return TensorState(tuple(tensor.detach() for tensor in self.tensors))

    def clone(self) -> TensorState:
        return TensorState(tuple(tensor.clone() for tensor in self.tensors))


class BaselineActing:
    """Acts by a core's `step`."""

    position = 0

    def __init__(self, core: BaselineCore, state: TensorState):
        self._core, self.state = core, state

    def step(self, x: Float[Tensor, "B D"], reset: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]:
        with torch.no_grad():
            y, self.state = self._core.step(x, self.state, reset)
        return y

    def peek(self, x: Float[Tensor, "B D"], reset: Bool[Tensor, " B"]) -> Float[Tensor, "B D"]:
        with torch.no_grad():
            return self._core.step(x, self.state, reset)[0]


class BaselineCore(nn.Module):
    """A core with a `TensorState` and nothing to report: the start of one of your own.

    A subclass sets `output_dim`, and has `initial_state` and `forward`; its `Config` holds its
    options.
    """

    Config: ClassVar[type[CoreConfig]] = CoreConfig
    output_dim: int
    has_memory = True
    segment_len = 1
    memories = ()
    description = ""

    def initial_state(self, batch_size: int) -> TensorState:
        raise NotImplementedError

    def acting(self, state: TensorState) -> BaselineActing:
        return BaselineActing(self, state)

    def step(
        self, x: Float[Tensor, "B D"], state: TensorState, reset: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B D"], TensorState]:
        """Run one step: the forward pass with T = 1, unless a core has something faster."""
        y, state = self(x[:, None], state, reset[:, None])
        return y[:, 0], state

    def statistics(
        self, x: Float[Tensor, "B T D"], state: TensorState, reset: Bool[Tensor, "B T"]
    ) -> dict[str, Tensor]:
        return {}

    def compile_(self) -> None:
        raise ValueError("this core has nothing that is compiled; of ours mtxl and gtrxl have")

    def uncompile_(self) -> None:
        pass

    def first_tensors(self) -> dict[str, Tensor]:
        tensors = self.initial_state(1).tensors
        return {f"state_{place}": tensor for place, tensor in enumerate(tensors)}

    def step_tensors(
        self, x: Float[Tensor, "1 D"], reset: Bool[Tensor, " 1"], tensors: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "1 D"], tuple[Tensor, ...]]:
        y, state = self.step(x, TensorState(tuple(tensors)), reset)
        return y, state.tensors


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig(LayeredConfig):
    """Feed-forward layers."""

    kind: str = "feedforward"


class FeedForwardCore(BaselineCore):
    """The transformer without its attention: pre-norm residual feed-forward layers."""

    Config = FeedForwardConfig
    has_memory = False

    def __init__(self, config: FeedForwardConfig):
        super().__init__()
        self.output_dim = dim = config.dim
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, use_glu=False, dropout=0.0))
            for _ in range(config.depth)
        )
        init_weights(self)

    def initial_state(self, batch_size: int) -> TensorState:
        return TensorState()

    def forward(
        self, x: Float[Tensor, "B T D"], state: TensorState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], TensorState]:
        for layer in self.layers:
            x = x + layer(x)
        return x, state


class Recurrence(nn.Module):
    """A layer (x, state, reset) -> (y, state) that carries a tensor, in float32, for each env.

    Args:
        state_shape: of one env's tensor.
    """

    def __init__(self, state_shape: tuple[int, ...]):
        super().__init__()
        self.state_shape = state_shape


class ResidualCore(BaselineCore):
    """The transformer with a recurrence in the place of its attention: pre-norm residual layers.

    Args:
        dim: D.
        recurrences: of each layer, all with states of one shape.

    Raises:
        ValueError: for no layer.
    """

    def __init__(self, dim: int, recurrences: Sequence[Recurrence]):
        super().__init__()
        if not recurrences:
            raise ValueError("recurrences=[] must be one for each layer; pass one or more")
        self.output_dim = dim
        self.state_shape = recurrences[0].state_shape
        self.recurrences = nn.ModuleList(recurrences)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in recurrences)
        self.feed_forwards = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), FeedForward(dim, use_glu=False, dropout=0.0))
            for _ in recurrences
        )
        init_weights(self)

    def initial_state(self, batch_size: int) -> TensorState:
        weights = next(self.parameters())
        shape = (batch_size, len(self.recurrences), *self.state_shape)
        return TensorState((weights.new_zeros(shape, dtype=torch.float32),))

    def forward(
        self, x: Float[Tensor, "B T D"], state: TensorState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], TensorState]:
        (tensor,) = state.tensors  # (B, L, ...)
        after = []
        for norm, recurrence, feed_forward, before in zip(
            self.norms, self.recurrences, self.feed_forwards, tensor.unbind(dim=1), strict=True
        ):
            y, last = recurrence(norm(x), before, reset)
            x = x + y
            x = x + feed_forward(x)
            after.append(last)
        return x, TensorState((torch.stack(after, dim=1),))
