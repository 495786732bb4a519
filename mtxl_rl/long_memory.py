"""The memory network: it rewrites the long-memory slots after every segment.

Linear attention (Shen et al. 2018, arXiv 1812.01243) of the slots over themselves, the short
memory, the segment's layer inputs and persistent slots, `mem_write_iters` times, each time joined
to the slots by an nBRC. Layer inputs enter detached: gradient flows through the slots, from
segment to segment, as in Memory Transformer-XL. A write sees a set of layer inputs; with a vector
for each place it sees in which order they came, too (not in Memory Transformer-XL). Places are
counted from the oldest position that is valid: at which step of a segment an episode began does not
matter to a write that reaches back to its first step.

Vectors tell the slots apart. Memory Transformer-XL adds them to the slots at every write, so that
slots drift that the gate keeps; where writes hold, the vectors are part of the initial slots and
enter the attention of a write only, and a gate of retention 1 leaves the slots as they are.

Shapes: B envs, P memory layers, M short-memory length, W segment length, S long-memory slots,
N persistent slots, D model width, H heads, K head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.attention import init_uniform
from mtxl_rl.gating import NBRCGate
from mtxl_rl.memory import MemoryState
from mtxl_rl.shapes import Bool, Float


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


class LongMemory(nn.Module):
    """The learned initial slots and the network that writes the slots."""

    def __init__(
        self,
        dim: int,
        heads: int,
        num_memory_layers: int,
        lmem_len: int,
        num_mem_kv: int,
        mem_write_iters: int,
        num_positions: int = 0,
        holds: bool = False,
    ):
        super().__init__()
        self.heads = heads
        self.mem_write_iters = mem_write_iters
        self.holds = holds
        self.initial_slot = init_uniform(dim, dim=dim)
        self.slot_embedding = init_uniform(lmem_len, dim, dim=dim)
        self.layer_embedding = init_uniform(num_memory_layers, 1, dim, dim=dim)
        self.position_embedding = (
            init_uniform(num_positions, dim, dim=dim) if num_positions else None
        )
        self.persistent = init_uniform(num_mem_kv, dim, dim=dim)
        self.query = init_uniform(dim, dim, dim=dim)
        self.key_value = init_uniform(dim, 2 * dim, dim=dim)
        self.out = init_uniform(dim, dim, dim=dim)
        self.gate = NBRCGate(dim)

    def slots(self, state: MemoryState) -> Float[Tensor, "B S D"]:
        """Return the slots of `state`, the learned initial ones where none have been written."""
        initial = self.initial_slot + self.slot_embedding if self.holds else self.initial_slot
        return torch.where(state.long_valid[:, None, None], state.long, initial)

    def project(self, hidden: Float[Tensor, "B P J D"]) -> Float[Tensor, "2 B P J D"]:
        """Return keys and values of layer inputs, which are used detached."""
        return self._key_value(hidden.detach() + self.layer_embedding)

    def forward(
        self,
        slots: Float[Tensor, "B S D"],
        context: Float[Tensor, "2 B P MW D"],
        valid: Bool[Tensor, "B MW"],
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S D"]]:
        """Rewrite the slots.

        Args:
            slots: the slots before the write.
            context: from `project`, of the short memory and the segment of each memory layer.
            valid: True where a position belongs to the episode that is alive.

        Returns:
            The new slots, and the mean retention of the gate (1 keeps the slots as they were).
        """
        if self.position_embedding is not None:
            place = (valid.long().cumsum(dim=1) - 1).clamp_min(0)
            vectors = self._key_value(self.position_embedding)
            # not in bfloat16: the gradient of each vector is a sum over all envs
            vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
            context = context + vectors[:, place][:, :, None].to(context.dtype)
        keys, values = (self._split_heads(pair) for pair in context.flatten(2, 3))
        summary = KeySummary.of(keys, values, valid.repeat(1, context.shape[2]))
        if len(self.persistent):
            summary += self._summarise(self.persistent.expand(len(slots), -1, -1))
        if not self.holds:
            slots = slots + self.slot_embedding
        retentions = []
        for _ in range(self.mem_write_iters):
            named = slots + self.slot_embedding if self.holds else slots
            normed = F.layer_norm(named, slots.shape[-1:])
            seen = summary + self._summarise(normed)
            mixed = seen.attend(self._split_heads(normed @ self.query))
            mixed = mixed.transpose(1, 2).reshape(slots.shape)
            slots, retention = self.gate.with_retention(mixed @ self.out, slots)
            retentions.append(retention)
        return slots, torch.stack(retentions).mean(dim=0)

    def _key_value(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "2 *B D"]:
        return (x @ self.key_value).unflatten(-1, (2, -1)).movedim(-2, 0)

    def _split_heads(self, x: Float[Tensor, "B J D"]) -> Float[Tensor, "B H J K"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _summarise(self, x: Float[Tensor, "B J D"]) -> KeySummary:
        keys, values = self._key_value(x)
        return KeySummary.of(self._split_heads(keys), self._split_heads(values))
