"""Initial weights.

Torch's default weights shrink the variance of what passes through a layer to about a third. What a
cue of ten steps ago changes in the output is then 0.4 percent of it, and PPO does not find it; with
orthogonal weights (Saxe et al. 2013, arXiv 1312.6120) it is 7 percent (experiments/LOG.md).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

from mtxl_rl.core.parts.memory_network import MemoryNetwork

GAIN = 2**0.5
"""Of orthogonal weights."""

SHORTEST_WAVE = 4.0
"""Of the sinusoids of timesteps, in steps; the longest is four times their number."""

Layer = TypeVar("Layer", bound=nn.Linear | nn.Conv2d)


def init_orthogonal(layer: Layer, gain: float = GAIN) -> Layer:
    """Draw orthogonal weights and clear the bias; return the layer."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def init_sinusoids(num_steps: int, dim: int, std: float) -> nn.Parameter:
    """Return a vector (dim,) for each of `num_steps` steps, of size `std`.

    Sines and cosines of geometric wavelengths (Vaswani et al. 2017, arXiv 1706.03762): a layer can
    read off them how many steps there were, and turn the vector of one step into that of another,
    so many steps later or as far before a third one.
    """
    num_waves = (dim + 1) // 2
    ratio = num_steps * 4 / SHORTEST_WAVE
    steps, places = (torch.arange(n, dtype=torch.float64) for n in (num_steps, num_waves))
    waves = SHORTEST_WAVE * ratio ** (places / max(num_waves - 1, 1))
    angles = 2 * math.pi * steps[:, None] / waves
    vectors = std * 2**0.5 * torch.cat((angles.sin(), angles.cos()), dim=1)[:, :dim]
    return nn.Parameter(vectors.to(torch.get_default_dtype()).contiguous())


def init_memory_network(long_memory: MemoryNetwork, key_gain: float) -> None:
    """Draw orthogonal projections for the seed's write, with keys `key_gain` times as large.

    Its linear attention averages over all keys with weights exp(key): with small keys one step in
    which a cue is seen is lost among the others (experiments/LOG.md).
    """
    dim = long_memory.query.shape[0]
    keys, values = long_memory.key_value.data.split(dim, dim=1)
    for weights, gain in (
        (long_memory.query.data, GAIN),
        (keys, key_gain * GAIN),
        (values, GAIN),
        (long_memory.out.data, GAIN),
    ):
        weights.copy_(nn.init.orthogonal_(torch.empty_like(weights), gain))
