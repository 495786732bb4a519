"""From observation, previous action and previous reward to the core's input.

Shapes: *N leading axes (B, or B T), E width of the features.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from gymnasium import spaces
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from agents.initialization import init_orthogonal, small_embedding

SYMBOL_DIM = 16
"""Width of the embedding of one word."""

MAX_SCALE = 10.0
"""Largest factor by which a rare symbol is scaled up."""


def symlog(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Compress magnitudes: sign(x) log(1 + |x|) (Hafner et al. 2023, arXiv 2301.04104)."""
    return x.sign() * x.abs().log1p()


class GridEncoder(nn.Module):
    """A grid of symbols (rows, columns, channels), as MiniGrid's: an embedding for each place.

    The embedding is a linear layer on indicators (this symbol, at this place), standardised by
    their running mean and deviation (observation normalisation, arXiv 2006.05990): what is always
    the same says nothing, and a rare object in one cell of 49 changes more than a common wall. What
    has never been seen enters scaled by MAX_SCALE, with weights that nothing has trained.
    """

    offsets: Tensor
    mean: Tensor
    num_observed: Tensor

    def __init__(self, space: spaces.MultiDiscrete, dim: int):
        super().__init__()
        rows, columns, num_channels = space.shape
        num_symbols = space.nvec.reshape(-1, num_channels).max(axis=0)
        sizes = torch.tensor(num_symbols)
        starts = F.pad(sizes.cumsum(0), (1, 0))  # of each channel's symbols, then their number
        cell_starts = torch.arange(rows * columns)[:, None] * starts[-1]
        self.register_buffer("offsets", (cell_starts + starts[:-1]).flatten(), persistent=False)
        # before anything is observed, every symbol of a channel is as frequent
        frequency = (1 / sizes.float()).repeat_interleave(sizes, output_size=int(num_symbols.sum()))
        self.register_buffer("mean", frequency.repeat(rows * columns))
        self.register_buffer("num_observed", torch.ones(()))
        self.weight = nn.Parameter(torch.empty(dim, len(self.mean)))
        nn.init.orthogonal_(self.weight)

    def forward(self, grid: Shaped[Tensor, "*N R C channels"]) -> Float[Tensor, "*N E"]:
        symbols = self._symbols(grid)
        # a product with indicators: on a GPU and on a CPU its gradient is quicker than a look-up's
        indicators = torch.zeros(
            *symbols.shape[:-1], len(self.mean), dtype=self.weight.dtype, device=grid.device
        ).scatter_(-1, symbols, 1.0)
        deviation = (self.mean * (1 - self.mean)).sqrt().clamp_min(1 / MAX_SCALE)
        weight = self.weight / deviation
        return F.linear(indicators, weight, -(weight @ self.mean))

    @torch.no_grad()
    def observe_(self, grid: Shaped[Tensor, "*N R C channels"]) -> None:
        """Take grids into the running mean."""
        symbols = self._symbols(grid)
        num_grids = symbols.numel() // symbols.shape[-1]
        counts = torch.zeros_like(self.mean)
        ones = torch.ones_like(symbols, dtype=counts.dtype)
        counts.index_add_(0, symbols.flatten(), ones.flatten())
        self.num_observed += num_grids
        self.mean += (counts / num_grids - self.mean) * (num_grids / self.num_observed)

    def _symbols(self, grid: Tensor) -> Int64[Tensor, "*N cells_channels"]:
        return grid.flatten(-3).long() + self.offsets


