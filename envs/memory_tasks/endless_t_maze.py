"""Endless T-maze: corridors one after the other, each with a junction, and cues that change.

Description: a cue at the first corridor's start says which way to turn at its junction. Each later
    corridor shows the other cue at its start or, as often, none: then the cue before still holds.
    So what is remembered must be kept for several corridors, and be written over when it changes.
    The agent walks by itself; only its turns count, and a wrong one ends nothing.
Actions: Discrete(2), the two turns; only those at junctions count.
Observations: Discrete(4): 0 and 1 are the cues, 2 is corridor, 3 is a junction. Each corridor is
    its first step, which shows a cue or not, `length` steps of corridor, and its junction.
Rewards: 1 / num_corridors for each right turn, 0 otherwise.
Termination: after the last junction. The info then says `is_success`: all turns were right.
Ids: mtxl/EndlessTMaze{first}[to{last}]x{corridors}-v0, see `endless_options`. They are
    registered by `envs.make` and the commands when they are asked for.

Turns are as likely to be those of the junction before as not. So without memory half of them are
right, and 0.5 ** num_corridors of the episodes; with a memory of one corridor three quarters of all
but the first, and 0.75 ** (num_corridors - 1). The task is made after the endless T-mazes with
rewriting of ALER (arXiv 2610.00592); lengths, cues and rewards are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, TypedDict

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.memory_tasks.t_maze import check_order, doubled
from envs.tensor_env import check_action

NUM_CUES = 2
CORRIDOR, JUNCTION = 2, 3
MAX_LENGTH = 1_000_000
MAX_CORRIDORS = 1000
_ID = re.compile(
    r"(?:.*:)?mtxl/EndlessTMaze(?P<first>0|[1-9][0-9]*)(?:to(?P<last>[1-9][0-9]*))?"
    r"x(?P<corridors>[1-9][0-9]*)-v0"
)


class EndlessOptions(TypedDict):
    """The options of `EndlessTMazeEnv`."""

    lengths: tuple[int, ...]
    num_corridors: int


def endless_options(env_id: str) -> EndlessOptions | None:
    """Return the options that an id of the endless T-maze names, None for that of another task.

    mtxl/EndlessTMaze10x16-v0 has sixteen corridors of 10 steps; in mtxl/EndlessTMaze10to40x16-v0
    each is of 10, 20 or 40.

    Raises:
        ValueError: for an id that begins like one of this task and is none, or numbers that make
            no task.
    """
    match = _ID.fullmatch(env_id)
    if match is None:
        if re.match(r"(?:.*:)?mtxl/EndlessTMaze", env_id):
            raise ValueError(
                f"env={env_id!r} must be mtxl/EndlessTMaze{{first}}[to{{last}}]x{{corridors}}-v0, "
                "without leading zeros; write it like mtxl/EndlessTMaze10to40x16-v0"
            )
        return None
    first, last = int(match["first"]), int(match["last"] or match["first"])
    check_order(env_id, first, last)
    _check((first, last), int(match["corridors"]))
    return EndlessOptions(lengths=doubled(first, last), num_corridors=int(match["corridors"]))


class EndlessTMazeEnv(gymnasium.Env[int | np.int64, int | np.int64]):
    """The endless T-maze.

    Attributes:
        time: steps of the episode so far.
        starts: the first step of each corridor.
        junctions: the last step of each.
        shown: what each shows at its start: a cue, or `CORRIDOR` for none.
        answers: the turn that is right at each junction.
        is_success: no turn was wrong so far.
        says_success: an episode's last info holds `is_success`.

    Args:
        lengths: steps of a corridor between its first and its junction, from 0 to 1,000,000, one of
            which is drawn for each.
        num_corridors: of an episode, from 1 to 1,000.
        render_mode: none is supported.

    Raises:
        ValueError: for a number that is not allowed.
    """

    says_success = True

    def __init__(
        self,
        lengths: Sequence[int] = (10,),
        num_corridors: int = 16,
        render_mode: str | None = None,
    ):
        _check(lengths, num_corridors)
        self.render_mode = render_mode
        self.lengths = tuple(lengths)
        self.num_corridors = num_corridors
        self.observation_space = spaces.Discrete(JUNCTION + 1)
        self.action_space = spaces.Discrete(NUM_CUES)
        self.time, self.junctions = 0, [-1]  # no episode

    @property
    def has_episode(self) -> bool:
        """Whether an episode has started and has not ended."""
        return self.time <= self.junctions[-1]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw the corridors and show the first step."""
        super().reset(seed=seed)
        number = self.num_corridors
        lengths = self.np_random.choice(self.lengths, size=number).tolist()
        first = int(self.np_random.integers(NUM_CUES))
        changes = self.np_random.integers(2, size=number - 1).tolist()
        self.answers = list(accumulate(changes, lambda held, change: held ^ change, initial=first))
        is_shown = zip(self.answers[1:], changes, strict=True)
        self.shown = [first, *(cue if change else CORRIDOR for cue, change in is_shown)]
        ends = list(accumulate(length + 2 for length in lengths))
        self.starts, self.junctions = [0, *ends[:-1]], [end - 1 for end in ends]
        self._shown_at = dict(zip(self.starts, self.shown, strict=True))
        self._answer_at = dict(zip(self.junctions, self.answers, strict=True))
        self.is_success = True
        self.time = 0
        return self._observe(), {}

    def step(self, action: int | np.int64) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Go on; at a junction the action is the turn."""
        check_action(self.action_space, action)
        reward = 0.0
        if self.time in self._answer_at:
            is_right = int(action) == self._answer_at[self.time]
            self.is_success &= is_right
            reward = is_right / self.num_corridors
        self.time += 1
        if not self.has_episode:
            return JUNCTION, reward, True, False, {"is_success": self.is_success}
        return self._observe(), reward, False, False, {}

    def _observe(self) -> int:
        is_junction = self.time in self._answer_at
        return JUNCTION if is_junction else self._shown_at.get(self.time, CORRIDOR)


def _check(lengths: Sequence[int], num_corridors: int) -> None:
    if len(lengths) == 0:
        raise ValueError("lengths is empty; name one length or more")
    for length in lengths:
        _check_whole("length", length, 0, MAX_LENGTH)
    _check_whole("num_corridors", num_corridors, 1, MAX_CORRIDORS)


def _check_whole(name: str, value: int, least: int, most: int) -> None:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not least <= value <= most:
        raise ValueError(f"{name}={value!r} must be a whole number from {least} to {most}")
