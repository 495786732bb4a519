"""Recall: name, at the end of an episode, the cues of its first steps.

Description: one of two cues, or several of them one after the other, then `delay` blank steps, then
    as many questions, one by one. Nothing but memory leads to the answers, and there is nothing to
    explore: the smallest task that tells a working memory from a broken one.
Actions: Discrete(2), the two answers; only the one to a question counts.
Observations: Discrete(3 + num_items): 0 and 1 are the cues, 2 is blank, 3 asks for the first cue,
    4 for the second, and so on.
Rewards: 1 / num_items for each right answer, 0 otherwise.
Termination: after the last answer. The info then says `is_success`: all were right.
Registered ids: mtxl/Recall6-v0, mtxl/Recall20-v0, mtxl/Recall50-v0, mtxl/Recall100-v0: the number
    is `delay`. Others are registered by `envs.make` and the commands when they are asked for:
    mtxl/Recall10to160-v0 (one of 10, 20, 40, 80 and 160 for each episode), mtxl/Recall20x8-v0 and
    mtxl/Recall10to160x8-v0 (eight cues).

Nothing that the agent does shows in what it sees before the answers, so that it cannot keep a cue
in its own behaviour, as it can in a maze (nor in its previous actions, if they are hidden from it):
without memory of the first steps success is 0.5 ** num_items at most, and the return 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

DELAYS = (6, 20, 50, 100)
NUM_CUES = 2
BLANK, QUESTION = NUM_CUES, NUM_CUES + 1
MAX_ITEMS = 63  # all cues of an episode make one number, an int64


class RecallEnv(gymnasium.Env[int | np.int64, int | np.int64]):
    """The recall task.

    Args:
        delays: blank steps between the cues and the questions, 0 or more, one of which is drawn
            for each episode.
        num_items: cues to keep, and questions: from 1 to 63.
        render_mode: none is supported.

    Raises:
        ValueError: for a negative delay, or a number of items that is not allowed.
    """

    def __init__(
        self, delays: Sequence[int] = (6,), num_items: int = 1, render_mode: str | None = None
    ):
        for delay in delays:
            if delay < 0:
                raise ValueError(f"delay={delay} must be 0 or more; raise delay")
        check_num_items(num_items)
        self.render_mode = render_mode
        self.delays = tuple(delays)
        self.num_items = num_items
        self.observation_space = spaces.Discrete(QUESTION + num_items)
        self.action_space = spaces.Discrete(NUM_CUES)

    @property
    def cue_in_view(self) -> int:
        """The cues as one number, at the step that shows the last of them; else -1."""
        if self._time != self.num_items - 1:
            return -1
        return sum(cue * NUM_CUES**item for item, cue in enumerate(self._cues))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int | np.int64, dict[str, Any]]:
        """Draw the cues and show the first."""
        super().reset(seed=seed)
        # a single delay draws nothing, so that the episodes of a seed are those of before
        is_mixed = len(self.delays) > 1
        self.delay = int(self.np_random.choice(self.delays)) if is_mixed else self.delays[0]
        self._cues = self.np_random.integers(NUM_CUES, size=self.num_items).tolist()
        questions = range(QUESTION, QUESTION + self.num_items)
        self._shown = [*self._cues, *[BLANK] * self.delay, *questions]
        self._is_success = True  # until an answer is wrong
        self._time = 0
        return self._shown[0], {}

    def step(
        self, action: int | np.int64
    ) -> tuple[int | np.int64, float, bool, bool, dict[str, Any]]:
        """Take an answer; after a question it counts, and after the last the episode ends."""
        item = self._shown[self._time] - QUESTION
        reward = 0.0
        if item >= 0:
            is_right = int(action) == self._cues[item]
            self._is_success &= is_right
            reward = is_right / self.num_items
        self._time += 1
        if self._time == len(self._shown):
            return self._shown[-1], reward, True, False, {"is_success": self._is_success}
        return self._shown[self._time], reward, False, False, {}


def check_num_items(num_items: int) -> None:
    """Raise ValueError for a number of cues that no episode can have."""
    if not 1 <= num_items <= MAX_ITEMS:
        raise ValueError(f"num_items={num_items} must be from 1 to {MAX_ITEMS}; change num_items")
