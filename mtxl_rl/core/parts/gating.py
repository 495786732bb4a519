"""Gates that join a layer's input `x` and its output `y` (both (..., D)) in place of `x + y`.

- nBRC: the neuromodulated bistable recurrent cell (Vecoven et al. 2020, arXiv 2006.05252).
- GRU: the gate of the Gated Transformer-XL (Parisotto et al. 2019, arXiv 1910.06764).
- Mogrifier: `x` and `y` scale each other before the gate (Melis et al. 2019, arXiv 1909.01792).
"""

from __future__ import annotations

from typing import Literal

import torch
from mogrifier import Mogrifier
from torch import Tensor, nn

from mtxl_rl.core.shapes import Float

Gate = Literal["nbrc", "gru", "residual"]
GATES: tuple[Gate, ...] = ("nbrc", "gru", "residual")


class NBRCGate(nn.Module):
    """nBRC with `y` as the input and `x` as the hidden state.

    a = 1 + tanh(Ua y + Wa x); c = sigmoid(Uc y + Wc x); out = c x + (1 - c) tanh(U y + a x).
    """

    def __init__(self, dim: int):
        super().__init__()
        self.input_proj = nn.Linear(dim, 3 * dim)  # Ua, Uc, U
        self.hidden_proj = nn.Linear(dim, 2 * dim)  # Wa, Wc

    def forward(self, y: Float[Tensor, "*N D"], x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return self.with_retention(y, x)[0]

    def with_retention(
        self, y: Float[Tensor, "*N D"], x: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*N D"]]:
        """Return the output and the retention c in (0, 1): the share of `x` that is kept."""
        input_a, input_c, input_u = self.input_proj(y).chunk(3, dim=-1)
        hidden_a, hidden_c = self.hidden_proj(x).chunk(2, dim=-1)
        feedback = 1 + torch.tanh(input_a + hidden_a)
        retention = torch.sigmoid(input_c + hidden_c)
        return retention * x + (1 - retention) * torch.tanh(input_u + feedback * x), retention


class GRUGate(nn.Module):
    """The GTrXL gate; `bias` > 0 starts it near the identity in `x`."""

    def __init__(self, dim: int, bias: float = 2.0):
        super().__init__()
        self.input_proj = nn.Linear(dim, 3 * dim, bias=False)  # Wr, Wz, Wg
        self.hidden_proj = nn.Linear(dim, 2 * dim, bias=False)  # Ur, Uz
        self.candidate_proj = nn.Linear(dim, dim, bias=False)  # Ug
        self.update_bias = nn.Parameter(torch.full((dim,), bias))

    def forward(self, y: Float[Tensor, "*N D"], x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        input_r, input_z, input_g = self.input_proj(y).chunk(3, dim=-1)
        hidden_r, hidden_z = self.hidden_proj(x).chunk(2, dim=-1)
        update = torch.sigmoid(input_z + hidden_z - self.update_bias)
        candidate = torch.tanh(input_g + self.candidate_proj(torch.sigmoid(input_r + hidden_r) * x))
        return x + update * (candidate.to(update.dtype) - x)


class ResidualGate(nn.Module):
    """The plain residual connection x + y."""

    def forward(self, y: Float[Tensor, "*N D"], x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return x + y


class MogrifiedGate(nn.Module):
    """A gate whose two inputs scale each other first."""

    def __init__(self, dim: int, gate: nn.Module):
        super().__init__()
        self.mogrifier = Mogrifier(dim, factorize_k=dim // 4)
        self.gate = gate

    def forward(self, y: Float[Tensor, "*N D"], x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        return self.gate(*self.mogrifier(y, x))


def make_gate(gate: Gate, dim: int, mogrify: bool = False) -> nn.Module:
    """Build the gate of one residual connection.

    Raises:
        ValueError: for an unknown gate, or for `mogrify` without a gate to act on.
    """
    if gate not in GATES:
        raise ValueError(f"gate={gate!r} must be one of {', '.join(GATES)}")
    if mogrify and gate == "residual":
        raise ValueError(
            "mogrify=True acts on a gate, and gate='residual' has none; set gate to nbrc or gru"
        )
    if mogrify and dim < 4:
        raise ValueError(f"dim={dim} must be 4 or more with mogrify=True; raise dim")
    module = {"nbrc": NBRCGate, "gru": GRUGate, "residual": lambda _: ResidualGate()}[gate](dim)
    return MogrifiedGate(dim, module) if mogrify else module
