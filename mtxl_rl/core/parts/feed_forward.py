"""The position-wise feed-forward layer, with GELU or its gated form (arXiv 2002.05202)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.core.shapes import Float

EXPANSION = 4


class FeedForward(nn.Module):
    """dim -> 4 dim -> dim."""

    def __init__(self, dim: int, use_glu: bool, dropout: float):
        super().__init__()
        self.use_glu = use_glu
        self.expand = nn.Linear(dim, dim * EXPANSION * (2 if use_glu else 1))
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(dim * EXPANSION, dim)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        x = self.expand(x)
        if self.use_glu:
            x, scale = x.chunk(2, dim=-1)
            x = F.gelu(x) * scale
        else:
            x = F.gelu(x)
        return self.contract(self.dropout(x))
