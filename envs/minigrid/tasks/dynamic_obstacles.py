"""Reach the goal among balls that move by themselves: Dynamic-Obstacles."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from minigrid.core.actions import Actions
from minigrid.envs.dynamicobstacles import DynamicObstaclesEnv
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.counter_random import BITS, CounterRandom, scaled
from envs.minigrid.cells import EMPTY, GOAL
from envs.minigrid.geometry import Geometry
from envs.minigrid.tasks.task import Outcome, Task
from envs.minigrid.transition import GridState, Mechanics

_NUM_TRIES = 101
"""MiniGrid draws a cell of the 3 x 3 around an obstacle up to this often, until one is free."""


class DynamicObstacles(Task):
    """Every obstacle moves before the agent does. Registers: where they are, in their order.

    As in MiniGrid, an action other than left, right and forward is taken as left, and to go forward
    costs -1 and ends the episode if anything but the goal was ahead before the obstacles moved.
    """

    misses: Tensor

    def __init__(self):
        super().__init__()
        shares = torch.tensor(
            [(1 - free / 9) ** _NUM_TRIES for free in range(10)], dtype=torch.float64
        )
        # of 2^31 times, how often none is found, by the number of free cells
        self.register_buffer("misses", (shares * (1 << BITS)).long())

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, DynamicObstaclesEnv)
        return [geometry.flat(*map(int, obstacle.cur_pos)) for obstacle in env.obstacles]

    def step_(
        self,
        mechanics: Mechanics,
        state: GridState,
        action: Int64[Tensor, " B"],
        random: CounterRandom,
    ) -> tuple[GridState, Outcome]:
        action = torch.where(action > int(Actions.forward), int(Actions.left), action)
        front = state.position + mechanics.steps[state.direction]
        kind = state.cells.gather(1, front.unsqueeze(1)).squeeze(1) & 0xFF
        is_clear = (kind == EMPTY) | (kind == GOAL)
        obstacles = self.move_obstacles_(mechanics, state, random.split(state.step_count))
        state = state._replace(registers=obstacles)
        transition = mechanics(state, action, writes_cells=False)
        hits = transition.is_action(Actions.forward) & ~is_clear
        outcome = Outcome(transition.ends | hits, transition.reaches_goal, penalty=hits)
        return transition.state, outcome

    def move_obstacles_(
        self, mechanics: Mechanics, state: GridState, random: CounterRandom
    ) -> Int64[Tensor, "B K"]:
        """Move each obstacle to a free cell around it, and return where they are then."""
        num_obstacles = state.registers.shape[1]
        which, whether = random.many(2 * num_obstacles).chunk(2, dim=1)
        sides = torch.arange(-1, 2, device=state.cells.device)
        around = (sides[:, None] * mechanics.stride + sides).flatten()
        after = []
        for number, old in enumerate(state.registers.unbind(1)):
            nearby = old.unsqueeze(1) + around  # (B, 9)
            is_free = state.cells.gather(1, nearby) == EMPTY
            is_free &= nearby != state.position.unsqueeze(1)
            num_free = is_free.sum(dim=1)
            nth = scaled(which[:, number], num_free).unsqueeze(1)
            is_chosen = is_free & (is_free.cumsum(dim=1) == nth + 1)
            is_found = whether[:, number] >= self.misses.index_select(0, num_free)
            new = torch.where(is_found, (nearby * is_chosen).sum(dim=1), old)
            # the old cell is cleared first, so that an obstacle that stays is put back
            ball = state.cells.gather(1, old.unsqueeze(1))
            state.cells.scatter_(1, old.unsqueeze(1), EMPTY)
            state.cells.scatter_(1, new.unsqueeze(1), ball)
            after.append(new)
        return torch.stack(after, dim=1) if after else state.registers
