"""What the agent sees: MiniGrid's `gen_obs` for a batch.

Rows of the view are handled as seven bits, one for each column: a table of 2^14 entries says how
far light spreads along a row. Shapes: B envs, N flat cells, V = 7 view side.
"""

from __future__ import annotations

import torch
from jaxtyping import Int32, Int64, UInt8
from torch import Tensor, nn

from envs.minigrid.geometry import VIEW_LANES, VIEW_SIDE, Geometry

_AGENT_COLUMN = VIEW_SIDE // 2
_ROW_BITS = (1 << VIEW_SIDE) - 1
_GATHER_BITS = sum(1 << (56 - 7 * lane) for lane in range(VIEW_LANES))
"""Times a word of eight bytes that are 0 or 1: the product's highest byte holds their bits."""


class View(nn.Module):
    """The views of agents in grids of one size.

    Args:
        geometry: of the grids.
        sees_through_walls: MiniGrid's option: nothing hides what is behind it.
    """

    offsets: Tensor
    spread: Tensor
    spread_own_row: Tensor
    shown: Tensor

    def __init__(self, geometry: Geometry, sees_through_walls: bool):
        super().__init__()
        self.sees_through_walls = sees_through_walls
        self.register_buffer("offsets", geometry.view())
        rows = torch.arange(_ROW_BITS + 1)
        self.register_buffer("spread", _spread(rows[:, None], _dilate(rows)).flatten())
        self.register_buffer("spread_own_row", _spread(rows, torch.tensor(1 << _AGENT_COLUMN)))
        lanes = torch.arange(VIEW_LANES)
        lit = _dilate(rows)[:, None] >> lanes & 1
        self.register_buffer("shown", (-lit).to(torch.int8).view(torch.int64).squeeze(-1))

    def forward(
        self,
        cells: Int32[Tensor, " cells"],
        position: Int64[Tensor, " B"],
        direction: Int64[Tensor, " B"],
        own_cell: Int32[Tensor, " B"],
    ) -> Int32[Tensor, "B V 8"]:
        """Return words of the view, rows from the farthest; those not seen are 0.

        Args:
            cells: every grid, flat.
            position: of the agent, in `cells`.
            direction: of the agent.
            own_cell: what is shown where the agent stands: what it carries, or empty.
        """
        index = self.offsets.index_select(0, direction).add_(position.unsqueeze(1))
        words = cells.index_select(0, index.view(-1)).view(-1, VIEW_SIDE, VIEW_LANES)
        if not self.sees_through_walls:
            words &= self._mask(words)
        words[:, VIEW_SIDE - 1, _AGENT_COLUMN] = own_cell
        return words

    def _mask(self, words: Int32[Tensor, "B V 8"]) -> Int32[Tensor, "B V 8"]:
        """Return -1 where a cell is seen, 0 elsewhere (MiniGrid's `Grid.process_vis`)."""
        is_clear = (words >= 0).view(torch.int64).squeeze(-1)  # one byte a cell
        clear = (is_clear * _GATHER_BITS >> 56 & _ROW_BITS).t().contiguous()  # (V, B) bits
        # bits of the cells of each row that light reaches and passes, from the agent's row outward
        lit = self.spread_own_row.index_select(0, clear[-1])
        passed = [lit]
        for row in reversed(range(VIEW_SIDE - 1)):
            lit = self.spread.index_select(0, (clear[row] << VIEW_SIDE).add_(lit))
            passed.append(lit)
        own = torch.stack(passed[::-1], dim=1)  # (B, V)
        own[:, :-1] |= own[:, 1:].clone()
        return (
            self.shown.index_select(0, own.view(-1)).view(torch.int8).to(torch.int32).view_as(words)
        )


def image(words: Int32[Tensor, "B V 8"]) -> UInt8[Tensor, "B V V 3"]:
    """Return MiniGrid's image of a view: (column, row, channel). It shares the words' memory."""
    channels = words.view(torch.uint8).unflatten(-1, (VIEW_LANES, 4))
    return channels[:, :, :VIEW_SIDE, :3].transpose(1, 2)


def _dilate(rows: Tensor) -> Tensor:
    """Return rows with the neighbours of each set bit set."""
    return (rows | rows << 1 | rows >> 1) & _ROW_BITS


def _spread(clear: Tensor, light: Tensor) -> Tensor:
    """Return the bits of `clear` that light reaches along the row."""
    lit = clear & light
    for _ in range(VIEW_SIDE):
        lit = clear & _dilate(lit) | lit
    return lit
