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

from mtxl_rl.core.shapes import Bool, Float


def init_uniform(*shape: int, dim: int) -> nn.Parameter:
    """Return a parameter drawn from U(-1/sqrt(dim), 1/sqrt(dim))."""
    bound = dim**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def init_normal(*shape: int, std: float) -> nn.Parameter:
    """Return a parameter drawn from normal(0, std^2)."""
    return nn.Parameter(torch.empty(shape).normal_(std=std))


def scores_by_position(
    query: Float[Tensor, "B H T K"], positions: Float[Tensor, "H C K"]
) -> Float[Tensor, "B H T C"]:
    """Return the product of each step's query with the position vector of each key's distance.

    The T steps are the last of the C keys: out[i, j] = query[i] . positions[j + T - 1 - i]. The
    last position vector belongs to distance 0; keys of later steps get 0.
    """
    batch_size, heads, num_steps, head_dim = query.shape
    num_keys = positions.shape[1]
    table = F.pad(positions, (0, 0, 0, num_steps - 1)).to(query.dtype)  # (H, C + T - 1, K)
    rows = query.transpose(0, 1).reshape(heads, batch_size * num_steps, head_dim)
    scores = rows @ table.transpose(1, 2)  # (H, B * T, C + T - 1)
    # Row i must move T - 1 - i places to the left: a view with rows that are shorter by one.
    width = num_keys + num_steps - 1
    return scores.as_strided(
        size=(batch_size, heads, num_steps, num_keys),
        stride=(num_steps * width, batch_size * num_steps * width, max(width - 1, 1), 1),
        storage_offset=num_steps - 1,
    )


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
        self.persistent = init_uniform(num_mem_kv, dim, dim=dim) if num_mem_kv else None
        self.attn_dropout = nn.Dropout(attn_dropout)
        self.out_dropout = nn.Dropout(out_dropout)

    def project(self, context: Float[Tensor, "B J D"]) -> Float[Tensor, "2 B G J K"]:
        """Return the keys (index 0) and values (index 1) of `context`."""
        pairs = self.key_value(context).unflatten(-1, (2, self.key_value_heads, self.head_dim))
        return pairs.permute(2, 0, 3, 1, 4)

    def persistent_key_value(self, batch_size: int) -> list[Float[Tensor, "2 B G N K"]]:
        """Return the keys and values of the persistent slots, where there are any."""
        if self.persistent is None:
            return []
        return [self.project(self.persistent[None]).expand(-1, batch_size, -1, -1, -1)]

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        key_value: Float[Tensor, "2 B G J K"],
        positions: Float[Tensor, "H C K"],
        mask: Bool[Tensor, "B T J"],
    ) -> Float[Tensor, "B T D"]:
        """Attend from the steps `x` to the keys.

        Args:
            x: the normalised steps.
            key_value: from `project`; its first N keys are the persistent slots.
            positions: the vectors of the C = J - N other keys, as the last of the steps sees them;
                the step before it sees each key one vector further on, and so on.
            mask: True where the step may see the key.
        """
        keys, values = key_value.unbind()
        weights = self._weights(x, keys, positions, mask)
        return self._output(self.attn_dropout(weights).to(values.dtype) @ values)

    def weights(
        self,
        x: Float[Tensor, "B T D"],
        key_value: Float[Tensor, "2 B G J K"],
        positions: Float[Tensor, "H C K"],
        mask: Bool[Tensor, "B T J"],
    ) -> Float[Tensor, "B H T J"]:
        """Return the weights by which `forward` mixes the values, before dropout."""
        return self._weights(x, key_value[0], positions, mask)

    def _weights(self, x: Tensor, keys: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        query = self._queries(x)  # (B, H, T, K)
        scores = query @ keys.transpose(-1, -2)  # (B, H, T, J)
        by_position = scores_by_position(query, positions)
        if self.num_mem_kv:  # persistent slots have no position
            by_position = F.pad(by_position, (self.num_mem_kv, 0))
        scores = scores + by_position
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))

    def _queries(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T K"]:
        query = self.query(x).unflatten(-1, (self.heads, self.head_dim))
        return query.transpose(1, 2) * self.head_dim**-0.5

    def _output(self, mixed: Float[Tensor, "B H T K"]) -> Float[Tensor, "B T D"]:
        return self.out_dropout(self.out(mixed.transpose(1, 2).flatten(2)))
