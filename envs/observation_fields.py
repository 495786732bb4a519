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

Fields = dict[str, np.ndarray]
_SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict and Tuple"


def flat_space(space: spaces.Space, is_minigrid: bool) -> spaces.Dict:
    """Return the flat Dict space of `space`.

    Nested names are joined by a dot; a space that is no Dict is named "observation". Texts become
    word ids, MiniGrid's image a grid of symbols. A mission that is always the same is left out.

    Raises:
        ValueError: for a space that cannot be taken.
    """
    fields: dict[str, spaces.Space] = {}
    for name, leaf in leaves(space):
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
    originals = dict(leaves(space))

    def flatten(batch: Any) -> Fields:
        arrays: Fields = {}
        for name, field in flat.spaces.items():
            values = pick(batch, name, space)
            original = originals[name]
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


def leaves(space: spaces.Space, prefix: str = "") -> list[tuple[str, spaces.Space]]:
    """Return the parts of a space that hold no others, by their names joined by dots."""
    children: list[tuple[str, spaces.Space]]
    if isinstance(space, spaces.Dict):
        children = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        children = [(str(index), child) for index, child in enumerate(space.spaces)]
    else:
        return [(prefix or "observation", space)]
    joined = [(f"{prefix}.{name}" if prefix else name, child) for name, child in children]
    return [leaf for name, child in joined for leaf in leaves(child, name)]


def pick(batch: Any, name: str, space: spaces.Space) -> Any:
    """Return a leaf of an observation of `space`, or of a batch of them."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return batch
    for key in name.split("."):
        batch = batch[key] if isinstance(batch, dict) else batch[int(key)]
    return batch


def _field(name: str, leaf: spaces.Space, is_minigrid: bool) -> spaces.Space | None:
    if isinstance(leaf, MissionSpace | spaces.Text):
        if isinstance(leaf, MissionSpace) and _is_constant(leaf):
            return None
        return spaces.MultiDiscrete([NUM_WORD_IDS] * MAX_WORDS)
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


def _is_constant(space: MissionSpace) -> bool:
    """Tell whether every episode has the same mission (BabyAI's space takes any text)."""
    return not space.ordered_placeholders and not space.contains("any other mission")
