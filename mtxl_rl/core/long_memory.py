"""The write of the long memory: what puts the steps of a segment into the slots.

Each step of a segment may write to each slot, through a gate that can be exactly 0 and exactly 1.
A slot that no step writes to stays as it is, bit for bit, however many segments pass, and the
gradient through it is exactly 1. The gate sees a step's input and place, not what the slots hold:
what does not write in training does not write ten thousand steps later either, and the slots of
many segments follow from one another without a look at the layers between. A write costs: a gate
that leaks a percent is not punished by the task, which sees a few writes, and leaves nothing after
hundreds; the cost shuts every gate that the task does not need.

Memory Transformer-XL has another write, which rewrites all slots after every segment
(`memory_network.MemoryNetwork`); what a slot holds is lost there over many writes. Writes to single
slots, with others left as they are, keep what they hold in other work, too (Raven,
goombalab/raven; ALER, arXiv 2610.00592).

Shapes: B envs, R segments of theirs, M short-memory length, W segment length, S long-memory slots,
D model width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.core.attention import init_uniform
from mtxl_rl.core.shapes import Bool, Float


class GatedWrite(nn.Module):
    """Steps write to slots one after the other, each through a hard gate for each slot.

    For the steps j of a segment, h_j being the input of the first memory layer at that step,
    normalised:

        x_j  = h_j + place_j
        v_j  = tanh(V x_j)
        w_ji = hard(g_i . x_j + b_i), 0 where the step is not valid
        s_i <- (1 - w_ji) s_i + w_ji v_j, for j = 1 .. W

    The gradient of w_ji has WRITE_COST / (B W S) added to it while the gate is not shut, as if the
    mean of a segment's gates, times WRITE_COST, were a part of the loss.

    It is computed for all steps at once: s_i' = prod_j (1 - w_ji) s_i + sum_j w_ji prod_{k > j}
    (1 - w_ki) v_j. Places are counted from the oldest step of the episode that short memory or
    segment still hold.

    Args:
        dim: D.
        lmem_len: S.
        num_positions: places that are told apart: those of the short memory and the segment.
    """

    def __init__(self, dim: int, lmem_len: int, num_positions: int):
        super().__init__()
        self.initial_slot = init_uniform(lmem_len, dim, dim=dim)
        self.place = nn.Parameter(torch.empty(num_positions, dim).normal_(std=PLACE_STD))
        self.value = nn.Linear(dim, dim)
        self.gate = nn.Linear(dim, lmem_len)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw orthogonal weights, and set the bias of the gates."""
        for layer, bias in ((self.value, 0.0), (self.gate, GATE_BIAS)):
            nn.init.orthogonal_(layer.weight, 2**0.5)
            nn.init.constant_(layer.bias, bias)

    def forward(
        self, hidden: Float[Tensor, "R W D"], valid: Bool[Tensor, "R MW"], num_envs: int
    ) -> tuple[Float[Tensor, "R S 1"], Float[Tensor, "R S D"]]:
        """Return what segments do to slots s: they become retention * s + written.

        Args:
            hidden: inputs of the first memory layer in the segment; they are used detached.
            valid: True where a step of short memory or segment belongs to the episode that is
                alive.
            num_envs: B, of which the rows are segments.
        """
        weights, values = self.gates_and_values(hidden, valid)  # (R, W, S), (R, W, D)
        weights = _Costly.apply(weights, WRITE_COST * len(weights) / (num_envs * weights.numel()))
        kept = _product_of_later(1 - weights)
        retention = (kept[:, 0] * (1 - weights[:, 0])).unsqueeze(-1)
        return retention, (weights * kept).transpose(1, 2) @ values.to(weights.dtype)

    def gates_and_values(
        self, hidden: Float[Tensor, "R W D"], valid: Bool[Tensor, "R MW"]
    ) -> tuple[Float[Tensor, "R W S"], Float[Tensor, "R W D"]]:
        """Return how much each step writes to each slot, and what it writes."""
        num_steps = hidden.shape[1]
        normed = F.layer_norm(hidden.detach(), hidden.shape[-1:])
        is_valid = valid[:, -num_steps:, None]
        x = torch.where(is_valid & normed.isfinite(), normed, 0.0)
        place = (valid.long().cumsum(dim=1) - 1).clamp_min(0)[:, -num_steps:]
        x = x + F.embedding(place, self.place)
        return torch.where(is_valid, hard_sigmoid(self.gate(x)), 0.0), self.value(x).tanh()


PLACE_STD = 0.4
"""Size of the vectors of places at the start, beside inputs of size 1."""

GATE_BIAS = -2.0
"""Of the gates at the start: four in ten are shut, and a step writes .15 of its value or so."""

WRITE_COST = 1e-4
"""Of a segment whose every step overwrites every slot, beside a loss whose size is about 1."""


def hard_sigmoid(z: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return clip(1.2 sigmoid(z) - .1, 0, 1), with the gradient of 1.2 sigmoid(z) everywhere.

    The hard concrete gate without its noise (Louizos et al. 2018, arXiv 1712.01312), straight
    through: exactly 0 below z = -2.4 and exactly 1 above 2.4, where it can still be learned.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    soft = 1.2 * z.sigmoid() - 0.1
    return soft.detach().clamp(0, 1) + (soft - soft.detach())


class _Costly(torch.autograd.Function):
    """The gates as they are, with a gradient that shuts them.

    Louizos et al. add the chance that a gate is open to the loss; this adds the gate itself.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(gates: Tensor, cost: float) -> Tensor:
        return gates.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        gates, ctx.cost = inputs
        ctx.save_for_backward(gates)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gates,) = ctx.saved_tensors
        return grads[0] + ctx.cost * (gates > 0), None


def _product_of_later(x: Float[Tensor, "B W S"]) -> Float[Tensor, "B W S"]:
    """Return prod_{k > j} x_k for each step j, in log2(W) products: exact where x is 0."""
    product = F.pad(x[:, 1:], (0, 0, 0, 1), value=1.0)
    reach = 1
    while reach < x.shape[1]:
        product = product * F.pad(product[:, reach:], (0, 0, 0, reach), value=1.0)
        reach *= 2
    return product
