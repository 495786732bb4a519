"""The gated write of the long memory: what puts the steps of a segment into the slots.

Each step of a segment may write to each slot, through a gate that can be exactly 0 and exactly 1.
A slot that no step writes to stays as it is, bit for bit, however many segments pass, and the
gradient through it is exactly 1.

A gate of a percent would cost nothing over the few writes that training sees, and empty a slot in
hundreds. There are two ways out, and a write for each.

The open gates of `GatedWrite` are counted, and the count, times a small cost, is a part of the
loss: it shuts what the task does not need, with a margin, and hardly moves what is open. They see
the inputs of all memory layers, and so what the slots hold, such as which cue of several this one
is.

The gates of `PartedWrite` are so steep that hardly one is neither shut nor open, which needs no
cost; and each is that of a part of a slot's channels, because steep gates of whole slots are not
learned from every start. They see the inputs of the first memory layer only: then the slots of many
segments follow from one another without a look at the layers between, and are computed at once.

Memory Transformer-XL has another write, which rewrites all slots after every segment
(`memory_network.MemoryNetwork`); what a slot holds is lost there over many writes. Writes to single
slots, with others left as they are, keep what they hold in other work, too (Raven,
goombalab/raven; ALER, arXiv 2610.00592).

Shapes: B envs, R segments of theirs, P memory layers that are seen, M short-memory length, W
segment length, S long-memory slots, G gates of a slot, D model width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.core.parts.attention import init_normal, init_uniform
from mtxl_rl.core.shapes import Bool, Float

PLACE_STD = 0.4
"""Size of the vectors of places at the start, beside inputs of size 1."""

GATE_BIAS = -2.0
"""Of the gates at the start: four in ten are shut, and a step writes .15 of its value or so."""

WRITE_COST = 1e-5
"""Beside a loss whose size is about 1. Of the gate itself ten times as much is needed, and six
times that shuts gates which the task needs (experiments/LOG.md)."""

OPEN_SIZE = 0.02
"""Gates much smaller than this are pushed fifty times as hard as those that are half open."""

SHUT_MARGIN = 0.06
"""How far below 0 the clipped gate is pushed: z from -2.4 to -3.4."""


NUM_PARTS = 16
"""Gates of a slot of `PartedWrite`, at most: each is that of as many channels."""

STEEPNESS = 8.0
"""How fast its gates open, in units of a sigmoid's: from 0 to 1 within half a unit of z."""

GATE_SCALE = 3.5
"""What its gates' linear layer is multiplied by: they move as much faster than other weights."""

GATE_STD = 0.4
"""Size of that layer's outputs at the start: z is then as often above 0 as a normal number is above
1.4."""


