"""Recall: name, at the end of an episode, the cue of its first step.

Description: one of two cues, then `delay` blank steps, then a question. Nothing but memory leads to
    the answer, and there is nothing to explore: the smallest task that tells a working memory from
    a broken one.
Actions: Discrete(2), the two answers; only the last one counts.
Observations: Discrete(4): 0 and 1 are the cues, 2 is blank, 3 is the question.
Rewards: 1 for the right answer, 0 otherwise.
Termination: after the answer. The info then says `is_success`.
Registered ids: mtxl/Recall6-v0, mtxl/Recall20-v0, mtxl/Recall50-v0, mtxl/Recall100-v0: the number
    is `delay`. mtxl/Recall10to160-v0: one of 10, 20, 40, 80 and 160 for each episode.

Nothing that the agent does shows in what it sees before the answer, so that it cannot keep the cue
in its own behaviour, as it can in a maze: without memory of the first step success is 0.5 at most.
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


class RecallEnv(gymnasium.Env[int | np.int64, int | np.int64]):
    """The recall task.

    Args:
        delays: blank steps between the cue and the question, 0 or more, one of which is drawn for
            each episode.
        render_mode: none is supported.

    Raises:
        ValueError: for a negative delay.
    """

    def __init__(self, delays: Sequence[int] = (6,), render_mode: str | None = None):
        for delay in delays:
            if delay < 0:
                raise ValueError(f"delay={delay} must be 0 or more; raise delay")
        self.render_mode = render_mode
        self.delays = tuple(delays)
        self.observation_space = spaces.Discrete(NUM_CUES + 2)
        self.action_space = spaces.Discrete(NUM_CUES)

    @property
    def cue_in_view(self) -> int:
        """The cue that the last observation shows, -1 for none."""
        return self._cue if self._time == 0 else -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int | np.int64, dict[str, Any]]:
        """Draw a cue and show it."""
        super().reset(seed=seed)
        # a single delay draws nothing, so that the episodes of a seed are those of before
        is_mixed = len(self.delays) > 1
        self.delay = int(self.np_random.choice(self.delays)) if is_mixed else self.delays[0]
        self._cue = int(self.np_random.integers(NUM_CUES))
        self._time = 0
        return self._cue, {}

    def step(
        self, action: int | np.int64
    ) -> tuple[int | np.int64, float, bool, bool, dict[str, Any]]:
        """Take an answer; after the question it counts and ends the episode."""
        self._time += 1
        if self._time <= self.delay:
            return BLANK, 0.0, False, False, {}
        if self._time == self.delay + 1:
            return QUESTION, 0.0, False, False, {}
        is_success = int(action) == self._cue
        return QUESTION, float(is_success), True, False, {"is_success": is_success}
