"""What reads one part of an observation, by its space.

Shapes: *N leading axes (B, or B T), E width of the features.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from agents import ranks
from agents.cores.initialization import small_embedding
from agents.spaces import space_words
from mtxl_rl.core.parts.initialization import init_orthogonal

SYMBOL_DIM = 16
"""Width of the embedding of one word."""

MAX_SCALE = 10.0
"""Largest factor by which a rare symbol is scaled up."""

PRESENCE_GAIN = 10.0
"""How much louder than a place it is at the start that a symbol is in a grid at all."""

MAX_PRESENCE_SCALE = 3.0
"""Largest factor by which a symbol that is hardly ever in a grid is scaled up."""

COUNTED_AT_ONCE = 2**22
"""Indicators of presence, to bound the memory that counting takes."""

MAX_INDICATORS = 2**15
"""A grid with more symbols, over all of its places, is read by convolutions."""

MAX_VECTOR_INDICATORS = 2**13
"""A vector with more symbols, over all of its places, is read as a sequence: a text has 22,624."""

MIN_SIDE = 8
"""Shortest side of a picture of numbers other than bytes."""

MIN_GREY_SIDE = 28
"""Shortest side of a picture without an axis of channels."""

GOLDEN_RATIO = (5**0.5 - 1) / 2

MIN_NATURE_SIDE = 36
"""Shortest side that the convolutions of Mnih et al. (2015) take."""


def symlog(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Compress magnitudes: sign(x) log(1 + |x|) (Hafner et al. 2023, arXiv 2301.04104)."""
    return x.sign() * x.abs().log1p()


class RepeatedEncoder(nn.Module):
    """What reads observations that are met again and again: equal ones are encoded once.

    Of a rollout's thousands of grids or texts a hundred may be different. On a CPU only: to count
    them stops a GPU.
    """

    num_axes: int
    """Of one observation."""
    min_repeated: ClassVar[int] = 2
    """Fewer observations are encoded as they come."""

    def encode(self, observation: Shaped[Tensor, "*N"], /) -> Float[Tensor, "*M E"]:
        """Return features of observations of whole numbers."""
        raise NotImplementedError

    def forward(self, observation: Shaped[Tensor, "*N"]) -> Float[Tensor, "*M E"]:
        leading = observation.shape[: -self.num_axes]
        if not _may_count(observation) or math.prod(leading) < self.min_repeated:
            return self.encode(observation)
        flat = observation.flatten(0, len(leading) - 1)
        found = distinct(flat.flatten(1))
        if found is None:
            return self.encode(observation)
        first, kinds = found
        features = self.encode(flat[first])
        # in bfloat16 the sum of a thousand rows' gradients would stand still
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        return F.embedding(kinds, wide).to(features.dtype).unflatten(0, leading)


def _may_count(observation: Tensor) -> bool:
    """Return whether shapes may depend on values: not on a GPU, in graphs, and under torch.func."""
    is_plain = type(observation) is Tensor and observation.device.type == "cpu"
    is_traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return is_plain and not is_traced


def distinct(rows: Shaped[Tensor, "n k"]) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " n"]] | None:
    """Return where one row of each kind is, and which kind each row is; None if most are different.

    Args:
        rows: of whole numbers.
    """
    # sums by weights that are whole tell rows apart, and are exact up to 2**53; equal rows that
    # rounding tells apart are two kinds
    numbers = torch.arange(1, rows.shape[1] + 1, dtype=torch.float64, device=rows.device)
    weights = ((numbers * GOLDEN_RATIO).frac() * 2**32).floor()
    sums, kinds = (rows.double() @ weights).unique(return_inverse=True)
    if 2 * len(sums) > len(rows):
        return None
    first = kinds.new_empty(len(sums)).scatter_(
        0, kinds, torch.arange(len(rows), device=rows.device)
    )
    return (first, kinds) if torch.equal(rows[first[kinds]], rows) else None


