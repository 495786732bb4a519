"""Where the cells of a grid lie in a flat, wall-padded row.

Rows share their padding: going off the right end of a row leads into the padding of the next one,
so that a position is one number, and the cell in front, or one of the view, is one addition away.
Shapes: H grid height, W grid width, N flat cells, V view side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from minigrid.core.constants import DIR_TO_VEC

from envs.minigrid.cells import WALL

Index = TypeVar("Index", int, np.ndarray)
VIEW_SIDE = 7
VIEW_LANES = 8
"""Cells of a row of the view, with one that pads it to eight bytes of flags."""
_REACH = VIEW_SIDE - 1


@dataclass(frozen=True)
class Geometry:
    """Of grids of one size.

    Args:
        width: cells of a row.
        height: rows.
    """

    width: int
    height: int

    @property
    def stride(self) -> int:
        """Distance from a cell to the one below."""
        return self.width + _REACH

    @property
    def num_cells(self) -> int:
        """N, with the padding."""
        return _REACH + (self.height + 2 * _REACH) * self.stride

    def flat(self, x: Index, y: Index) -> Index:
        """Return the flat position of a cell, or of many."""
        return _REACH + (y + _REACH) * self.stride + x

    def point(self, position: int) -> tuple[int, int]:
        """Return x and y of a flat position."""
        y, x = divmod(position - _REACH, self.stride)
        return x, y - _REACH

    def pad(self, words: np.ndarray) -> np.ndarray:
        """Return words (..., H, W) as flat rows (..., N)."""
        margins = [(0, 0)] * (words.ndim - 2) + [(_REACH, _REACH), (0, _REACH)]
        padded = np.pad(words, margins, constant_values=WALL)
        flat = padded.reshape(*words.shape[:-2], -1)
        margins = [(0, 0)] * (words.ndim - 2) + [(_REACH, 0)]
        return np.pad(flat, margins, constant_values=WALL)

    def crop(self, cells: np.ndarray) -> np.ndarray:
        """Return the words (..., H, W) of flat rows (..., N): what `pad` was given."""
        rows = cells[..., _REACH:].reshape(*cells.shape[:-1], -1, self.stride)
        return rows[..., _REACH:-_REACH, : self.width]

    def steps(self) -> torch.Tensor:
        """Return what one step adds to the position, by direction, (4,) int64."""
        return torch.tensor([int(dx) + int(dy) * self.stride for dx, dy in DIR_TO_VEC])

    def view(self) -> torch.Tensor:
        """Return what leads from the agent to each cell of its view, (4, V * 8) int64.

        Row by row from the farthest, left to right; the eighth cell of a row is the agent's own.
        """
        offsets = torch.zeros(4, VIEW_SIDE, VIEW_LANES, dtype=torch.int64)
        ahead = self.steps()
        right = ahead.roll(-1)  # the direction after a turn to the right
        for row in range(VIEW_SIDE):
            for column in range(VIEW_SIDE):
                offsets[:, row, column] = ahead * (_REACH - row) + right * (column - VIEW_SIDE // 2)
        return offsets.flatten(1)
