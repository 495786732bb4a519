"""The Memory Transformer-XL behind the agent's core interface.

Dropout is not offered here: acting and training would no longer be one function.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mtxl_rl import Acting, MemoryState, MemoryTransformerXL


class MemoryCore(nn.Module):
    """Adds a limit on backpropagation through the long memory to the transformer.

    Args:
        transformer: the backbone.
        bptt_segments: segments between cuts of the gradient through the long memory; None: the
            whole rollout.
    """

    def __init__(self, transformer: MemoryTransformerXL, bptt_segments: int | None):
        super().__init__()
        self.transformer = transformer
        self.bptt_segments = bptt_segments
        self.output_dim = transformer.dim
        self.has_memory = (
            max(transformer.seq_len - 1, transformer.mem_len, transformer.lmem_len) > 0
        )

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
