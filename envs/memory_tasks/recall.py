"""Recall: name, at the end of an episode, the cues of its first steps.

Description: one of two cues, or several of them one after the other, then `delay` blank steps, then
    as many questions, one by one. Nothing but memory leads to the answers, and there is nothing to
    explore: the smallest task that tells a working memory from a broken one. Between the cues there
    may be blank steps, as many as are drawn (`max_gap`). In *rewriting* (`num_shows` above 1) there
    are several kinds of cue, each shown several times, in any order, with a new value every time:
    the last value of each kind counts, so that memory must be written over, kind by kind.
Actions: Discrete(2), the two answers; only the one to a question counts.
Observations: Discrete(3 + num_items): 0 and 1 are the cues, 2 is blank, 3 asks for the first cue,
    4 for the second, and so on. In rewriting Discrete(3 num_items + 1): 2 kind + value is a cue,
    2 num_items is blank, and the questions follow, one for each kind.
Rewards: 1 / num_items for each right answer, 0 otherwise.
Termination: after the last answer. The info then says `is_success`: all were right.
Registered ids: mtxl/Recall6-v0, mtxl/Recall20-v0, mtxl/Recall50-v0, mtxl/Recall100-v0: the number
    is `delay`. Others are registered by `envs.make` and the commands when they are asked for:
    mtxl/Recall{first}[to{last}][x{items}][gap{g}][shows{n}]-v0, see `recall_options`.

Nothing that the agent does shows in what it sees before the answers, so that it cannot keep a cue
in its own behaviour, as it can in a maze (nor in its previous actions, if they are hidden from it):
without memory of the first steps success is 0.5 ** num_items at most, and the return 0.5.

`envs.memory_tasks.recall_tensors` is the same task in batches.
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

DELAYS = (6, 20, 50, 100)
"""The delays that are registered with Gymnasium; `envs.make` takes any."""
NUM_VALUES = 2
"""Of a cue, and so of answers."""
MAX_DELAY = MAX_GAP = 1_000_000
MAX_ITEMS = 63
"""All cues of an episode make one number, an int64."""
MAX_SHOWS = 100
_NUMBER = "(?:0|[1-9][0-9]*)"
_ID = re.compile(
    rf"(?:.*:)?mtxl/Recall(?P<first>{_NUMBER})(?:to(?P<last>{_NUMBER}))?(?:x(?P<items>{_NUMBER}))?"
    rf"(?:gap(?P<gap>{_NUMBER}))?(?:shows(?P<shows>{_NUMBER}))?-v0"
)


class RecallOptions(TypedDict):
    """The options of `RecallEnv`."""

    delays: tuple[int, ...]
    num_items: int
    max_gap: int
    num_shows: int


def recall_options(env_id: str) -> RecallOptions | None:
    """Return the options that an id of Recall names, None for the id of another task.

    mtxl/Recall{first}[to{last}][x{items}][gap{g}][shows{n}]-v0, numbers without leading zeros:
    mtxl/Recall20-v0 is a cue, 20 blank steps and a question; mtxl/Recall10to160-v0 has one of 10,
    20, 40, 80 and 160 blank steps; mtxl/Recall20x8-v0 eight cues; mtxl/Recall10to160x4gap12-v0 0 to
    12 blank steps after each of four cues but the last; mtxl/Recall10to160x3gap4shows4-v0 three
    kinds of cue, each shown four times.

    Raises:
        ValueError: for an id that begins like Recall's and is none, or numbers that make no task.
    """
    match = _ID.fullmatch(env_id)
    if match is None:
        if re.match(r"(?:.*:)?mtxl/Recall[0-9]", env_id):
            raise ValueError(
                f"env={env_id!r} must be mtxl/Recall{{first}}[to{{last}}][x{{items}}][gap{{g}}]"
                "[shows{n}]-v0, in this order and without leading zeros; write it like "
                "mtxl/Recall20-v0, mtxl/Recall10to160x4gap12-v0 or mtxl/Recall20x3gap4shows4-v0"
            )
        return None
    named = {name: int(text) for name, text in match.groupdict().items() if text is not None}
    first, last = named["first"], named.get("last", named["first"])
    for delay in (first, last):
        _check("delay", delay, 0, MAX_DELAY)
    check_order(env_id, first, last)
    options = RecallOptions(
        delays=doubled(first, last),
        num_items=named.get("items", 1),
        max_gap=named.get("gap", 0),
        num_shows=named.get("shows", 1),
    )
    _check_options(**options)
    return options


class RecallEnv(gymnasium.Env[int | np.int64, int | np.int64]):
    """The recall task.

    Attributes:
        blank: the symbol of a step that shows nothing; `blank + 1 + item` asks for an item.
        time: steps of the episode so far.
        cue_times: the steps that show cues, in their order.
        cue_symbols: what they show.
        answers: the last value of each item.
        questions_at: the step that shows the first question.
        is_success: no answer was wrong so far.
        says_success: an episode's last info holds `is_success`.

    Args:
        delays: blank steps between the cues and the questions, from 0 to 1,000,000, one of which is
            drawn for each episode.
        num_items: cues to keep, and questions: from 1 to 63.
        max_gap: after each cue but the last come 0 to this many blank steps, from 0 to 1,000,000;
            where there is one cue only, 0.
        num_shows: how often each cue is shown, with a new value each time, from 1 to 100.
        render_mode: none is supported.

    Raises:
        ValueError: for a number that is not allowed.
    """

    says_success = True

    def __init__(
        self,
        delays: Sequence[int] = (6,),
        num_items: int = 1,
        max_gap: int = 0,
        num_shows: int = 1,
        render_mode: str | None = None,
    ):
        _check_options(delays, num_items, max_gap, num_shows)
        self.render_mode = render_mode
        self.delays = tuple(delays)
        self.num_items = num_items
        self.max_gap = max_gap
        self.num_shows = num_shows
        self.num_cues = num_items * num_shows
        self.blank = NUM_VALUES * (num_items if num_shows > 1 else 1)
        self.observation_space = spaces.Discrete(self.blank + 1 + num_items)
        self.action_space = spaces.Discrete(NUM_VALUES)
        self.time, self.questions_at = 0, -num_items  # no episode

    @property
    def has_episode(self) -> bool:
        """Whether an episode has started and has not ended."""
        return self.time < self.questions_at + self.num_items

    @property
    def cue_in_view(self) -> int:
        """The cues that count as one number, at the step that shows the last cue; else -1."""
        return self.answers_as_number if self.time == self.cue_times[-1] else -1

    @property
    def answers_as_number(self) -> int:
        """The answers as the digits of one number, the first as the lowest."""
        return sum(answer * NUM_VALUES**item for item, answer in enumerate(self.answers))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int | np.int64, dict[str, Any]]:
        """Draw the cues and show the first."""
        super().reset(seed=seed)
        # what has one outcome draws nothing, so that the episodes of a seed are those of before
        is_mixed = len(self.delays) > 1
        self.delay = int(self.np_random.choice(self.delays)) if is_mixed else self.delays[0]
        values = self.np_random.integers(NUM_VALUES, size=self.num_cues).tolist()
        kinds = [item for item in range(self.num_items) for _ in range(self.num_shows)]
        if self.num_shows > 1:
            kinds = self.np_random.permutation(kinds).tolist()
        gaps = [0] * (self.num_cues - 1)
        if self.max_gap:
            gaps = self.np_random.integers(self.max_gap + 1, size=self.num_cues - 1).tolist()
        self.answers = [0] * self.num_items
        for kind, value in zip(kinds, values, strict=True):
            self.answers[kind] = value
        self.cue_symbols = values
        if self.num_shows > 1:
            self.cue_symbols = [NUM_VALUES * k + v for k, v in zip(kinds, values, strict=True)]
        self.cue_times = list(accumulate(gaps, lambda time, gap: time + 1 + gap, initial=0))
        self.questions_at = self.cue_times[-1] + 1 + self.delay
        self._shown_at = dict(zip(self.cue_times, self.cue_symbols, strict=True))
        self.is_success = True
        self.time = 0
        return self._observe(), {}

    def step(
        self, action: int | np.int64
    ) -> tuple[int | np.int64, float, bool, bool, dict[str, Any]]:
        """Take an answer; after a question it counts, and after the last the episode ends."""
        check_action(self.action_space, action)
        item = self.time - self.questions_at
        reward = 0.0
        if item >= 0:
            is_right = int(action) == self.answers[item]
            self.is_success &= is_right
            reward = is_right / self.num_items
        self.time += 1
        if not self.has_episode:
            return self._observe(), reward, True, False, {"is_success": self.is_success}
        return self._observe(), reward, False, False, {}

    def _observe(self) -> int:
        item = self.time - self.questions_at
        if item >= 0:
            return self.blank + 1 + min(item, self.num_items - 1)  # the last one after the end
        return self._shown_at.get(self.time, self.blank)


def _check_options(delays: Sequence[int], num_items: int, max_gap: int, num_shows: int) -> None:
    if not delays:
        raise ValueError("delays is empty; name one delay or more")
    for delay in delays:
        _check("delay", delay, 0, MAX_DELAY)
    _check("num_items", num_items, 1, MAX_ITEMS)
    _check("max_gap", max_gap, 0, MAX_GAP)
    _check("num_shows", num_shows, 1, MAX_SHOWS)
    if max_gap and num_items * num_shows == 1:
        raise ValueError(
            f"max_gap={max_gap} must be 0 where one cue is shown once: there is nothing between "
            "cues; leave it out, or raise num_items or num_shows"
        )


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        side = "raise" if value < least else "lower"
        raise ValueError(f"{name}={value} must be from {least} to {most}; {side} {name}")
