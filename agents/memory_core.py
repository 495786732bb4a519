"""The Memory Transformer-XL behind the agent's core interface.

Dropout is not offered here: acting and training would no longer be one function.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mtxl_rl import MemoryState, MemoryTransformerXL
from mtxl_rl.attention import RelativeAttention

SHARP_GAIN = 3.5
"""Initial gain of queries and keys: attention scores start with a deviation of about ten."""


@torch.no_grad()
def init_sharp_(transformer: MemoryTransformerXL) -> None:
    """Start linear layers orthogonal with gain sqrt(2), and attention sharp.

    With torch's default each layer shrinks its input, and attention starts as an average over all
    keys: what hangs on one step of the past and on the present at once (a cue and the place where
    it counts) then hardly shows in the outputs, and is learned many times more slowly
    (experiments/LOG.md, 2026-11-24).
    """
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight, 2**0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in transformer.modules():
        if isinstance(module, RelativeAttention):
            keys, values = module.key_value.weight.chunk(2)  # views
            nn.init.orthogonal_(module.query.weight, SHARP_GAIN)
            nn.init.orthogonal_(keys, SHARP_GAIN)
            nn.init.orthogonal_(values, 2**0.5)


class MemoryCore(nn.Module):
    """The transformer, started sharp, with a limit on backpropagation through its long memory.

    Args:
        transformer: the backbone; its weights are drawn anew.
        bptt_segments: segments between cuts of the gradient through the long memory; None: the
            whole rollout.
    """

    def __init__(self, transformer: MemoryTransformerXL, bptt_segments: int | None):
        super().__init__()
        init_sharp_(transformer)
        self.transformer = transformer
        self.bptt_segments = bptt_segments
        self.output_dim = transformer.dim

    def initial_state(self, batch_size: int) -> MemoryState:
        return self.transformer.initial_state(batch_size)

    def forward(
        self, x: Float[Tensor, "B T D"], state: MemoryState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        return self.transformer(x, state, reset, bptt_segments=self.bptt_segments)

    def step(
        self, x: Float[Tensor, "B D"], state: MemoryState, reset: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B D"], MemoryState]:
        return self.transformer.step(x, state, reset)

    def step_(
        self, x: Float[Tensor, "B D"], state: MemoryState, reset: Bool[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B D"], MemoryState]:
        return self.transformer.step_(x, state, reset)

    def statistics(
        self, x: Float[Tensor, "B T D"], state: MemoryState, reset: Bool[Tensor, "B T"]
    ) -> dict[str, Tensor]:
        return self.transformer.write_statistics(x, state, reset)
