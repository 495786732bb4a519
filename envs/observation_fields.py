"""Any Gymnasium observation space as a flat Dict of Box, Discrete and MultiDiscrete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.mission import MissionSpace

from envs.text import MAX_WORDS, NUM_WORD_IDS, word_ids

MINIGRID_CHANNELS = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX) + 1)
"""Values of a MiniGrid cell's (type, colour, state); state 3 is the agent's direction in full
views."""

MAX_CATEGORIES = 1 << 20
"""Of a Discrete space, and of the largest part of a MultiDiscrete one: each has its own weights."""

Fields = dict[str, np.ndarray]
Path = tuple[Any, ...]
"""Keys of Dict spaces and places of Tuple spaces, from the outside in."""
_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict and Tuple"


def flat_space(space: spaces.Space, is_minigrid: bool) -> spaces.Dict:
    """Return the flat Dict space of `space`.

    Nested names are joined by a dot, numbers are written as they are; a space that is no Dict or
    Tuple is named "observation". Texts become
    word ids, MiniGrid's image a grid of symbols. A mission that is always the same is left out.

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
        field = _field(name, leaf, is_minigrid)
        if field is not None:
            fields[name] = field
    if not fields:
        raise ValueError(f"observation space {space} holds nothing to observe")
    return spaces.Dict(fields)


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
            values = pick(batch, path)
            if isinstance(original, MissionSpace | spaces.Text):
                arrays[name] = np.stack([word_ids(text) for text in values])
            elif isinstance(original, spaces.Discrete | spaces.MultiDiscrete):
                arrays[name] = np.asarray(values, dtype=np.int64) - original.start
            elif isinstance(field, spaces.MultiDiscrete) or field.dtype == np.uint8:
                arrays[name] = np.asarray(values)
            else:
                arrays[name] = np.asarray(values, dtype=np.float32)
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


def _field(name: str, leaf: spaces.Space, is_minigrid: bool) -> spaces.Space | None:
    if isinstance(leaf, MissionSpace | spaces.Text):
        if isinstance(leaf, MissionSpace) and _is_constant(leaf):
            return None
        return spaces.MultiDiscrete([NUM_WORD_IDS] * MAX_WORDS)
    if isinstance(leaf, spaces.Discrete | spaces.MultiDiscrete):
        check_categories_fit(f"observation {name!r}", leaf)
    if isinstance(leaf, spaces.Discrete):
        return spaces.Discrete(int(leaf.n))
    if isinstance(leaf, spaces.MultiDiscrete) and leaf.nvec.ndim == 1:
        return spaces.MultiDiscrete(leaf.nvec)
    if isinstance(leaf, spaces.MultiBinary):
        return spaces.Box(0.0, 1.0, leaf.shape, np.float32)
    if isinstance(leaf, spaces.Box):
        if is_minigrid and name == "image" and leaf.dtype == np.uint8 and max(leaf.shape) < 32:
            return spaces.MultiDiscrete(np.broadcast_to(MINIGRID_CHANNELS, leaf.shape))
        if leaf.dtype == np.uint8 and len(leaf.shape) == 3:
            return leaf
        return spaces.Box(-np.inf, np.inf, leaf.shape, np.float32)
    raise ValueError(
        f"observation {name!r} has space {leaf}, which is not supported; supported are "
        f"{_SUPPORTED} (MultiDiscrete of one axis): wrap the environment so that it returns those"
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


def _is_constant(space: MissionSpace) -> bool:
    """Tell whether every episode has the same mission (BabyAI's space takes any text)."""
    return not space.ordered_placeholders and not space.contains("any other mission")
