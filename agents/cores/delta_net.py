"""Gated DeltaNet (Yang et al. 2024, arXiv 2412.06464): a matrix of each head as memory.

S_t = alpha_t S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T and o_t = S_t q_t: what the key k_t
recalls is replaced by v_t, all else decays by alpha_t. Kept here is the transpose of S (K, V).

Deviations: no short convolution before q, k and v (one observation holds what belongs together);
keys and values are both as wide as a head; heads start with time constants spread over 10 to 10,000
steps, whatever the input (at the authors' start, that of Mamba-2, most forget within tens of
steps).

Shapes: B envs, T steps, H heads, K key width, V value width, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents.cores.baseline_cores import Recurrence, ResidualCore
from agents.cores.core_config import LayeredConfig
from mtxl_rl.core.checks import check_heads

MIN_TIME_CONSTANT, MAX_TIME_CONSTANT = 10.0, 10_000.0
"""Steps after which a head has forgotten all but 1/e, at the start."""
NORM_EPS = 1e-2
"""In the authors' code 1e-5, which blows up what little a query recalls, with the rounding errors
of bfloat16."""

CHUNK_LEN = 16
"""Steps of a chunk: at heads of 16 and 32 faster than 8, 32 and 64."""


class DeltaNet(Recurrence):
    """One layer, cleared where an episode starts.

    Raises:
        ValueError: for a number of heads that does not divide the width.
    """

    def __init__(self, dim: int, heads: int):
        if heads < 1:
            raise ValueError(f"heads={heads} must be 1 or more; set --core.heads")
        check_heads(dim, heads)
        head_dim = dim // heads
        super().__init__((heads, head_dim, head_dim))
        self.heads = heads
        self.query, self.key, self.value, self.gate, self.out = (
            nn.Linear(dim, dim, bias=False) for _ in range(5)
        )
        self.write = nn.Linear(dim, heads)
        # no nn.Linear, whose weights start large: the time constants are to start as they are set
        self.decay_weight = nn.Parameter(torch.zeros(heads, dim))
        self.decay_bias = nn.Parameter(_inverse_softplus(1 / spread_time_constants(heads)))
        self.norm = nn.RMSNorm(head_dim, eps=NORM_EPS)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        state: Float[Tensor, "B H K V"],
        reset: Bool[Tensor, "B T"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B H K V"]]:
        query, key, value = (
            F.silu(layer(x)).float().unflatten(-1, (self.heads, -1))  # (B, T, H, K)
            for layer in (self.query, self.key, self.value)
        )
        outputs, state = gated_delta_rule(
            F.normalize(query, dim=-1),
            F.normalize(key, dim=-1),
            value,
            self.decay(x).float(),
            self.write(x).float().sigmoid(),
            state,
            reset,
        )
        y = self.norm(outputs.to(self.norm.weight.dtype)).flatten(-2) * F.silu(self.gate(x))
        return self.out(y), state

    def decay(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N H"]:
        """Return alpha, the share of the memory that a step keeps."""
        change = F.linear(x, self.decay_weight).float()  # the bias is too exact for bfloat16
        return torch.exp(-F.softplus(change + self.decay_bias))


def gated_delta_rule(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    alpha: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H K V"],
    reset: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """Return what the queries recall, and the memory after the last step.

    By chunks on a CPU, where that is twice as fast. What is not finite would pass through a reset
    there (its products with 0 are not 0): if anything is not, all is done anew step by step.
    """
    if query.device.type == "cpu" and query.shape[1] > 1:
        with torch.autocast("cpu", enabled=False):
            outputs, last = delta_rule_by_chunks(query, key, value, alpha, beta, state, reset)
        if (outputs.sum() + last.sum()).isfinite():
            return outputs, last
    return delta_rule_by_steps(query, key, value, alpha, beta, state, reset)


def delta_rule_by_steps(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    alpha: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H K V"],
    reset: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """Do what `gated_delta_rule` does as its equation says."""
    beta_value = beta[..., None] * value
    beta_key = beta[..., None] * key
    outputs = []
    for query_t, key_t, beta_key_t, beta_value_t, alpha_t, reset_t in zip(
        *(each.unbind(dim=1) for each in (query, key, beta_key, beta_value, alpha, reset)),
        strict=True,
    ):
        # cleared before it decays: the gradient of alpha would not be finite if the state is not
        state = torch.where(reset_t[:, None, None, None], 0.0, state)
        decayed = alpha_t[..., None, None] * state
        change = beta_value_t - (beta_key_t[..., None] * decayed).sum(dim=-2)  # (B, H, V)
        state = decayed + key_t[..., None] * change[..., None, :]
        # sums of products, not torch.matmul, which autocast would round
        outputs.append((query_t[..., None] * state).sum(dim=-2))
    return torch.stack(outputs, dim=1), state


def delta_rule_by_chunks(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B T H K"],
    value: Float[Tensor, "B T H V"],
    alpha: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H K V"],
    reset: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    """Do what `gated_delta_rule` does by matrix products over chunks, where all is finite.

    The changes u of a chunk's steps depend on each other linearly: one triangular system gives all
    of them (section 3.3 of the paper; W and U as there, M is what `recent` holds).
    """
    num_steps = query.shape[1]

    def chunks(tensor: Tensor) -> Tensor:  # (B, T, ...) -> (B, H or 1, chunks, steps, ...)
        padding = [0, 0] * (tensor.dim() - 2) + [0, -num_steps % CHUNK_LEN]
        padded = F.pad(tensor, padding).unflatten(1, (-1, CHUNK_LEN))
        return padded.movedim(3, 1) if tensor.dim() > 2 else padded[:, None]

    log_alpha = torch.where(reset[..., None], 0.0, alpha.clamp_min(1e-30).log())
    kept = chunks(log_alpha).cumsum(dim=-1)  # its logarithm, from the chunk's start
    episode = chunks(reset).cumsum(dim=-1)
    query, key, value, beta = (chunks(x) for x in (query, key, value, beta[..., None]))
    is_recent = (episode[..., :, None] == episode[..., None, :]).tril()
    recent = torch.where(is_recent, kept[..., :, None] - kept[..., None, :], -math.inf).exp()
    kept = torch.where(episode == 0, kept.exp(), 0.0)[..., None]  # of the state before the chunk

    key_t = key.transpose(-1, -2)
    system = beta * (key @ key_t) * recent  # only what is below its diagonal is read
    right = torch.cat((beta * value, beta * kept * key), dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    u_alone, w = solved.split((value.shape[-1], key.shape[-1]), dim=-1)
    parts = (u_alone, w, kept * query, query @ key_t * recent, key * recent[..., -1, :, None], kept)
    outputs = []
    for u_alone, w, old_query, new_query, kept_key, kept in zip(
        *(part.unbind(dim=2) for part in parts), strict=True
    ):
        u = u_alone - w @ state
        outputs.append(old_query @ state + new_query @ u)
        state = kept[..., -1:, :] * state + kept_key.transpose(-1, -2) @ u
    y = torch.stack(outputs, dim=2).flatten(2, 3)  # (B, H, steps, V)
    return y.transpose(1, 2)[:, :num_steps], state


def spread_time_constants(heads: int) -> Float[Tensor, " H"]:
    """Return time constants in steps at equal distances of their logarithms."""
    first, last = math.log10(MIN_TIME_CONSTANT), math.log10(MAX_TIME_CONSTANT)
    return torch.logspace(first, last, heads) if heads > 1 else torch.tensor([10**2.5])


def _inverse_softplus(y: Tensor) -> Tensor:
    return torch.log(torch.expm1(y))


@dataclass(frozen=True, kw_only=True)
class DeltaNetConfig(LayeredConfig):
    """A stack of Gated DeltaNets."""

    kind: str = "deltanet"
    heads: int = 4
    """Matrices that a layer keeps; must divide dim."""


class DeltaNetCore(ResidualCore):
    """A stack of Gated DeltaNets."""

    Config = DeltaNetConfig

    def __init__(self, config: DeltaNetConfig):
        layers = [DeltaNet(config.dim, config.heads) for _ in range(config.depth)]
        super().__init__(config.dim, layers)
