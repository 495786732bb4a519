"""Sets environments apart that would otherwise be at the same step of their episodes for ever.

All envs of a batch start together. Where every episode has as many steps, as in many of POPGym's
tasks, they stay together, and each rollout is of one part of the episode: values follow that part
instead of learning it, and what the policy learns is lost in their error. With the defaults nothing
is learned of POPGym's RepeatPreviousMedium in a million frames so, and all of it in 400,000 where
envs are set apart (experiments/LOG.md, 2026-11-30).

So the first time that half of the envs end their episodes at one and the same step, a sixteenth of
them starts a new episode after each of the next fifteen rollouts. The episodes that are left then
are not counted; values of their last steps take the place of their ends.

Shapes: T steps, B envs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from agents import ranks
from agents.learning.rollout import Rollout

NUM_GROUPS = 16
"""Of the envs, each of which starts an episode after another rollout."""
SHARE_IN_STEP = 0.5
"""Of the envs that end their episodes at the same step: from so many on they are set apart."""


class Staggering:
    """Says which envs start a new episode after a rollout, once in a run."""

    def __init__(self) -> None:
        self._next_group = 0  # 0: they have not been seen in step; NUM_GROUPS: all is done

    def rows(self, rollout: Rollout) -> Bool[Tensor, " B"] | None:
        """Return which envs have to start a new episode before the next rollout; None: none."""
        if self._next_group == NUM_GROUPS or (not self._next_group and not _is_in_step(rollout)):
            return None
        self._next_group = max(self._next_group, 1)  # the first goes on as it is
        done = rollout.terminated
        num_envs = done.shape[1]
        numbers = torch.arange(num_envs, device=done.device) + ranks.share().rank * num_envs
        group, self._next_group = self._next_group, self._next_group + 1
        return numbers % NUM_GROUPS == group

    def state_dict(self) -> dict[str, Tensor]:
        """Return how far it is."""
        return {"next_group": torch.tensor(self._next_group)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there; runs of before have nothing of it."""
        self._next_group = int(state.get("next_group", 0))


def _is_in_step(rollout: Rollout) -> bool:
    """Return whether so many envs of all ranks ended an episode at the same step."""
    ends = (rollout.terminated | rollout.truncated).sum(1).float()
    num_envs = rollout.terminated.shape[1] * ranks.size()
    return num_envs > 1 and int(ranks.total(ends).max()) >= SHARE_IN_STEP * num_envs
