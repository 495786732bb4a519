"""Reach the goal among balls that move by themselves: Dynamic-Obstacles."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from minigrid.core.actions import Actions
from minigrid.envs.dynamicobstacles import DynamicObstaclesEnv
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.cells import EMPTY, GOAL
from envs.counter_random import CounterRandom
from envs.geometry import Geometry
from envs.tasks.task import Outcome, Task
from envs.transition import GridState, Mechanics

_NEIGHBOURHOOD = 9
_NUM_TRIES = 101
"""MiniGrid draws a cell of the 3 x 3 around an obstacle up to this often, until one is free."""
_RESOLUTION = 2**31 - 1


class DynamicObstacles(Task):
    """Every obstacle moves before the agent does. Registers: where they are, in their order.

    As in MiniGrid, an action other than left, right and forward is taken as left, and to go forward
    costs -1 and ends the episode if anything but the goal was ahead before the obstacles moved.
    """

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
        rows = torch.arange(-1, 2, device=state.cells.device) * mechanics.stride
        around = (rows[:, None] + torch.arange(-1, 2, device=rows.device)).flatten()
        after = []
        for number, old in enumerate(state.registers.unbind(1)):
            nearby = old.unsqueeze(1) + around  # (B, 9)
            ball = state.cells.gather(1, old.unsqueeze(1))
            is_free = state.cells.gather(1, nearby) == EMPTY
            is_free &= nearby != state.position.unsqueeze(1)
            new = self._draw(random.split(number), nearby, is_free, old)
            # the old cell is cleared first, so that an obstacle that stays is put back
            state.cells.scatter_(1, old.unsqueeze(1), EMPTY)
            state.cells.scatter_(1, new.unsqueeze(1), ball)
            after.append(new)
        return torch.stack(after, dim=1)

    def _draw(
        self, random: CounterRandom, nearby: Tensor, is_free: Tensor, old: Tensor
    ) -> Int64[Tensor, " B"]:
        """Return a free cell of `nearby` for each env, or `old` where none is found."""
        num_free = is_free.sum(dim=1)
        nth = random.split(0).below(num_free.clamp_min(1)).unsqueeze(1)
        chosen = (is_free.cumsum(dim=1) == nth + 1) & is_free
        # MiniGrid gives up after some tries: about once in 150,000 where one cell is free
        misses = (1 - num_free.double() / _NEIGHBOURHOOD) ** _NUM_TRIES
        gives_up = random.split(1).below(_RESOLUTION) < misses * _RESOLUTION
        found = (nearby * chosen).sum(dim=1)
        return torch.where(gives_up | (num_free == 0), old, found)
