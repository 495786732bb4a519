"""Cells of a MiniGrid grid as int32 words.

Byte 0 is the type, byte 1 the colour, byte 2 the state, as in MiniGrid's encoding, so that words
are an image without being decoded. Byte 3 holds what the image does not show: what is in a box, and
in the sign bit whether the cell hides what is behind it. On a big-endian machine the bytes of an
image would be the wrong way round; torch runs on none.
"""

from __future__ import annotations

import numpy as np
import torch
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Box, Wall, WorldObj

EMPTY, FLOOR, DOOR, KEY, BALL, BOX, GOAL, LAVA = (
    OBJECT_TO_IDX[name] for name in ("empty", "floor", "door", "key", "ball", "box", "goal", "lava")
)
OPEN, CLOSED, LOCKED = range(3)
OPAQUE = -(2**31)
"""The sign bit: the cell hides what is behind it."""
WALL = OBJECT_TO_IDX["wall"] | COLOR_TO_IDX["grey"] << 8 | OPAQUE

SYMBOL_MASK = 0xFFFF
"""Type and colour."""
CONTENTS_SHIFT, CONTENTS_MASK = 24, 0x1F
CONTENTS = torch.tensor(
    [EMPTY] + [kind | colour << 8 for kind in (KEY, BALL, BOX) for colour in range(6)],
    dtype=torch.int32,
)
"""What a box holds, by the number in byte 3: nothing, or a key, a ball or an empty box."""

_CONTENTS_NUMBER = {int(word): number for number, word in enumerate(CONTENTS)}


def pack(thing: WorldObj | None) -> int:
    """Return the word of a MiniGrid object.

    Raises:
        ValueError: for a box that holds something else than a key, a ball or an empty box.
    """
    if thing is None:
        return EMPTY
    if type(thing) is Wall and thing.color == "grey":
        return WALL
    kind, colour, state = thing.encode()
    word = kind | colour << 8 | state << 16
    if isinstance(thing, Box) and thing.contains is not None:
        held = pack(thing.contains)
        if held not in _CONTENTS_NUMBER:
            raise ValueError(
                f"a box holds {thing.contains.color} {thing.contains.type}, but a tensor "
                "environment knows boxes of a key, a ball or an empty box only; use "
                "backend='gymnasium'"
            )
        word |= _CONTENTS_NUMBER[held] << CONTENTS_SHIFT
    return word if thing.see_behind() else word | OPAQUE


def unpack(word: int) -> WorldObj | None:
    """Return a MiniGrid object like the one that was packed."""
    kind, colour, state = word & 0xFF, word >> 8 & 0xFF, word >> 16 & 0xFF
    thing = WorldObj.decode(kind, colour, state)
    number = word >> CONTENTS_SHIFT & CONTENTS_MASK
    if isinstance(thing, Box) and number:
        thing.contains = unpack(int(CONTENTS[number]))
    return thing


def pack_grid(grid: Grid) -> np.ndarray:
    """Return the words (height, width) int32 of a grid."""
    # most cells are empty or walls
    words = np.array([EMPTY if thing is None else pack(thing) for thing in grid.grid], np.int32)
    return words.reshape(grid.height, grid.width)


def unpack_grid(words: np.ndarray) -> Grid:
    """Return the grid of words (height, width)."""
    height, width = words.shape
    grid = Grid(width, height)
    grid.grid = [unpack(int(word)) for word in words.flat]
    return grid
