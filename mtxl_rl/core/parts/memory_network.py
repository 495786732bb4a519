"""The seed's write: the memory network of Memory Transformer-XL.

Linear attention (Shen et al. 2018, arXiv 1812.01243) of the slots over themselves, the short
memory, the segment's layer inputs and persistent slots, `mem_write_iters` times, each time joined
to the slots by an nBRC. Layer inputs enter detached: gradient flows through the slots, from
segment to segment. A write sees a set of layer inputs, not their order, and adds to the slots the
vectors that tell them apart: slots that the gate keeps drift, so that what they hold is lost over
many writes (experiments/LOG.md). `long_memory.GatedWrite` is the write that holds.

Shapes: B envs, P memory layers, M short-memory length, W segment length, S long-memory slots,
N persistent slots, D model width, H heads, K head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.core.parts.attention import init_uniform
from mtxl_rl.core.parts.gating import NBRCGate
from mtxl_rl.core.shapes import Bool, Float


class KeySummary(NamedTuple):
    """What linear attention needs of some keys; summaries of parts add up to that of the whole.

    The softmax over the keys is kept as weights exp(key - peak) and their sum.
    """

    peak: Float[Tensor, "B H 1 K"]
    total: Float[Tensor, "B H 1 K"]  # sum of the weights over the keys
    mixed: Float[Tensor, "B H K V"]  # weights times values

    @classmethod
    def of(
        cls,
        key: Float[Tensor, "B H J K"],
        value: Float[Tensor, "B H J V"],
        mask: Bool[Tensor, "B J"] | None = None,
    ) -> KeySummary:
        """Summarise the keys in `mask`."""
        key = key.to(torch.promote_types(key.dtype, torch.float32))
        if mask is not None:
            key = key.masked_fill(~mask[:, None, :, None], torch.finfo(key.dtype).min)
        peak = key.detach().amax(dim=-2, keepdim=True)
        weights = (key - peak).exp()
        total = weights.sum(dim=-2, keepdim=True)
        return cls(peak, total, weights.to(value.dtype).transpose(-1, -2) @ value)

    def __add__(self, other: KeySummary) -> KeySummary:  # type: ignore[override]
        peak = torch.maximum(self.peak, other.peak)
        mine, others = (self.peak - peak).exp(), (other.peak - peak).exp()
        return KeySummary(
            peak,
            self.total * mine + other.total * others,
            self.mixed * mine.transpose(-1, -2) + other.mixed * others.transpose(-1, -2),
        )

    def attend(self, query: Float[Tensor, "B H S K"]) -> Float[Tensor, "B H S V"]:
        """Return softmax(query) over features times softmax(keys) over the keys times values."""
        context = self.mixed / self.total.transpose(-1, -2)
        return query.softmax(dim=-1) @ context.to(query.dtype)


class MemoryNetwork(nn.Module):
    """The learned initial slots and the network that rewrites the slots."""

    def __init__(
        self,
        dim: int,
        heads: int,
        num_memory_layers: int,
        lmem_len: int,
        num_mem_kv: int,
        mem_write_iters: int,
    ):
        super().__init__()
        self.heads = heads
        self.mem_write_iters = mem_write_iters
        self.initial_slot = init_uniform(dim, dim=dim)
        self.slot_embedding = init_uniform(lmem_len, dim, dim=dim)
        self.layer_embedding = init_uniform(num_memory_layers, 1, dim, dim=dim)
        self.persistent = init_uniform(num_mem_kv, dim, dim=dim) if num_mem_kv else None
        self.query = init_uniform(dim, dim, dim=dim)
        self.key_value = init_uniform(dim, 2 * dim, dim=dim)
        self.out = init_uniform(dim, dim, dim=dim)
        self.gate = NBRCGate(dim)

    def forward(
        self,
        slots: Float[Tensor, "B S D"],
        hidden: Float[Tensor, "B P W D"],
        valid: Bool[Tensor, "B MW"],
        short: Float[Tensor, "B P M D"],
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S D"]]:
        """Rewrite the slots.

        Args:
            slots: before the write.
            hidden: inputs of each memory layer in the segment; they are used detached.
            valid: True where a step of short memory or segment belongs to the episode that is
                alive.
            short: the short memory before the segment.

        Returns:
            The new slots, and the gate's retention (1 keeps the slots as they were).
        """
        pair = self._project(torch.cat((short, hidden), dim=2))  # (2, B, P, MW, D)
        seen = torch.where(valid[:, None, :, None], pair, 0.0)  # a NaN times weight 0 is a NaN
        keys, values = (self._split_heads(part) for part in seen.flatten(2, 3))
        summary = KeySummary.of(keys, values, valid.repeat(1, pair.shape[2]))
        if self.persistent is not None:
            summary += self._summarise(self.persistent.expand(slots.shape[0], -1, -1))
        slots = slots + self.slot_embedding
        retentions = []
        for _ in range(self.mem_write_iters):
            normed = F.layer_norm(slots, slots.shape[-1:])
            seen_now = summary + self._summarise(normed)
            mixed = seen_now.attend(self._split_heads(normed @ self.query))
            mixed = mixed.transpose(1, 2).reshape(slots.shape)
            slots, retention = self.gate.with_retention(mixed @ self.out, slots)
            retentions.append(retention)
        return slots, torch.stack(retentions).mean(dim=0)

    def _project(self, hidden: Float[Tensor, "B P J D"]) -> Float[Tensor, "2 B P J D"]:
        """Return keys and values of layer inputs, which are used detached."""
        hidden = torch.nan_to_num(hidden.detach(), posinf=0.0, neginf=0.0)
        return self._key_value(hidden + self.layer_embedding)

    def _key_value(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "2 *B D"]:
        return (x @ self.key_value).unflatten(-1, (2, -1)).movedim(-2, 0)

    def _split_heads(self, x: Float[Tensor, "B J D"]) -> Float[Tensor, "B H J K"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _summarise(self, x: Float[Tensor, "B J D"]) -> KeySummary:
        keys, values = self._key_value(x)
        return KeySummary.of(self._split_heads(keys), self._split_heads(values))
