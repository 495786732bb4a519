"""Any Gymnasium observation space as a flat Dict of Box, Discrete and MultiDiscrete."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.mission import MissionSpace
from minigrid.envs.babyai.core.roomgrid_level import BabyAIMissionSpace

from envs.text import MAX_BYTES, MAX_WORDS, NUM_WORD_IDS, byte_ids, split_words, word_id, word_ids

MINIGRID_CHANNELS = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX) + 1)
"""Values of a MiniGrid cell's (type, colour, state); state 3 is the agent's direction in full
views."""

MAX_CATEGORIES = 1 << 20
"""Of a Discrete space, and of the largest part of a MultiDiscrete one: each has its own weights."""

ONE_HOT = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))
"""Indicators of the same in MiniGrid's OneHotPartialObsWrapper, one after the other."""

BABYAI_WORDS = 64
"""Words of a BabyAI mission that are kept; the longest have 41, and commas."""

MAX_MAP_CATEGORIES = 2**16
"""Of a map of integers; with more values they are numbers."""

MIN_GREY_SIDE = 28
"""Two axes of bytes are a grey picture from this length on, and else a map of categories."""

MAX_BOUND = 1e6
"""Pictures of numbers are scaled by their bounds where these are no larger."""

Fields = dict[str, np.ndarray]
Path = tuple[Any, ...]
"""Keys of Dict spaces and places of Tuple spaces, from the outside in."""
_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict and Tuple"


def flat_space(space: spaces.Space, grids: Collection[str] = ()) -> spaces.Dict:
    """Return the flat Dict space of `space`: see `BatchedEnv.observation_space` for its parts.

    Nested names are joined by a dot, numbers are written as they are; a space that is no Dict or
    Tuple is named "observation". A mission that is always the same is left out.

    Args:
        space: of one environment.
        grids: names of the parts that are MiniGrid's grids, from `minigrid_grids`.

    Raises:
        ValueError: for a space that cannot be taken, or two parts of one name.
    """
    fields: dict[str, spaces.Space] = {}
    for path, leaf in leaves(space):
        name = name_of(path)
        if name in fields:
            raise ValueError(
                f"observation space {space} has two parts of the name {name!r} (nested names are "
                "joined by dots); give one of their keys another name"
            )
        field = _grid_field(leaf) if name in grids else _field(name, leaf)
        if field is not None:
            fields[name] = field
    if not fields:
        raise ValueError(f"observation space {space} holds nothing to observe")
    return spaces.Dict(fields)


def minigrid_grids(space: spaces.Space, observation: Any) -> set[str]:
    """Return the names of what is a grid of symbols in an observation of a MiniGrid environment.

    A grid, whole or in view, stacked or one-hot, and a small picture have the same spaces; what
    tells them apart is that a picture holds larger numbers than a grid has symbols.
    """
    return {
        name_of(path)
        for path, leaf in leaves(space)
        if isinstance(leaf, spaces.Box)
        and leaf.dtype == np.uint8
        and len(leaf.shape) in (3, 4)
        and _is_grid(np.asarray(pick(observation, path)))
    }


def make_flattener(space: spaces.Space, flat: spaces.Dict) -> Callable[[Any], Fields]:
    """Return a function that brings a batch of observations of `space` into the form of `flat`.

    A batch is what a Gymnasium vector environment returns: arrays with a leading batch axis,
    tuples of texts.
    """
    originals = {name_of(path): (path, leaf) for path, leaf in leaves(space)}

    def flatten(batch: Any) -> Fields:
        arrays: Fields = {}
        for name, field in flat.spaces.items():
            path, original = originals[name]
            arrays[name] = _read(name, pick(batch, path), original, field)
        return arrays

    return flatten


def leaves(space: spaces.Space) -> list[tuple[Path, spaces.Space]]:
    """Return the parts of a space that hold no others, each by the keys that lead to it."""
    children: list[tuple[Any, spaces.Space]]
    if isinstance(space, spaces.Dict):
        children = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        children = list(enumerate(space.spaces))
    else:
        return [((), space)]
    return [((key, *path), leaf) for key, child in children for path, leaf in leaves(child)]


def name_of(path: Path) -> str:
    """Return the name of a part in the flat form."""
    return ".".join(map(str, path)) if path else "observation"


def pick(batch: Any, path: Path) -> Any:
    """Return the part of an observation, or of a batch of them, that the keys lead to."""
    for key in path:
        batch = batch[key]
    return batch


def _field(name: str, leaf: spaces.Space) -> spaces.Space | None:
    if isinstance(leaf, MissionSpace):
        return _mission_field(leaf)
    if isinstance(leaf, spaces.Text):
        sizes = [len(each.encode("utf-8", "surrogatepass")) for each in leaf.character_set]
        return _bytes_field(leaf.max_length * max(sizes, default=1))
    if isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete):
        check_categories_fit(f"observation {name!r}", leaf)
    if isinstance(leaf, spaces.Discrete):
        return spaces.Discrete(int(leaf.n))
    if isinstance(leaf, spaces.MultiDiscrete) and leaf.nvec.ndim <= 3:
        return spaces.MultiDiscrete(_with_channels(leaf.nvec) if leaf.nvec.ndim > 1 else leaf.nvec)
    if isinstance(leaf, spaces.MultiBinary):
        return spaces.Box(0.0, 1.0, leaf.shape, np.float32)
    if isinstance(leaf, spaces.Box):
        return _box_field(leaf)
    raise ValueError(
        f"observation {name!r} has space {leaf}, which is not supported; supported are "
        f"{_SUPPORTED} (MultiDiscrete of up to three axes): wrap the environment so that it "
        "returns those"
    )


