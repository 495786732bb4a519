"""Multi-head attention over persistent slots, memories and the segment, with relative positions.

Transformer-XL's relative attention (Dai et al. 2019, arXiv 1901.02860) with learned position
vectors per head; persistent key-value slots (Sukhbaatar et al. 2019, arXiv 1907.01470); one
key-value head for all query heads as an option (Shazeer 2019, arXiv 1911.02150).

Shapes: B envs, T steps, D model width, H heads, G key-value heads (H or 1), K head width,
N persistent slots, J keys (persistent slots, then memories and earlier steps, then the T steps).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.shapes import Bool, Float


def init_uniform(*shape: int, dim: int) -> nn.Parameter:
    """Return a parameter drawn from U(-1/sqrt(dim), 1/sqrt(dim))."""
    bound = dim**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def relative_shift(scores: Float[Tensor, "*N T J"]) -> Float[Tensor, "*N T J"]:
    """Turn scores by position vector into scores by key: out[i, j] = scores[i, j + T - 1 - i].

    The last position vector belongs to distance 0. Entries past the table, which belong to keys
    of later steps, are arbitrary and must be masked.
    """
    *batch, num_steps, num_keys = scores.shape
    flat = F.pad(scores, (0, num_steps)).flatten(-2)
    row = num_keys + num_steps - 1
    start = num_steps - 1
    rows = flat[..., start : start + num_steps * row].reshape(*batch, num_steps, row)
    return rows[..., :num_keys]


class RelativeAttention(nn.Module):
    """Attention of one layer. It gets normalised inputs and returns the projected output."""

    def __init__(
        self,
        dim: int,
        heads: int,
        num_mem_kv: int,
        one_kv_head: bool,
        attn_dropout: float,
        out_dropout: float,
    ):
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.key_value_heads = 1 if one_kv_head else heads
        self.num_mem_kv = num_mem_kv
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * self.key_value_heads * self.head_dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.persistent = init_uniform(num_mem_kv, dim, dim=dim)
        self.attn_dropout = nn.Dropout(attn_dropout)
        self.out_dropout = nn.Dropout(out_dropout)

    def project(self, context: Float[Tensor, "B J D"]) -> Float[Tensor, "2 B G J K"]:
        """Return the keys (index 0) and values (index 1) of `context`."""
        pairs = self.key_value(context).unflatten(-1, (2, self.key_value_heads, self.head_dim))
        return pairs.permute(2, 0, 3, 1, 4)

    def with_persistent(self, context: Float[Tensor, "B J D"]) -> Float[Tensor, "B NJ D"]:
        """Put the persistent slots before `context`."""
        return torch.cat((self.persistent.expand(context.shape[0], -1, -1), context), dim=1)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        key_value: Float[Tensor, "2 B G J K"],
        positions: Float[Tensor, "H C K"],
        mask: Bool[Tensor, "B T J"],
    ) -> Float[Tensor, "B T D"]:
        """Attend from the steps `x` to the keys.

        Args:
            x: the normalised steps; the last T keys are theirs.
            key_value: from `project`; its first N keys are the persistent slots.
            positions: the position vectors of the C = J - N other keys; the last is distance 0.
            mask: True where the step may see the key.
        """
        batch_size, num_steps, dim = x.shape
        query = self.query(x).view(batch_size, num_steps, self.heads, self.head_dim)
        query = query.transpose(1, 2) * self.head_dim**-0.5  # (B, H, T, K)
        keys, values = key_value.unbind(0)
        scores = query @ keys.transpose(-1, -2)  # (B, H, T, J)
        by_position = relative_shift(query @ positions.to(query.dtype).transpose(-1, -2))
        scores = scores + F.pad(by_position, (self.num_mem_kv, 0))
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        weights = self.attn_dropout(scores.softmax(dim=-1))
        mixed = (weights @ values).transpose(1, 2).reshape(batch_size, num_steps, dim)
        return self.out_dropout(self.out(mixed))
