"""What an action does: MiniGrid's `step` for a batch, without the tasks' own rules.

Shapes: B envs, N flat cells, K registers of the task.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int32, Int64
from minigrid.core.actions import Actions
from torch import Tensor, nn

from envs.minigrid.cells import (
    BALL,
    BOX,
    CLOSED,
    CONTENTS,
    CONTENTS_MASK,
    CONTENTS_SHIFT,
    DOOR,
    EMPTY,
    FLOOR,
    GOAL,
    KEY,
    LAVA,
    LOCKED,
    OPAQUE,
    OPEN,
    SYMBOL_MASK,
)
from envs.minigrid.geometry import Geometry

NUM_ACTIONS = len(Actions)
_NUM_KINDS = 64
"""Of type and state: the low four bits are the type, the high two the state."""
NOTHING, MOVE, REACH_GOAL, ENTER_LAVA, PICK_UP, DROP, FLIP_DOOR, UNLOCK, OPEN_BOX = range(9)


class GridState(NamedTuple):
    """The state of B envs."""

    cells: Int32[Tensor, "B N"]
    position: Int64[Tensor, " B"]  # flat, within its own row of cells
    direction: Int64[Tensor, " B"]
    carrying: Int32[Tensor, " B"]  # a word; EMPTY for empty hands
    step_count: Int64[Tensor, " B"]
    max_steps: Int64[Tensor, " B"]
    registers: Int64[Tensor, "B K"]  # what the task remembers of its level


class Transition(NamedTuple):
    """One step of B envs, as the tasks' rules see it."""

    action: Int64[Tensor, " B"]
    front: Int64[Tensor, " B"]  # the cell in front of the agent, before the action
    effect: Int64[Tensor, " B"]  # NOTHING, MOVE, ...
    carried_before: Int32[Tensor, " B"]
    state: GridState  # after the action
    stride: int  # from a cell to the one below

    def cell(self, position: Int64[Tensor, " B"]) -> Int32[Tensor, " B"]:
        """Return the cell at a position, after the action."""
        return self.state.cells.gather(1, position.unsqueeze(1)).squeeze(1)

    def is_action(self, action: Actions) -> Bool[Tensor, " B"]:
        return self.action == int(action)

    @property
    def reaches_goal(self) -> Bool[Tensor, " B"]:
        return self.effect == REACH_GOAL

    def is_beside(self, position: Int64[Tensor, " B"]) -> Bool[Tensor, " B"]:
        """Whether the agent stands next to a cell, not diagonally."""
        distance = (self.state.position - position).abs()
        return (distance == 1) | (distance == self.stride)

    @property
    def ends(self) -> Bool[Tensor, " B"]:
        """Whether a goal or lava was entered."""
        return self.reaches_goal | (self.effect == ENTER_LAVA)

    @property
    def is_carrying(self) -> Bool[Tensor, " B"]:
        return self.state.carrying != EMPTY


class Mechanics(nn.Module):
    """The rules that every MiniGrid task shares.

    Args:
        geometry: of the grids.
    """

    steps: Tensor
    effects: Tensor
    turns: Tensor
    flips: Tensor
    contents: Tensor

    def __init__(self, geometry: Geometry):
        super().__init__()
        self.stride = geometry.stride
        turns = torch.zeros(NUM_ACTIONS, dtype=torch.int64)
        turns[Actions.left], turns[Actions.right] = -1, 1
        flips = torch.zeros(OPEN_BOX + 1, dtype=torch.int32)
        flips[FLIP_DOOR] = (OPEN ^ CLOSED) << 16 | OPAQUE
        flips[UNLOCK] = (OPEN ^ LOCKED) << 16 | OPAQUE
        self.register_buffer("steps", geometry.steps())
        self.register_buffer("effects", _effects())
        self.register_buffer("turns", turns)
        self.register_buffer("flips", flips)
        self.register_buffer("contents", CONTENTS)

    def forward(
        self, state: GridState, action: Int64[Tensor, " B"], writes_cells: bool
    ) -> Transition:
        """Return the step of every env; `state.cells` is written in place.

        Args:
            state: before the action.
            action: 0 to 6.
            writes_cells: False where no action can change a cell: `state.cells` is left alone.
        """
        front = state.position + self.steps.index_select(0, state.direction)
        column = front.unsqueeze(1)
        cell = state.cells.gather(1, column).squeeze(1)
        effect = self._effect(state, action, cell)
        moves = (effect >= MOVE) & (effect <= ENTER_LAVA)
        carrying = state.carrying
        if writes_cells:
            picks_up, drops = effect == PICK_UP, effect == DROP
            held = cell >> CONTENTS_SHIFT & CONTENTS_MASK
            changed = cell ^ self.flips.index_select(0, effect)
            changed = torch.where(picks_up, EMPTY, changed)
            changed = torch.where(drops, carrying, changed)
            opened = self.contents.index_select(0, held)
            changed = torch.where(effect == OPEN_BOX, opened, changed)
            state.cells.scatter_(1, column, changed.unsqueeze(1))
            carrying = torch.where(picks_up, cell, torch.where(drops, EMPTY, carrying))
        after = GridState(
            cells=state.cells,
            position=torch.where(moves, front, state.position),
            direction=(state.direction + self.turns.index_select(0, action)) & 3,
            carrying=carrying,
            step_count=state.step_count + 1,
            max_steps=state.max_steps,
            registers=state.registers,
        )
        return Transition(action, front, effect, state.carrying, after, self.stride)

    def _effect(self, state: GridState, action: Tensor, cell: Tensor) -> Int64[Tensor, " B"]:
        kind = (cell & 0xF) | (cell >> 12 & 0x30)
        holds = state.carrying != EMPTY
        key = (action * 2 + holds) * _NUM_KINDS + kind
        effect = self.effects.index_select(0, key)
        # a locked door opens with a key of its colour only
        fits = (state.carrying & SYMBOL_MASK) == ((cell & 0xFF00) | KEY)
        return torch.where((effect == UNLOCK) & ~fits, NOTHING, effect)


def _effects() -> Int64[Tensor, " cases"]:
    """Return the effect by action, whether the hands are full, and kind of the cell in front."""
    effects = torch.zeros(NUM_ACTIONS, 2, _NUM_KINDS, dtype=torch.int64)

    def kinds(types: Iterable[int], state: int = OPEN) -> list[int]:
        return [kind | state << 4 for kind in types]

    effects[Actions.forward, :, kinds([EMPTY, FLOOR, DOOR])] = MOVE
    effects[Actions.forward, :, kinds([GOAL])] = REACH_GOAL
    effects[Actions.forward, :, kinds([LAVA])] = ENTER_LAVA
    effects[Actions.pickup, 0, kinds([KEY, BALL, BOX])] = PICK_UP
    effects[Actions.drop, 1, kinds([EMPTY])] = DROP
    effects[Actions.toggle, :, kinds([DOOR], OPEN) + kinds([DOOR], CLOSED)] = FLIP_DOOR
    effects[Actions.toggle, :, kinds([DOOR], LOCKED)] = UNLOCK
    effects[Actions.toggle, :, kinds([BOX])] = OPEN_BOX
    return effects.flatten()