class SequenceEncoder(nn.Module):
    """A sequence of symbols, such as the words of a text; 0 is padding."""

    def __init__(self, space: spaces.MultiDiscrete, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(int(space.nvec.max()), SYMBOL_DIM)
        self.position = nn.Parameter(torch.randn(len(space.nvec), SYMBOL_DIM))
        self.mix = nn.Linear(SYMBOL_DIM, dim)
        self.projection = nn.Linear(dim, dim)

    def forward(self, symbols: Shaped[Tensor, "*N length"]) -> Float[Tensor, "*N E"]:
        features = self.mix(self.embedding(symbols) * (1 + self.position)).relu()
        is_word = (symbols != 0).unsqueeze(-1)
        return self.projection((features * is_word).sum(dim=-2))


class PixelEncoder(nn.Module):
    """A uint8 image, channels first or last: convolutions of stride 2 down to 8 pixels."""

    def __init__(self, space: spaces.Box, dim: int):
        super().__init__()
        self.channels_first = space.shape[0] in (1, 3, 4) and space.shape[2] not in (1, 3, 4)
        shape = space.shape if self.channels_first else (space.shape[2], *space.shape[:2])
        layers: list[nn.Module] = []
        num_channels, side = shape[0], max(shape[1:])
        for width in (32, 64, 64, 64, 64, 64):
            if side <= 8:
                break
            layers += [nn.Conv2d(num_channels, width, 3, stride=2, padding=1), nn.ReLU()]
            num_channels, side = width, (side + 1) // 2
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        num_features = self.convolutions(torch.zeros(1, *shape)).shape[1]
        self.projection = nn.Linear(num_features, dim)

    def forward(self, image: Shaped[Tensor, "*N X Y Z"]) -> Float[Tensor, "*N E"]:
        flat = image.reshape(-1, *image.shape[-3:])
        flat = flat if self.channels_first else flat.movedim(-1, 1)
        features = self.projection(self.convolutions(flat.float() / 255 - 0.5))
        return features.unflatten(0, image.shape[:-3])


class VectorEncoder(nn.Module):
    """A Box of any shape and range: symlog, then one layer."""

    def __init__(self, space: spaces.Box, dim: int):
        super().__init__()
        self.num_axes = len(space.shape)
        self.projection = nn.Linear(math.prod(space.shape), dim)

    def forward(self, vector: Float[Tensor, "*N"]) -> Float[Tensor, "*M E"]:
        if self.num_axes == 0:
            vector = vector.unsqueeze(-1)
        elif self.num_axes > 1:
            vector = vector.flatten(-self.num_axes)
        return self.projection(symlog(vector))


def _field_encoder(name: str, space: spaces.Space, dim: int) -> nn.Module:
    if isinstance(space, spaces.Discrete):
        return small_embedding(int(space.n), dim)
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 3:
        return GridEncoder(space, dim)
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        return SequenceEncoder(space, dim)
    if isinstance(space, spaces.Box):
        is_image = str(space.dtype) == "uint8" and len(space.shape) == 3
        return PixelEncoder(space, dim) if is_image else VectorEncoder(space, dim)
    raise ValueError(
        f"observation {name!r} has space {space}, which is not supported; use Box, Discrete or "
        "MultiDiscrete (of one or three axes)"
    )


class Encoder(nn.Module):
    """Sums the features of every part of the observation, the previous action and reward.

    Args:
        space: a flat Dict of Box, Discrete and MultiDiscrete spaces.
        dim: width E of the features.

    Raises:
        ValueError: for a space that cannot be encoded.
    """

    def __init__(self, space: spaces.Dict, dim: int):
        super().__init__()
        self.names = list(space.spaces)
        self.fields = nn.ModuleList(
            _field_encoder(name, field, dim) for name, field in space.spaces.items()
        )
        self.reward = nn.Linear(1, dim)
        self.out = nn.Sequential(nn.LayerNorm(dim), nn.GELU(), init_orthogonal(nn.Linear(dim, dim)))

    def forward(
        self,
        observation: dict[str, Tensor],
        prev_action: Float[Tensor, "*N E"],
        prev_reward: Float[Tensor, "*N"],
    ) -> Float[Tensor, "*N E"]:
        """Encode; `prev_action` is already embedded."""
        features = prev_action + self.reward(symlog(prev_reward).unsqueeze(-1))
        for name, encoder in zip(self.names, self.fields, strict=True):
            features = features + encoder(observation[name])
        return self.out(features)

    def observe_(self, observation: dict[str, Tensor]) -> None:
        """Take observations into the running statistics; `forward` is another function then."""
        for name, encoder in zip(self.names, self.fields, strict=True):
            if isinstance(encoder, GridEncoder):
                encoder.observe_(observation[name])
