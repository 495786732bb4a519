"""A layer: attention over memories and steps, and a feed-forward, each joined to its input.

Shapes: B envs, T steps, E earlier steps of the segment, n segments, R = B n rows, M short-memory
length, S long-memory slots, D model width, H heads, G key-value heads, J keys, C of them with a
position, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtxl_rl.core.parts.attention import RelativeAttention
from mtxl_rl.core.parts.feed_forward import FeedForward
from mtxl_rl.core.shapes import Bool, Float, Int64


class Layer(nn.Module):
    """Attention and feed-forward, each pre-normed and joined to its input by a gate."""

    def __init__(
        self, attention: RelativeAttention, feed_forward: FeedForward, gates: list[nn.Module]
    ):
        super().__init__()
        dim = attention.out.out_features
        self.attn_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.attn_gate, self.ff_gate = gates
        self.ff_norm = nn.LayerNorm(dim)
        self.feed_forward = feed_forward

    def key_value(self, inputs: Float[Tensor, "B J D"]) -> Float[Tensor, "2 B G J K"]:
        """Return keys and values of raw layer inputs."""
        return self.attention.project(self._normed(inputs))

    def forward(
        self,
        x: Float[Tensor, "R T D"],
        past: Float[Tensor, "R E D"] | None,
        long: Float[Tensor, "R S D"] | None,
        short: Float[Tensor, "B M D"] | None,
        positions: Float[Tensor, "H C K"],
        mask: Bool[Tensor, "R T J"],
        order: Int64[Tensor, " W"] | None = None,
    ) -> Float[Tensor, "R T D"]:
        """Run n segments of each env, or a piece of one.

        Args:
            x: the steps of each segment; envs vary slowest.
            past: the steps of the segment before them.
            long: the slots at each segment's start.
            short: the short memory of each env at the first segment's start; later segments see
                the steps before them, without a gradient.
            positions: of the keys, as the last step sees them.
            mask: True where a step may see a key.
            order: which of the E + T steps there are keys of, one by one; None: of all.
        """
        pairs = self.attention.persistent_key_value(x.shape[0])
        if short is not None and short.shape[0] < x.shape[0]:  # what many segments see overlaps
            if long is not None:
                pairs.append(self.key_value(long))
            pairs.append(self._short_key_value(x, short))
            long = short = None
        memories = [memory for memory in (long, short) if memory is not None]
        before = memories if past is None else [*memories, past]
        normed = self._normed(torch.cat((*before, x), dim=1) if before else x)
        context = normed
        if order is not None:
            num_memories = sum(memory.shape[1] for memory in memories)
            steps = normed[:, num_memories:].index_select(1, order)
            context = torch.cat((normed[:, :num_memories], steps), dim=1)
        pairs.append(self.attention.project(context))
        key_value = torch.cat(pairs, dim=3) if len(pairs) > 1 else pairs[0]
        steps = normed[:, normed.shape[1] - x.shape[1] :]
        return self._join(x, self.attention(steps, key_value, positions, mask))

    def step(
        self,
        x: Float[Tensor, "B 1 D"],
        key_value: Float[Tensor, "2 B G J K"],
        place: Int64[Tensor, " 1"],
        positions: Float[Tensor, "H C K"],
        mask: Bool[Tensor, "B 1 J"],
    ) -> Float[Tensor, "B 1 D"]:
        """Run one step, which writes its key and value to `key_value` at `place`."""
        normed = self._normed(x)
        key_value.index_copy_(3, place, self.attention.project(normed))
        return self._join(x, self.attention(normed, key_value, positions, mask))

    def _short_key_value(self, x: Tensor, short: Tensor) -> Float[Tensor, "2 R G M K"]:
        """Return keys and values of the M steps before each segment."""
        (num_envs, mem_len, _), num_steps = short.shape, x.shape[1]
        num_segments = x.shape[0] // num_envs
        steps = x.detach().view(num_envs, num_segments * num_steps, x.shape[2])
        earlier = steps[:, :-num_steps]
        pair = self.key_value(torch.cat((short, earlier.to(short.dtype)), dim=1))
        # not by unfold, whose backward pass Inductor of torch 2.13 gets wrong on several threads
        starts = range(0, earlier.shape[1] + num_steps, num_steps)
        windows = [pair[..., start : start + mem_len, :] for start in starts]
        return torch.stack(windows, dim=2).flatten(1, 2)

    def _normed(self, x: Tensor) -> Tensor:
        """Return what queries, keys and values are made of: 0 where it would not be finite.

        A weight of 0 does not hide a NaN from steps before it or of another episode: 0 x NaN is
        NaN. The output of a step that is not finite is not finite, by the gate.
        """
        return torch.nan_to_num(self.attn_norm(x), nan=0.0, posinf=0.0, neginf=0.0)

    def _join(self, x: Tensor, attended: Tensor) -> Tensor:
        rows = self.attn_gate(attended.flatten(0, 1), x.flatten(0, 1))
        return self.ff_gate(self.feed_forward(self.ff_norm(rows)), rows).view(x.shape)
