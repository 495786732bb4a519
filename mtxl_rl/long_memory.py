"""The memory network: it rewrites the long-memory slots after every segment.

Linear attention (Shen et al. 2018, arXiv 1812.01243) of the slots over themselves, the short
memory, the segment's layer inputs and persistent slots, `mem_write_iters` times, each time joined
to the slots by an nBRC. Layer inputs enter detached: gradient flows through the slots, from
segment to segment, as in Memory Transformer-XL.

Shapes: B envs, P memory layers, M short-memory length, W segment length, S long-memory slots,
N persistent slots, D model width, H heads, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtxl_rl.attention import init_uniform
from mtxl_rl.gating import NBRCGate
from mtxl_rl.memory import MemoryState
from mtxl_rl.shapes import Bool, Float


def linear_attention(
    query: Float[Tensor, "B H S K"],
    key: Float[Tensor, "B H J K"],
    value: Float[Tensor, "B H J K"],
    mask: Bool[Tensor, "B J"],
) -> Float[Tensor, "B H S K"]:
    """Attend in O(J): softmax over features for queries, over the keys in `mask` for keys."""
    key = key.masked_fill(~mask[:, None, :, None], torch.finfo(key.dtype).min)
    context = key.softmax(dim=-2).transpose(-1, -2) @ value  # (B, H, K, K)
    return query.softmax(dim=-1) @ context


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
    ):
        super().__init__()
        self.heads = heads
        self.mem_write_iters = mem_write_iters
        self.initial_slot = init_uniform(dim, dim=dim)
        self.slot_embedding = init_uniform(lmem_len, dim, dim=dim)
        self.layer_embedding = init_uniform(num_memory_layers, 1, dim, dim=dim)
        self.persistent = init_uniform(num_mem_kv, dim, dim=dim)
        self.query = init_uniform(dim, dim, dim=dim)
        self.key_value = init_uniform(dim, 2 * dim, dim=dim)
        self.out = init_uniform(dim, dim, dim=dim)
        self.gate = NBRCGate(dim)

    def slots(self, state: MemoryState) -> Float[Tensor, "B S D"]:
        """Return the slots of `state`, the learned initial ones where none have been written."""
        return torch.where(state.long_valid[:, None, None], state.long, self.initial_slot)

    def forward(
        self,
        slots: Float[Tensor, "B S D"],
        memories: Float[Tensor, "B P MW D"],
        valid: Bool[Tensor, "B MW"],
    ) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S D"]]:
        """Rewrite the slots.

        Args:
            slots: the slots before the write.
            memories: the short memory and the segment of each memory layer; used detached.
            valid: True where a position belongs to the episode that is alive.

        Returns:
            The new slots, and the mean retention of the gate (1 keeps the slots as they were).
        """
        batch_size, num_layers = memories.shape[:2]
        context = (memories.detach() + self.layer_embedding).flatten(1, 2)  # (B, P * MW, D)
        context = torch.cat((context, self.persistent.expand(batch_size, -1, -1)), dim=1)
        context_keys, context_values = self._project(context)
        always = valid.new_ones(batch_size, max(slots.shape[1], self.persistent.shape[0]))
        mask = torch.cat(
            (
                always[:, : slots.shape[1]],
                valid.repeat(1, num_layers),
                always[:, : self.persistent.shape[0]],
            ),
            dim=1,
        )
        slots = slots + self.slot_embedding
        retentions = []
        for _ in range(self.mem_write_iters):
            normed = F.layer_norm(slots, slots.shape[-1:])
            keys, values = self._project(normed)
            mixed = linear_attention(
                self._split_heads(normed @ self.query),
                torch.cat((keys, context_keys), dim=2),
                torch.cat((values, context_values), dim=2),
                mask,
            )
            mixed = mixed.transpose(1, 2).reshape(slots.shape)
            slots, retention = self.gate.with_retention(mixed @ self.out, slots)
            retentions.append(retention)
        return slots, torch.stack(retentions).mean(dim=0)

    def _split_heads(self, x: Float[Tensor, "B J D"]) -> Float[Tensor, "B H J K"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _project(
        self, x: Float[Tensor, "B J D"]
    ) -> tuple[Float[Tensor, "B H J K"], Float[Tensor, "B H J K"]]:
        keys, values = (x @ self.key_value).chunk(2, dim=-1)
        return self._split_heads(keys), self._split_heads(values)
