"""POPGym's games on a hidden board: Battleship and MineSweeper. An action is a row and a column.

Oddities of POPGym, kept: what is seen does not say which cell was asked for; a second hit of the
same cell is a miss; a mine that is hit counts itself; MineSweeper has as many steps as free cells,
so that no step may be lost; Battleship can terminate and be truncated at once. Shapes: n envs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Int64
from torch import Tensor
from torch.nn.functional import pad

from envs.counter_random import scaled
from envs.popgym.cards import shuffled
from envs.rules.task import Outcome, State, Task, check_option, pick

SHIP_SIZES = (2, 3, 3, 4)
MIN_BOARD_SIZE, MAX_BOARD_SIZE = 8, 100  # on 8 x 8 there is room for the ships wherever they lie
MAX_NEAR = 9
CLEAR, MINE, VIEWED = 0, 1, 2


@dataclass(frozen=True)
class Battleship(Task):
    """Sink the ships: 1 is a hit, 0 a miss."""

    board_size: int = 10

    def __post_init__(self) -> None:
        check_option("board_size", self.board_size, MIN_BOARD_SIZE, MAX_BOARD_SIZE)

    @property
    def num_draws(self) -> int:
        return len(SHIP_SIZES)

    @property
    def num_steps(self) -> int:
        return self.board_size**2

    @property
    def observation_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([self.board_size] * 2)

    @classmethod
    def of(cls, env: Any) -> Battleship:
        return cls(env.board_size)

    def start(self, bits: Int64[Tensor, "n ships"]) -> State:
        zeros = bits.new_zeros(len(bits))
        board = torch.zeros(len(bits), self.num_steps, dtype=torch.bool, device=bits.device)
        for size, chance in zip(SHIP_SIZES, bits.unbind(1), strict=True):
            self._place_ship_(board, size, chance)
        return {"afloat": board, "hits": zeros, "observation": zeros.clone()}

    def _place_ship_(self, board: Tensor, size: int, chance: Int64[Tensor, " n"]) -> None:
        """Put a ship at one of the places where it overlaps with none, each as likely."""
        side, width = self.board_size, self.board_size - size + 1
        square = board.view(-1, side, side)
        across = reduce(torch.bitwise_or, (square[:, :, i : i + width] for i in range(size)))
        down = reduce(torch.bitwise_or, (square[:, i : i + width] for i in range(size)))
        is_free = ~torch.cat((across.flatten(1), down.flatten(1)), dim=1)
        num_before = is_free.cumsum(1, dtype=torch.int32)
        rank = scaled(chance, num_before[:, -1].long())
        place = torch.searchsorted(num_before, rank.int().unsqueeze(1), right=True).squeeze(1)
        is_across = place < side * width
        across_cell = place // width * side + place % width
        cell = torch.where(is_across, across_cell, place - side * width)
        step = torch.where(is_across, 1, side)
        for part in range(size):
            board.scatter_(1, (cell + part * step).unsqueeze(1), True)

    def advance_(self, state: State, actions: Int64[Tensor, "n 2"]) -> Outcome:
        afloat, num_parts = state["afloat"], sum(SHIP_SIZES)
        cell = (actions[:, 0] * self.board_size + actions[:, 1]).unsqueeze(1)
        is_hit = afloat.gather(1, cell).squeeze(1)
        afloat.scatter_(1, cell, False)
        state["hits"] += is_hit
        state["observation"].copy_(is_hit)
        return Outcome(
            reward=torch.where(is_hit, 1 / num_parts, -1 / (self.num_steps - num_parts)),
            terminated=state["hits"] == num_parts,
            truncated=state["time"] == self.num_steps,
        )

    def read(self, env: Any) -> dict[str, Any]:
        return {
            "time": env.num_steps,
            "afloat": ((env.board == 1) & (env.guesses == 0)).ravel(),
            "hits": env.hits,
            "observation": env.last_obs,
        }


@dataclass(frozen=True)
class MineSweeper(Task):
    """View every cell that is no mine: what is seen is the number of mines around the last cell."""

    board_size: int = 4
    num_mines: int = 2

    def __post_init__(self) -> None:
        check_option("board_size", self.board_size, 2, MAX_BOARD_SIZE)
        check_option("num_mines", self.num_mines, 1, self.board_size**2 - 3)

    @property
    def num_draws(self) -> int:
        return self.board_size**2

    @property
    def num_steps(self) -> int:
        return self.num_draws - self.num_mines

    @property
    def observation_space(self) -> spaces.Discrete:
        return spaces.Discrete(min(self.num_mines, MAX_NEAR) + 1)

    @property
    def action_space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([self.board_size] * 2)

    @classmethod
    def of(cls, env: Any) -> MineSweeper:
        return cls(env.dims[0], env.num_mines)

    def start(self, bits: Int64[Tensor, "n cells"]) -> State:
        places = shuffled(bits)[:, : self.num_mines]
        cells = torch.zeros_like(bits, dtype=torch.uint8).scatter_(1, places, MINE)
        padded = pad(cells.view(-1, self.board_size, self.board_size), (1, 1, 1, 1))
        of_columns = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
        near = of_columns[..., :-2] + of_columns[..., 1:-1] + of_columns[..., 2:]
        zeros = bits.new_zeros(len(bits))
        return {
            "cells": cells,
            "near": near.flatten(1),
            "num_viewed": zeros,
            "observation": zeros.clone(),
        }

    def advance_(self, state: State, actions: Int64[Tensor, "n 2"]) -> Outcome:
        cells, num_free = state["cells"], self.num_steps
        place = actions[:, 0] * self.board_size + actions[:, 1]
        cell = pick(cells, place)
        is_mine, is_new = cell == MINE, cell == CLEAR
        cells.scatter_(1, place.unsqueeze(1), cell.masked_fill(is_new, VIEWED).unsqueeze(1))
        state["num_viewed"] += is_new
        state["observation"].copy_(pick(state["near"], place))
        terminated = is_mine | (state["num_viewed"] == num_free)
        success = 1 / num_free
        reward = torch.where(is_new, success, -0.5 / (num_free - 2))
        return Outcome(
            reward=reward.masked_fill(is_mine, -0.5 - success),
            terminated=terminated,
            truncated=(state["time"] == num_free) & ~terminated,
        )

    def read(self, env: Any) -> dict[str, Any]:
        return {
            "time": env.timestep,
            "cells": env.hidden_grid.ravel(),
            "near": env.neighbor_grid.ravel(),
            "num_viewed": (env.hidden_grid == VIEWED).sum(),
            "observation": 0,
        }
