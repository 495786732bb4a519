"""A T-maze on MiniGrid's engine: a cue at the start, a corridor, and a choice at its end.

Description: the agent starts beside a key or a ball, in view, and walks down a corridor too long
    for the cue to stay in view. At the T it must turn left (up) for a key, right (down) for a
    ball. Nothing at the T tells which. After the T-maze of Bakker (2001), and the passive and the
    active one of Ni et al. (2023, arXiv 2307.03864): in the active one the agent starts a step
    further on, with the cue behind it, and must turn to see it.
Actions: MiniGrid's seven; left, right and forward do something.
Observations: MiniGrid's: `image` (7, 7, 3), `direction`, `mission`.
Rewards: 1 - 0.9 t / max_steps at the right end, 0 otherwise.
Termination: at either end. Truncation: after `max_steps` = 8 (length + 4) steps, of the length of
    the episode.
Registered ids: mtxl/TMaze{length}-v0 and mtxl/TMaze{length}Active-v0: the length of the corridor in
    cells, from 7 to 100,000. Going forward, the cue is out of view from the second step on.
    mtxl/TMaze10to160-v0: one of 10, 20, 40, 80 and 160 for each episode, as a curriculum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrid.core.actions import Actions
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Key
from minigrid.minigrid_env import MiniGridEnv

LENGTHS = (10, 20, 50, 100, 300, 1_000, 3_000, 10_000, 100_000)
"""The lengths that are registered with Gymnasium; `envs.make` takes any."""
MIN_LENGTH, MAX_LENGTH = 7, 100_000
MIDDLE = 3
"""Row of the corridor; there are seven."""
_MISSION = "go up if the object at the start was a key and down if it was a ball"


class CorridorEnv(MiniGridEnv):
    """Cues in the wall, a corridor, and ends: what the T-maze and the junctions share."""

    success_pos: tuple[int, int]
    failure_positions: list[tuple[int, int]]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take MiniGrid's step; cues cannot be picked up, and the ends are terminal."""
        if action == Actions.pickup:
            action = Actions.done
        observation, reward, terminated, truncated, info = super().step(action)
        position = tuple(int(x) for x in self.agent_pos)
        if position == self.success_pos:
            return observation, self._reward(), True, truncated, info
        if position in self.failure_positions:
            return observation, 0, True, truncated, info
        return observation, reward, terminated, truncated, info


class TMazeEnv(CorridorEnv):
    """The T-maze.

    Args:
        lengths: cells of the corridor, from 7 to 100,000, one of which is drawn for each episode.
        is_active: start with the cue behind.
        **kwargs: of MiniGridEnv.

    Raises:
        ValueError: for a corridor too short for the cue to be forgotten, or too long.
    """

    def __init__(
        self,
        lengths: Sequence[int] = (10,),
        is_active: bool = False,
        max_steps: int | None = None,
        **kwargs: Any,
    ):
        for length in lengths:
            check_length(length)
        self.lengths = tuple(lengths)
        self.length = max(lengths)
        self.is_active = is_active
        self.has_time_limit_of_length = max_steps is None
        super().__init__(
            mission_space=MissionSpace(mission_func=lambda: _MISSION),
            max_steps=max_steps or time_limit(self.length),
            width=self.length + 3,
            height=2 * MIDDLE + 1,
            see_through_walls=False,
            **kwargs,
        )

    def _gen_grid(self, width: int, height: int) -> None:
        # a single length draws nothing, so that the levels of a seed are those of before
        self.length = self.lengths[0] if len(self.lengths) == 1 else self._rand_elem(self.lengths)
        self.width = width = self.length + 3
        if self.has_time_limit_of_length:
            self.max_steps = time_limit(self.length)
        junction = self.length + 1
        self.grid = Grid(width, height)
        for y in range(height):
            self.grid.horz_wall(0, y, width)
        for x in range(1, junction):
            self.grid.set(x, MIDDLE, None)
        for y in range(MIDDLE - 1, MIDDLE + 2):
            self.grid.set(junction, y, None)
        cue = self._rand_elem([Key, Ball])
        self.grid.set(1, MIDDLE - 1, cue("green"))
        self.agent_pos = (2 if self.is_active else 1, MIDDLE)
        self.agent_dir = 0
        ends = [(junction, MIDDLE - 1), (junction, MIDDLE + 1)]
        self.success_pos, failure_pos = ends if cue is Key else ends[::-1]
        self.failure_positions = [failure_pos]
        self.mission = _MISSION


def time_limit(length: int) -> int:
    """Return the steps after which an episode is cut off."""
    return 8 * (length + 4)


def doubled(first: int, last: int) -> tuple[int, ...]:
    """Return first, 2 first, 4 first, ... below last, and last; after 0 comes 1."""
    lengths = []
    while first < last:
        lengths.append(first)
        first = max(2 * first, 1)
    return (*lengths, last)


def check_order(env_id: str, first: int, last: int) -> None:
    """Raise ValueError unless an id names sizes from the smaller to the larger."""
    if first > last:
        raise ValueError(f"env={env_id!r} names sizes from {first} to {last}; swap them")


def check_length(length: int) -> None:
    """Raise ValueError unless a T-maze can have this corridor."""
    if not MIN_LENGTH <= length <= MAX_LENGTH:
        raise ValueError(
            f"length={length} must be from {MIN_LENGTH} to {MAX_LENGTH}: in a shorter corridor "
            "the cue is in view from the T"
        )
