"""Attention against torch's own, and relative positions against their definition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mtxl_rl.core.parts.attention import RelativeAttention, scores_by_position


def test_scores_by_position_are_of_each_keys_distance() -> None:
    for num_steps, num_keys in ((3, 7), (1, 5), (2, 2), (1, 1)):
        query = torch.randn(2, 5, num_steps, 11)
        positions = torch.randn(5, num_keys, 11)
        scores = scores_by_position(query, positions)
        assert scores.shape == (2, 5, num_steps, num_keys)
        for i in range(num_steps):
            for j in range(num_keys):
                distance = num_keys - num_steps + i - j
                vector = positions[:, -1 - distance] if distance >= 0 else torch.zeros(5, 11)
                assert_close(scores[..., i, j], (query[:, :, i] * vector).sum(dim=-1))


def test_equals_scaled_dot_product_attention_with_a_bias() -> None:
    torch.manual_seed(0)
    batch_size, num_steps, num_past, num_persistent, heads, dim = 2, 3, 5, 1, 4, 8
    attention = RelativeAttention(dim, heads, num_persistent, False, 0.0, 0.0)
    x = torch.randn(batch_size, num_steps, dim)
    context = torch.cat((torch.randn(batch_size, num_past, dim), x), dim=1)
    positions = torch.randn(heads, num_past + num_steps, dim // heads)
    mask = torch.rand(batch_size, num_steps, num_persistent + num_past + num_steps) < 0.7
    mask[..., num_persistent + num_past :] = torch.ones(num_steps, num_steps).tril().bool()
    assert attention.persistent is not None
    persistent = attention.persistent.expand(batch_size, -1, -1)
    key_value = attention.project(torch.cat((persistent, context), dim=1))
    y = attention(x, key_value, positions, mask)

    query = attention.query(x).view(batch_size, num_steps, heads, -1).transpose(1, 2)
    bias = torch.zeros(batch_size, heads, *mask.shape[1:])
    for i in range(num_steps):
        for j in range(num_past + i + 1):
            distance = num_past + i - j
            vector = positions[:, -1 - distance]  # (H, K)
            score = torch.einsum("bhk,hk->bh", query[:, :, i], vector) / (dim // heads) ** 0.5
            bias[:, :, i, num_persistent + j] = score
    bias = bias.masked_fill(~mask[:, None], -torch.inf)
    expected = F.scaled_dot_product_attention(query, *key_value, attn_mask=bias)
    expected = attention.out(expected.transpose(1, 2).reshape(batch_size, num_steps, dim))
    assert_close(y, expected)


def test_one_kv_head_is_shared_by_all_heads() -> None:
    attention = RelativeAttention(12, 3, 2, True, 0.0, 0.0)
    key_value = attention.project(torch.randn(5, 7, 12))
    assert key_value.shape == (2, 5, 1, 7, 4)
    assert attention.key_value.out_features == 2 * 4