class GridEncoder(RepeatedEncoder):
    """A grid of symbols (rows, columns, channels), as MiniGrid's: an embedding for each place.

    A vector of symbols (n,) is a grid of one cell with n channels.

    The embedding is a linear layer on indicators (this symbol, at this place), standardised by
    their running mean and deviation (observation normalisation, arXiv 2006.05990): what is always
    the same says nothing, and a rare object in one cell of 49 changes more than a common wall. What
    has never been seen enters scaled by MAX_SCALE, with weights that nothing has trained.

    Of grids with more cells than one a second layer reads which symbols are in them at all, so that
    what is learned of an object in one place holds in every other. It starts louder than the first.
    """

    min_repeated = 256  # for fewer, one product is as quick
    offsets: Tensor
    mean: Tensor
    num_observed: Tensor
    presence_mean: Tensor
    presence_observed: Tensor

    def __init__(self, space: spaces.MultiDiscrete, dim: int):
        super().__init__()
        self.num_axes = len(space.shape)
        *sides, num_channels = space.shape
        num_symbols = space.nvec.reshape(-1, num_channels).max(axis=0)
        sizes = torch.tensor(num_symbols, dtype=torch.int64)
        starts = F.pad(sizes.cumsum(0), (1, 0))  # of each channel's symbols, then their number
        num_cells = math.prod(sides)
        self.num_symbols = int(num_symbols.sum())
        cell_starts = torch.arange(num_cells)[:, None] * self.num_symbols
        self.register_buffer("offsets", (cell_starts + starts[:-1]).flatten(), persistent=False)
        # before anything is observed, every symbol of a channel is as frequent
        frequency = (1 / sizes).repeat_interleave(sizes, output_size=self.num_symbols)
        self.register_buffer("mean", frequency.repeat(num_cells))
        self.register_buffer("num_observed", torch.ones(()))
        self.weight = nn.Parameter(torch.empty(dim, len(self.mean)))
        nn.init.orthogonal_(self.weight)
        self.has_places = num_cells > 1
        if self.has_places:
            self.register_buffer("presence_mean", torch.full((self.num_symbols,), 0.5))
            # of its own: a run of before it begins to count when it goes on
            self.register_buffer("presence_observed", torch.ones(()))
            self.presence_weight = nn.Parameter(torch.empty(dim, self.num_symbols))
            nn.init.orthogonal_(self.presence_weight, gain=PRESENCE_GAIN)

    def encode(self, grid: Shaped[Tensor, "*M"]) -> Float[Tensor, "*N E"]:
        symbols = self._symbols(grid)
        features = _standardised(symbols, self.weight, self.mean, MAX_SCALE)
        if not self.has_places:
            return features
        symbols = symbols % self.num_symbols
        return features + _standardised(
            symbols, self.presence_weight, self.presence_mean, MAX_PRESENCE_SCALE
        )

    @torch.no_grad()
    def observe_(self, grid: Shaped[Tensor, "*M"]) -> None:
        """Take grids (*N, R, C, channels), or vectors (*N, n), into the running mean."""
        symbols = self._symbols(grid)
        num_grids = symbols.numel() // symbols.shape[-1] * ranks.size()
        counts = torch.zeros_like(self.mean)
        ones = torch.ones_like(symbols, dtype=counts.dtype)
        counts = ranks.total(counts.index_add_(0, symbols.flatten(), ones.flatten()))
        _take_in_(self.mean, self.num_observed, counts, num_grids)
        if self.has_places:
            counts = ranks.total(self._presence_counts(symbols % self.num_symbols))
            _take_in_(self.presence_mean, self.presence_observed, counts, num_grids)

    def _presence_counts(self, symbols: Int64[Tensor, "*N n"]) -> Float[Tensor, " symbols"]:
        """Return in how many grids each symbol is."""
        counts = torch.zeros_like(self.presence_mean)
        num_at_once = max(1, COUNTED_AT_ONCE // self.num_symbols)
        for part in symbols.reshape(-1, symbols.shape[-1]).split(num_at_once):
            is_there = part.new_zeros((len(part), self.num_symbols), dtype=torch.bool)
            counts += is_there.scatter_(-1, part, True).sum(0)
        return counts

    def _symbols(self, grid: Tensor) -> Int64[Tensor, "*N cells_channels"]:
        return grid.flatten(-self.num_axes).long() + self.offsets


def _take_in_(
    mean: Float[Tensor, " symbols"],
    num_observed: Float[Tensor, ""],
    counts: Float[Tensor, " symbols"],
    num_grids: int,
) -> None:
    """Take the counts of grids into a running mean and the number of those that it is of."""
    num_observed += num_grids
    mean += (counts / num_grids - mean) * (num_grids / num_observed)


def _standardised(
    symbols: Int64[Tensor, "*N n"],
    weight: Float[Tensor, "E symbols"],
    mean: Float[Tensor, " symbols"],
    max_scale: float,
) -> Float[Tensor, "*N E"]:
    """Return a layer on standardised indicators of the symbols that there are, by their means."""
    # a product with indicators: on a GPU and on a CPU its gradient is quicker than a look-up's
    size = (*symbols.shape[:-1], len(mean))
    indicators = symbols.new_zeros(size, dtype=weight.dtype).scatter_(-1, symbols, 1.0)
    deviation = (mean * (1 - mean)).sqrt().clamp_min(1 / max_scale)
    scaled = weight / deviation
    return F.linear(indicators, scaled, -(scaled @ mean))


class MapEncoder(RepeatedEncoder):
    """A grid of symbols too large for `GridEncoder`, as NetHack's: embeddings, then convolutions.

    The embeddings of a cell's channels are added.
    """

    num_axes = 3
    offsets: Tensor

    def __init__(self, space: spaces.MultiDiscrete, dim: int):
        super().__init__()
        rows, columns, num_channels = space.shape
        num_symbols = space.nvec.reshape(-1, num_channels).max(axis=0)
        sizes = torch.tensor(num_symbols)
        self.register_buffer("offsets", sizes.cumsum(0) - sizes, persistent=False)
        self.embedding = nn.Embedding(int(num_symbols.sum()), SYMBOL_DIM)
        self.network = _network(SYMBOL_DIM, rows, columns, dim, is_picture=False)

    def encode(self, grid: Shaped[Tensor, "*N R C channels"]) -> Float[Tensor, "*N E"]:
        symbols = grid.reshape(-1, *grid.shape[-3:]).long() + self.offsets
        cells = self.embedding(symbols).sum(dim=-2)
        return self.network(cells.movedim(-1, 1)).unflatten(0, grid.shape[:-3])


class SequenceEncoder(RepeatedEncoder):
    """A sequence of symbols, such as the words of a text; 0 is padding."""

    num_axes = 1

    def __init__(self, space: spaces.MultiDiscrete, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(int(space.nvec.max()), SYMBOL_DIM)
        self.position = nn.Parameter(torch.randn(len(space.nvec), SYMBOL_DIM))
        self.mix = nn.Linear(SYMBOL_DIM, dim)
        self.projection = nn.Linear(dim, dim)

    def encode(self, symbols: Shaped[Tensor, "*N length"]) -> Float[Tensor, "*N E"]:
        features = self.mix(self.embedding(symbols.long()) * (1 + self.position)).relu()
        is_word = (symbols != 0).unsqueeze(-1)
        return self.projection((features * is_word).sum(dim=-2))


class BytesEncoder(RepeatedEncoder):
    """The bytes of a text; 0 is padding: two convolutions, which see words, added over places."""

    num_axes = 1

    def __init__(self, space: spaces.Box, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(256, SYMBOL_DIM)
        self.letters = nn.Conv1d(SYMBOL_DIM, dim, 5, padding=2)
        self.words = nn.Conv1d(dim, dim, 5, padding=2)
        self.position = nn.Parameter(torch.randn(space.shape[0], dim))
        self.projection = nn.Linear(dim, dim)

    def encode(self, text: Shaped[Tensor, "*N length"]) -> Float[Tensor, "*N E"]:
        flat = text.reshape(-1, text.shape[-1]).long()
        is_byte = (flat != 0).unsqueeze(-1)
        letters = self.letters((self.embedding(flat) * is_byte).mT).relu()
        words = (self.words(letters * is_byte.mT).mT * (1 + self.position)).relu()
        total = (words * is_byte).sum(dim=1) / is_byte.sum(dim=1).clamp_min(1).sqrt()
        return self.projection(total).unflatten(0, text.shape[:-1])


class PictureForm(NamedTuple):
    """How a Box is a picture, or a stack of them."""

    order: str
    """Where its channels are, for people: "channels last", "channels first" or "grey"."""
    frames: int
    """First of four axes, 1 where there are less."""
    channels: int
    """Of one frame."""
    rows: int
    columns: int

    @staticmethod
    def of(space: spaces.Box) -> PictureForm | None:
        """Return how a space is a picture, None where it is none.

        Channels are the last axis of three if it is no longer than the others, else the first if it
        is shorter than the others; four axes are a stack of these. Two axes are a grey picture if
        both are MIN_GREY_SIDE or more. Numbers other than bytes need sides of MIN_SIDE.
        """
        shape = space.shape
        min_side = 1 if space.dtype == np.uint8 else MIN_SIDE
        if len(shape) == 2:
            order, channels, sides, min_side = "grey", 1, shape, MIN_GREY_SIDE
        elif len(shape) not in (3, 4):
            return None
        elif shape[-1] <= min(shape[-3:-1]):
            order, channels, sides = "channels last", shape[-1], shape[-3:-1]
        elif shape[-3] < min(shape[-2:]):
            order, channels, sides = "channels first", shape[-3], shape[-2:]
        else:
            return None
        frames = shape[0] if len(shape) == 4 else 1
        if min(sides) < min_side:
            return None
        return PictureForm(order, frames, channels, rows=sides[0], columns=sides[1])

    def channels_last(self, picture: Shaped[Tensor, "*N"]) -> Shaped[Tensor, "M R C channels"]:
        """Return pictures with the channels of all frames last, one after the other."""
        if self.order == "channels last":
            frames = picture.reshape(-1, self.frames, self.rows, self.columns, self.channels)
            return frames.movedim(1, -2).flatten(-2)
        frames = picture.reshape(-1, self.frames * self.channels, self.rows, self.columns)
        return frames.movedim(1, -1)


class PixelEncoder(nn.Module):
    """A picture, or a stack of them: the convolutions of Mnih et al. (2015), or small ones.

    Args:
        space: a Box that `PictureForm` takes.
        dim: width E of the features.
        max_side: pictures with a longer side are made smaller, in proportion.
    """

    shift: Tensor

    def __init__(self, space: spaces.Box, dim: int, max_side: int):
        super().__init__()
        form = PictureForm.of(space)
        assert form is not None
        self.form, self.num_axes = form, len(space.shape)
        scale = min(1.0, max_side / max(form.rows, form.columns))
        self.size = (max(1, round(form.rows * scale)), max(1, round(form.columns * scale)))
        self.is_smaller = scale < 1
        low, high = float(space.low.min()), float(space.high.max())
        self.has_bounds = math.isfinite(high - low) and high > low
        self.scale = 1 / (high - low) if self.has_bounds else 1.0
        self.register_buffer("shift", torch.tensor(-low * self.scale - 0.5), persistent=False)
        self.network = _network(form.frames * form.channels, *self.size, dim, is_picture=True)

    def see(self, picture: Shaped[Tensor, "*N"]) -> Shaped[Tensor, "*M R C channels"]:
        """Return pictures as `forward` takes them: small, with the channels last."""
        seen = self.form.channels_last(picture)
        if self.is_smaller:
            small = F.interpolate(seen.movedim(-1, 1).float(), self.size, mode="area")
            small = small.round() if seen.dtype == torch.uint8 else small
            seen = small.movedim(1, -1).to(seen.dtype)
        return seen.reshape(*picture.shape[: -self.num_axes], *seen.shape[1:])

    def forward(self, picture: Shaped[Tensor, "*N R C channels"]) -> Float[Tensor, "*N E"]:
        # channels last in memory as well, which is what convolutions are fastest with
        flat = picture.reshape(-1, *picture.shape[-3:]).movedim(-1, 1)
        if self.has_bounds:  # from -.5 to .5, in one pass
            values = torch.add(self.shift, flat, alpha=self.scale)
        else:
            values = symlog(flat.float())
        return self.network(values).unflatten(0, picture.shape[:-3])


class VectorEncoder(nn.Module):
    """Any other Box, of any shape and range: symlog, then one layer."""

    def __init__(self, space: spaces.Box, dim: int):
        super().__init__()
        self.num_axes = len(space.shape)
        self.projection = nn.Linear(math.prod(space.shape), dim)

    def forward(self, vector: Shaped[Tensor, "*N"]) -> Float[Tensor, "*M E"]:
        if self.num_axes == 0:
            vector = vector.unsqueeze(-1)
        elif self.num_axes > 1:
            vector = vector.flatten(-self.num_axes)
        return self.projection(symlog(vector.float()))


def _network(
    num_channels: int, rows: int, columns: int, dim: int, is_picture: bool
) -> nn.Sequential:
    """Return convolutions of (N, channels, rows, columns), and a layer to (N, dim).

    Those of Mnih et al. (2015) for pictures with sides of MIN_NATURE_SIDE or more, with a margin
    where the sides are not 8 n + 4, so that they see all of it; for others stride 2, down to 8
    cells.
    """
    layers: list[nn.Module] = []
    if is_picture and min(rows, columns) >= MIN_NATURE_SIDE:
        below, right = ((4 - side) % 8 for side in (rows, columns))
        if below or right:
            layers.append(nn.ZeroPad2d((0, right, 0, below)))
        rows, columns = rows + below, columns + right
        for width, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            layers += [nn.Conv2d(num_channels, width, size, stride), nn.ReLU()]
            num_channels = width
            rows, columns = (rows - size) // stride + 1, (columns - size) // stride + 1
    else:
        for width in (32, 64, 64, 64, 64, 64):
            if max(rows, columns) <= 8:
                break
            layers += [nn.Conv2d(num_channels, width, 3, stride=2, padding=1), nn.ReLU()]
            num_channels = width
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
    layers += [nn.Flatten(), nn.Linear(num_channels * rows * columns, dim)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            init_orthogonal(layer)
    return nn.Sequential(*layers)


def part_encoder(
    name: str, space: spaces.Space, dim: int, image_size: int
) -> tuple[nn.Module, str]:
    """Return the encoder of one part of the observation, and in words how it reads it."""
    if isinstance(space, spaces.Discrete):
        return small_embedding(int(space.n), dim), f"one of {space.n} -> embedding"
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 3:
        rows, columns, num_channels = space.shape
        sizes = space.nvec.reshape(-1, num_channels).max(axis=0).tolist()
        words = f"grid {rows}x{columns} of categories ({_listed(sizes)}) -> "
        if rows * columns * sum(sizes) <= MAX_INDICATORS:
            places = "an embedding for each place, and one for anywhere"
            return GridEncoder(space, dim), words + places
        return MapEncoder(space, dim), words + "embeddings -> CNN"
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        if space.nvec.sum() <= MAX_VECTOR_INDICATORS:
            words = f"vector of categories ({_listed(space.nvec.tolist())}) -> "
            return GridEncoder(space, dim), words + "an embedding for each place"
        words = f"{space.shape[0]} symbols of {space.nvec.max()} (0 is none) -> embeddings"
        return SequenceEncoder(space, dim), words
    if isinstance(space, spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) == 1:
            words = f"text of up to {space.shape[0]:,} bytes -> embeddings -> CNN"
            return BytesEncoder(space, dim), words
        shape = "x".join(map(str, space.shape))
        form = PictureForm.of(space)
        if form is None:
            words = f"vector {space.dtype} {shape or 1} -> symlog -> layer"
            return VectorEncoder(space, dim), words
        encoder = PixelEncoder(space, dim, image_size)
        stack = f", a stack of {form.frames}" if form.frames > 1 else ""
        size = f", made {encoder.size[0]}x{encoder.size[1]}" if encoder.is_smaller else ""
        return encoder, f"image {space.dtype} {shape} {form.order}{stack}{size} -> CNN"
    raise ValueError(
        f"observation {name!r} has space {space_words(space)}, which is not supported; use "
        "Box, Discrete or MultiDiscrete (of one or three axes)"
    )


def _listed(sizes: list[int]) -> str:
    shown = ", ".join(map(str, sizes[:6]))
    return shown if len(sizes) <= 6 else f"{shown}, ..."
