"""The minimal GRU (Feng et al. 2024, arXiv 2410.01201): gates that do not see the state.

Its vanilla form, with a state as wide as the input (no expansion): z = sigmoid(W x),
h = (1 - z) h + z W' x. The paper's parallel scan is a loop over steps here.

Shapes: B envs, T steps, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents.cores.baseline_cores import Recurrence


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
