"""The minimal GRU (Feng et al. 2024, arXiv 2410.01201): gates that do not see the state.

Its vanilla form, with a state as wide as the input (no expansion): z = sigmoid(W x),
h = (1 - z) h + z W' x. The paper's parallel scan is a loop over steps here.

Shapes: B envs, T steps, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents.cores.baseline_cores import Recurrence, ResidualCore
from agents.cores.core_config import GatedConfig
from agents.cores.initialization import log_times


class MinGRU(Recurrence):
    """One layer, cleared where an episode starts."""

    def __init__(self, dim: int):
        super().__init__((dim,))
        self.gate = nn.Linear(dim, dim)
        self.candidate = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "B T D"], state: Float[Tensor, "B D"], reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
        update = self.gate(x).float().sigmoid()  # z
        candidate = self.candidate(x).float()
        outputs = []
        for update_t, candidate_t, reset_t in zip(
            update.unbind(dim=1), candidate.unbind(dim=1), reset.unbind(dim=1), strict=True
        ):
            state = torch.where(reset_t[:, None], 0.0, state)
            state = torch.lerp(state, candidate_t, update_t)
            outputs.append(state)
        return torch.stack(outputs, dim=1).to(x.dtype), state


@dataclass(frozen=True, kw_only=True)
class MinGRUConfig(GatedConfig):
    """A stack of minimal GRUs."""

    kind: str = "mingru"


class MinGRUCore(ResidualCore):
    """A stack of minimal GRUs."""

    Config = MinGRUConfig

    def __init__(self, config: MinGRUConfig):
        layers = [MinGRU(config.dim) for _ in range(config.depth)]
        super().__init__(config.dim, layers)
        if config.chrono is not None:
            for layer in layers:
                bias = layer.gate.bias.data
                bias.copy_(-log_times(bias, config.chrono))