class GatedWrite(nn.Module):
    """Steps write to slots one after the other, each through a hard gate for each slot.

    For the steps j of a segment, h_j being the inputs of the layers that are seen at that step,
    each normalised, side by side:

        x_j  = h_j + place_j
        v_j  = tanh(V x_j)
        w_ji = hard(g_i . x_j + b_i), 0 where the step is not valid
        s_i <- (1 - w_ji) s_i + w_ji v_j, for j = 1 .. W

    The cost is added to the gradient as if the loss had, for each segment, the cost times the mean
    over envs, steps and slots of

        u_ji = w_ji / (w_ji + .02), the number of open gates: about 1 for a gate of a tenth or more

    and below w_ji = 0 the line that goes on from there, as far as the margin: a gate that is shut
    by less is pushed on, so that what it has not seen in training does not open it.

    It is computed for all steps at once: s_i' = prod_j (1 - w_ji) s_i + sum_j w_ji prod_{k > j}
    (1 - w_ki) v_j. Places are counted from the oldest step of the episode that short memory or
    segment still hold.

    Args:
        dim: D.
        num_layers: P.
        lmem_len: S.
        num_positions: places that are told apart: those of the short memory and the segment.
        cost: of a segment whose every step writes to every slot.
    """

    cost: Tensor
    num_parts = 1
    """Gates G of a slot."""

    def __init__(
        self,
        dim: int,
        num_layers: int,
        lmem_len: int,
        num_positions: int,
        cost: float = WRITE_COST,
    ):
        super().__init__()
        width = num_layers * dim
        self.num_layers = num_layers
        self.register_buffer("cost", torch.tensor(cost), persistent=False)
        self.initial_slot = init_uniform(lmem_len, dim, dim=dim)
        self.place = init_normal(num_positions, width, std=PLACE_STD)
        self.value = nn.Linear(width, dim)
        self.gate = nn.Linear(width, lmem_len * self.num_parts)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw orthogonal weights, and set the bias of the gates."""
        for layer, bias in ((self.value, 0.0), (self.gate, GATE_BIAS)):
            nn.init.orthogonal_(layer.weight, 2**0.5)
            nn.init.constant_(layer.bias, bias)

    def forward(
        self, hidden: Float[Tensor, "R P W D"], valid: Bool[Tensor, "R MW"], num_envs: int
    ) -> tuple[Float[Tensor, "R S _"], Float[Tensor, "R S D"]]:
        """Return what segments do to slots s: they become retention * s + written.

        Args:
            hidden: inputs of the layers in the segment; they are used detached.
            valid: True where a step of short memory or segment belongs to the episode that is
                alive.
            num_envs: B, of which the rows are segments.
        """
        num_gates = num_envs * hidden.shape[2] * self.gate.out_features
        charge = self.cost / num_gates if torch.is_grad_enabled() else None
        weights, values = self.gates_and_values(hidden, valid, charge)
        kept = _product_of_later(1 - weights)
        retention = (kept[:, 0] * (1 - weights[:, 0])).unflatten(1, (-1, self.num_parts))
        shares = (weights * kept).unflatten(2, (-1, self.num_parts))  # (R, W, S, G)
        parts = values.to(weights.dtype).unflatten(2, (self.num_parts, -1))  # (R, W, G, D / G)
        written = torch.einsum("rwsg, rwgd -> rsgd", shares, parts).flatten(2)
        if self.num_parts > 1:
            retention = retention.repeat_interleave(parts.shape[3], dim=2)
        return retention, written

    def gates_and_values(
        self,
        hidden: Float[Tensor, "R P W D"],
        valid: Bool[Tensor, "R MW"],
        charge: Float[Tensor, ""] | None = None,
    ) -> tuple[Float[Tensor, "R W SG"], Float[Tensor, "R W D"]]:
        """Return how much each step writes to each part of each slot, and what it writes.

        Args:
            hidden: as in `forward`.
            valid: as in `forward`.
            charge: in the gradient, for each gate that is open.
        """
        num_steps = hidden.shape[2]
        normed = F.layer_norm(hidden.detach(), hidden.shape[-1:]).transpose(1, 2).flatten(2)
        is_valid = valid[:, -num_steps:, None]
        finite = normed.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        x = torch.where(is_valid, finite, 0.0)  # (R, W, P * D)
        place = (valid.long().cumsum(dim=1) - 1).clamp_min(0)[:, -num_steps:]
        x = x + F.embedding(place, self.place)
        return torch.where(is_valid, self._opened(x, is_valid, charge), 0.0), self.value(x).tanh()

    def _opened(
        self, x: Float[Tensor, "R W PD"], is_valid: Bool[Tensor, "R W 1"], charge: Tensor | None
    ) -> Float[Tensor, "R W SG"]:
        """Return the gates of steps, as if each were valid."""
        z = self.gate(x)
        return hard_sigmoid(z if charge is None else _Charged.apply(z, is_valid, charge))


class PartedWrite(GatedWrite):
    """Steps write to parts of slots one after the other, each through a steep gate for each part.

    As `GatedWrite`, of the inputs of the first memory layer only; the gate of the g-th of G equal
    parts of a slot's channels is

        w_jig = steep(3.5 (g_ig . x_j + b_ig) - 2)

    Args:
        dim: D; G is the largest divisor of it that divides 16.
        lmem_len: S.
        num_positions: as of `GatedWrite`.
    """

    def __init__(self, dim: int, lmem_len: int, num_positions: int):
        self.num_parts = math.gcd(NUM_PARTS, dim)
        super().__init__(dim, 1, lmem_len, num_positions, cost=0.0)

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.value.weight, 2**0.5)
        nn.init.zeros_(self.value.bias)
        nn.init.normal_(self.gate.weight, std=GATE_STD / self.gate.in_features**0.5)
        nn.init.zeros_(self.gate.bias)

    def _opened(
        self, x: Float[Tensor, "R W D"], is_valid: Bool[Tensor, "R W 1"], charge: Tensor | None
    ) -> Float[Tensor, "R W SG"]:
        return steep_sigmoid(GATE_SCALE * self.gate(x) + GATE_BIAS)


def hard_sigmoid(z: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return clip(1.2 sigmoid(z) - .1, 0, 1), with the gradient of 1.2 sigmoid(z) everywhere.

    The hard concrete gate without its noise (Louizos et al. 2018, arXiv 1712.01312), straight
    through: exactly 0 below z = -2.4 and exactly 1 above 2.4, where it can still be learned.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    soft = 1.2 * z.sigmoid() - 0.1
    return soft.detach().clamp(0, 1) + (soft - soft.detach())


def steep_sigmoid(z: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return clip(8 (sigmoid(z) - 1/2) + 1/2, 0, 1), with the gradient of sigmoid(z) everywhere.

    Exactly 0 below z = -.25 and exactly 1 above .25. A jump at 0 would do as well but for rounding:
    where acting and training differ by a bit, a gate must not differ by 1.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    soft = z.sigmoid()
    return (STEEPNESS * (soft.detach() - 0.5) + 0.5).clamp(0, 1) + (soft - soft.detach())


class _Charged(torch.autograd.Function):
    """z as it is, with the gradient of a charge for each open gate.

    Louizos et al. charge the chance that a gate is open, which their noise makes smooth.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, is_valid: Tensor, charge: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        z, is_valid, charge = ctx.saved_tensors
        sigmoid = z.to(torch.promote_types(z.dtype, torch.float32)).sigmoid()
        gate = 1.2 * sigmoid - 0.1
        slope = OPEN_SIZE / (gate.clamp(0, 1) + OPEN_SIZE) ** 2 * (gate > -SHUT_MARGIN)
        push = charge * slope * 1.2 * sigmoid * (1 - sigmoid)
        return grads[0] + torch.where(is_valid, push, 0.0).to(z.dtype), None, None


def _product_of_later(x: Float[Tensor, "B W S"]) -> Float[Tensor, "B W S"]:
    """Return prod_{k > j} x_k for each step j, in log2(W) products: exact where x is 0."""
    product = F.pad(x[:, 1:], (0, 0, 0, 1), value=1.0)
    reach = 1
    while reach < x.shape[1]:
        product = product * F.pad(product[:, reach:], (0, 0, 0, reach), value=1.0)
        reach *= 2
    return product
