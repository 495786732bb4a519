"""A T-maze on MiniGrid's engine: a cue at the start, a corridor, and a choice at its end.

Description: the agent starts beside a key or a ball, in view, and walks down a corridor too long
    for the cue to stay in view. At the T it must turn left (up) for a key, right (down) for a
    ball. Nothing at the T tells which. After the T-maze of Bakker (2001).
Actions: MiniGrid's seven; left, right and forward do something.
Observations: MiniGrid's: `image` (7, 7, 3), `direction`, `mission`.
Rewards: 1 - 0.9 t / max_steps at the right end, 0 otherwise.
Termination: at either end. Truncation: after `max_steps` = 8 (length + 4) steps.
Registered ids: mtxl/TMaze10-v0, mtxl/TMaze20-v0, mtxl/TMaze50-v0, mtxl/TMaze100-v0: the number is
    the corridor's length in cells. Going forward, the cue is out of view from the second step on.
"""

from __future__ import annotations

from typing import Any

from minigrid.core.actions import Actions
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Key
from minigrid.minigrid_env import MiniGridEnv

LENGTHS = (10, 20, 50, 100)
MIN_LENGTH = 7
_MIDDLE = 3  # row of the corridor; there are seven
_MISSION = "go up if the object at the start was a key and down if it was a ball"


class TMazeEnv(MiniGridEnv):
    """The T-maze.

    Args:
        length: cells of the corridor, 7 or more.
        **kwargs: of MiniGridEnv.

    Raises:
        ValueError: for a corridor too short for the cue to be forgotten.
    """

    def __init__(self, length: int = 10, **kwargs: Any):
        if length < MIN_LENGTH:
            raise ValueError(
                f"length={length} must be {MIN_LENGTH} or more: in a shorter corridor the cue is "
                "in view from the T"
            )
        self.length = length
        kwargs.setdefault("max_steps", 8 * (length + 4))
        super().__init__(
            mission_space=MissionSpace(mission_func=lambda: _MISSION),
            width=length + 3,
            height=2 * _MIDDLE + 1,
            see_through_walls=False,
            **kwargs,
        )

    def _gen_grid(self, width: int, height: int) -> None:
        junction = self.length + 1
        self.grid = Grid(width, height)
        for y in range(height):
            self.grid.horz_wall(0, y, width)
        for x in range(1, junction):
            self.grid.set(x, _MIDDLE, None)
        for y in range(_MIDDLE - 1, _MIDDLE + 2):
            self.grid.set(junction, y, None)
        cue = self._rand_elem([Key, Ball])
        self.grid.set(1, _MIDDLE - 1, cue("green"))
        self.agent_pos = (1, _MIDDLE)
        self.agent_dir = 0
        ends = [(junction, _MIDDLE - 1), (junction, _MIDDLE + 1)]
        self.success_pos, self.failure_pos = ends if cue is Key else ends[::-1]
        self.mission = _MISSION

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take MiniGrid's step; the cue cannot be picked up, and the ends are terminal."""
        if action == Actions.pickup:
            action = Actions.done
        observation, reward, terminated, truncated, info = super().step(action)
        position = tuple(int(x) for x in self.agent_pos)
        if position == self.success_pos:
            return observation, self._reward(), True, truncated, info
        if position == self.failure_pos:
            return observation, 0, True, truncated, info
        return observation, reward, terminated, truncated, info