def check_categories_fit(what: str, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
    """Raise ValueError for a space with more categories than there can be weights for."""
    largest = int(space.n if isinstance(space, spaces.Discrete) else space.nvec.max())
    if largest > MAX_CATEGORIES:
        raise ValueError(
            f"{what} has {largest:,} categories ({space}), which must be at most "
            f"{MAX_CATEGORIES:,}: each has weights of its own; wrap the environment so that it has "
            "fewer, or numbers in a Box"
        )


def _box_field(box: spaces.Box) -> spaces.Space:
    num_axes = len(box.shape)
    low, high = (bound.astype(np.float64) for bound in (box.low, box.high))
    is_whole = np.issubdtype(box.dtype, np.integer)
    has_bytes = is_whole and (low == 0).all() and (high == 255).all()
    if has_bytes and (num_axes >= 3 or (num_axes == 2 and min(box.shape) >= MIN_GREY_SIDE)):
        return box if box.dtype == np.uint8 else spaces.Box(0.0, 255.0, box.shape, np.float32)
    if is_whole and num_axes in (2, 3) and (high - low).max() < MAX_MAP_CATEGORIES:
        return spaces.MultiDiscrete(_with_channels((high - low + 1).astype(np.int64)))
    first, last = float(low.min(initial=np.inf)), float(high.max(initial=-np.inf))
    if num_axes < 2 or not max(-first, last) <= MAX_BOUND:
        first, last = -np.inf, np.inf
    return spaces.Box(first, last, box.shape, np.float32)


def _with_channels(sizes: np.ndarray) -> np.ndarray:
    """Return the sizes of a map of categories (rows, columns[, channels]) with its channels."""
    return sizes[..., None] if sizes.ndim == 2 else sizes


def _bytes_field(length: int) -> spaces.Box:
    return spaces.Box(0, 255, (min(length, MAX_BYTES),), np.uint8)


def _mission_field(space: MissionSpace) -> spaces.Space | None:
    """Return the space of words, where each has an id of its own, and else that of bytes."""
    if isinstance(space, BabyAIMissionSpace):
        return spaces.MultiDiscrete([NUM_WORD_IDS] * BABYAI_WORDS)
    placeholders = space.ordered_placeholders or []
    if not placeholders:
        return _bytes_field(MAX_BYTES) if space.contains("any other mission") else None
    longest = [max(values, key=lambda text: len(split_words(text))) for values in placeholders]
    texts = [
        space.mission_func(*longest[:place], value, *longest[place + 1 :])
        for place, values in enumerate(placeholders)
        for value in values
    ]
    words = {word for text in texts for word in split_words(text)}
    if len({word_id(word) for word in words}) < len(words):
        return _bytes_field(MAX_BYTES)
    length = max(MAX_WORDS, *(len(split_words(text)) for text in texts))
    return spaces.MultiDiscrete([NUM_WORD_IDS] * length)


def _grid_field(leaf: spaces.Space) -> spaces.MultiDiscrete:
    """Return the space of a MiniGrid grid ([frames,] rows, columns, channels)."""
    assert isinstance(leaf, spaces.Box)
    *frames, rows, columns, _ = leaf.shape
    sizes = MINIGRID_CHANNELS * (frames[0] if frames else 1)
    return spaces.MultiDiscrete(np.broadcast_to(sizes, (rows, columns, len(sizes))))


def _is_grid(image: np.ndarray) -> bool:
    num_channels = image.shape[-1]
    if num_channels == len(MINIGRID_CHANNELS):
        return bool((image < MINIGRID_CHANNELS).all())
    if num_channels == sum(ONE_HOT):
        parts = np.split(image, np.cumsum(ONE_HOT)[:-1], axis=-1)
        return all(((part <= 1).all() and (part.sum(-1) == 1).all()) for part in parts)
    return False


def _read(name: str, values: Any, original: spaces.Space, field: spaces.Space) -> np.ndarray:
    """Return a batch of one part in the form of its field."""
    assert field.shape is not None
    if isinstance(original, MissionSpace | spaces.Text):
        ids = byte_ids if isinstance(field, spaces.Box) else word_ids
        return np.stack([ids(text, field.shape[0], name) for text in values])
    if isinstance(original, spaces.Discrete | spaces.MultiDiscrete):
        array = np.asarray(values, dtype=np.int64) - original.start
        return array.reshape(-1, *field.shape)
    if isinstance(field, spaces.MultiDiscrete):
        assert isinstance(original, spaces.Box)
        return _read_categories(np.asarray(values), original, field)
    return np.asarray(values, dtype=field.dtype)


def _read_categories(
    values: np.ndarray, original: spaces.Box, field: spaces.MultiDiscrete
) -> np.ndarray:
    """Return a batch of MiniGrid's grids or of whole numbers as categories from 0 on."""
    if original.shape[-1] == sum(ONE_HOT) != field.shape[-1]:
        parts = np.split(values, np.cumsum(ONE_HOT)[:-1], axis=-1)
        values = np.stack([part.argmax(-1) for part in parts], axis=-1).astype(np.uint8)
    if len(original.shape) == 4:  # frames, rows, columns, channels
        values = np.moveaxis(values, 1, -2)
    if original.dtype != np.uint8 or original.low.any():
        # what a wrong number becomes is wrong, too: `check_categories` finds it
        counted = np.clip(values.astype(np.int64) - original.low, -1, MAX_MAP_CATEGORIES)
        values = counted.astype(np.int32)
    return values.reshape(-1, *field.shape)
