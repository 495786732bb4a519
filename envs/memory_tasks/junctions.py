"""Several cues and as many junctions on MiniGrid's engine: the i-th turn is told by the i-th cue.

Description: the agent walks past k objects, each a key or a ball, drawn independently, and down a
    corridor too long for them to stay in view. Then come k junctions, one after the other. At the
    i-th it must turn left (up) if the i-th object was a key, right (down) if it was a ball. The
    right branch leads round a wall to the next junction. Both look alike: nothing at a junction
    tells which is right. With two cues and delay 6 (`A` the agent, `1` where it must turn up for
    the key, `2` where it must turn down for the ball):

        ##############
        #KB######....#
        #A.......1#.2#
        #########....#
        ##############

    With one cue it is the T-maze of `envs.memory_tasks.t_maze`, with a corridor of delay + 1 cells.
Actions: MiniGrid's seven; left, right and forward do something.
Observations: MiniGrid's: `image` (7, 7, 3), `direction`, `mission`.
Rewards: 1 - 0.9 t / max_steps in the right branch of the last junction, 0 otherwise.
Termination: in a wrong branch, and in the right one of the last junction. Truncation: after
    `max_steps` = 8 (delay + 8 k - 3) steps, of the delay of the episode; the shortest way takes
    delay + 8 k - 4 at most.
Registered ids: mtxl/Junctions{delay}x{k}-v0, such as mtxl/Junctions20x4-v0: the cells of corridor
    between the last cue and the first junction, from 6 to 100,000, and k from 1 to 8; left out, it
    is 1. All levels are in one table, which holds delays of up to 4,029 with 8 junctions, 16,335
    with 6 and 65,505 with 4. mtxl/Junctions20to160x4-v0: one of 20, 40, 80 and 160 for each
    episode, as a curriculum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Key, Wall

from envs.memory_tasks.t_maze import MIDDLE, CorridorEnv

DELAYS = (20, 100, 1_000)
"""The delays that are registered with Gymnasium; `envs.make` takes any."""
MIN_DELAY, MAX_DELAY = 6, 100_000
MAX_JUNCTIONS = 8
MAX_CELLS = 1 << 20
"""Of all levels of one delay together: a quarter of `envs.grids.table.MAX_STATES`."""
SPACING = 3
"""Columns from a junction to the next: its own, a wall to pass above or below, and one to cross."""
_MISSION = (
    "at each junction go up if the object at the start with its number was a key and down if it "
    "was a ball"
)


class JunctionsEnv(CorridorEnv):
    """Cues, a corridor and junctions.

    Args:
        delays: cells of corridor between the last cue and the first junction, one of which is drawn
            for each episode.
        num_junctions: k, of cues too, from 1 to 8.
        max_steps: time limit of every episode. Left out: in proportion to the way.
        **kwargs: of MiniGridEnv.

    Raises:
        ValueError: for a number of junctions or a delay that the task does not have.
    """

    def __init__(
        self,
        delays: Sequence[int] = (20,),
        num_junctions: int = 1,
        max_steps: int | None = None,
        **kwargs: Any,
    ):
        for delay in delays:
            check_sizes(delay, num_junctions)
        self.delays = tuple(delays)
        self.delay = max(delays)
        self.num_junctions = num_junctions
        self.has_time_limit_of_delay = max_steps is None
        super().__init__(
            mission_space=MissionSpace(mission_func=lambda: _MISSION),
            max_steps=max_steps or time_limit(self.delay, num_junctions),
            width=junction_columns(self.delay, num_junctions)[-1] + 2,
            height=2 * MIDDLE + 1,
            see_through_walls=False,
            **kwargs,
        )

    @property
    def cue_in_view(self) -> int:
        """The cues as one number, the first in the lowest bit, where the last is in view; or -1."""
        if not self.agent_sees(self.num_junctions, MIDDLE - 1):
            return -1
        return sum(is_ball << place for place, is_ball in enumerate(self.cues))

    def _gen_grid(self, width: int, height: int) -> None:
        self.delay = self.delays[0] if len(self.delays) == 1 else self._rand_elem(self.delays)
        if self.has_time_limit_of_delay:
            self.max_steps = time_limit(self.delay, self.num_junctions)
        columns = junction_columns(self.delay, self.num_junctions)
        last = columns[-1]
        self.width = width = last + 2
        self.grid = Grid(width, height)
        for y in range(height):
            self.grid.horz_wall(0, y, width)
        for x in range(1, last + 1):
            self.grid.set(x, MIDDLE, None)
        for x in range(columns[0], last + 1):
            self.grid.set(x, MIDDLE - 1, None)
            self.grid.set(x, MIDDLE + 1, None)
        for column in columns:
            self.grid.set(column + 1, MIDDLE, Wall())
        self.cues = [self._rand_elem((False, True)) for _ in columns]  # is it a ball?
        for x, is_ball in enumerate(self.cues, start=1):
            self.grid.set(x, MIDDLE - 1, (Ball if is_ball else Key)("green"))
        self.agent_pos = (1, MIDDLE)
        self.agent_dir = 0
        is_ball = self.cues[-1]
        self.success_pos = last, MIDDLE + 1 if is_ball else MIDDLE - 1
        self.failure_positions = [
            (column, MIDDLE - 1 if is_ball else MIDDLE + 1)
            for column, is_ball in zip(columns, self.cues, strict=True)
        ]
        self.mission = _MISSION


def junction_columns(delay: int, num_junctions: int) -> range:
    """Return where the junctions are."""
    first = num_junctions + delay + 1
    return range(first, first + SPACING * num_junctions, SPACING)


def time_limit(delay: int, num_junctions: int) -> int:
    """Return the steps after which an episode is cut off."""
    return 8 * (delay + 8 * num_junctions - 3)


def max_delay(num_junctions: int) -> int:
    """Return the longest delay whose levels fit in a table."""
    num_others = 9 * num_junctions - 5  # cells beside the cues, and of the junctions
    return min(MAX_DELAY, (MAX_CELLS >> num_junctions) - num_others)


def check_sizes(delay: int, num_junctions: int) -> None:
    """Raise ValueError unless the task has this delay and number of junctions."""
    if not 1 <= num_junctions <= MAX_JUNCTIONS:
        raise ValueError(
            f"num_junctions={num_junctions} must be from 1 to {MAX_JUNCTIONS}: the table holds all "
            "combinations of cues; change the number after the x"
        )
    longest = max_delay(num_junctions)
    if not MIN_DELAY <= delay <= longest:
        raise ValueError(
            f"delay={delay} must be from {MIN_DELAY} to {longest} with num_junctions="
            f"{num_junctions}: after a shorter one a cue is in view from a junction, and levels "
            "longer than that do not fit in a table; change the delay, or take fewer junctions"
        )
