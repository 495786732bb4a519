"""Sets environments apart that would otherwise be at the same step of their episodes for ever.

All envs of a batch start together. Where every episode has as many steps, as in many of POPGym's
tasks, they stay together, and each rollout is of one part of the episode: values follow that part
instead of learning it, and what the policy learns is lost in their error. With the defaults nothing
is learned of POPGym's RepeatPreviousMedium in a million frames so, and all of it in 400,000 where
envs are set apart (experiments/LOG.md, 2026-11-30).

So the first time that half of the envs end their episodes at one and the same step, they are dealt
into groups, four for each rollout that such an episode takes, and one group after the other starts
a new episode after each of the next rollouts. The episodes that are left then are not counted;
values of their last steps take the place of their ends.

Shapes: T steps, B envs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

from agents import ranks
from agents.learning.rollout import Rollout

MAX_GROUPS = 16
"""Of envs, however long episodes are; one starts anew after each rollout, but for the first."""
GROUPS_PER_ROLLOUT = 4
"""Of the length of an episode: with one, each rollout would just have all parts of it."""
SHARE_IN_STEP = 0.5
"""Of the envs that end their episodes at the same step: from so many on they are set apart."""


class Staggering:
    """Says which envs start a new episode after a rollout, once in a run."""

    def __init__(self) -> None:
        # none until they are seen in step; all is done when the next one is as high as there are
        self._num_groups, self._next_group = 0, 0

    def rows(self, rollout: Rollout) -> Bool[Tensor, " B"] | None:
        """Return which envs have to start a new episode before the next rollout; None: none."""
        num_steps, num_envs = rollout.terminated.shape
        if not self._num_groups and (length := _length_in_step(rollout)):
            num_groups = math.ceil(GROUPS_PER_ROLLOUT * length / num_steps)
            self._num_groups = min(max(num_groups, 2), MAX_GROUPS)
            self._next_group = 1  # the first goes on as it is
        if self._next_group == self._num_groups:
            return None
        group, self._next_group = self._next_group, self._next_group + 1
        numbers = torch.arange(num_envs, device=rollout.terminated.device)
        return (numbers + ranks.share().rank * num_envs) % self._num_groups == group

    def state_dict(self) -> dict[str, Tensor]:
        """Return how far it is."""
        return {"groups": torch.tensor([self._num_groups, self._next_group])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there; runs of before have nothing of it."""
        if "groups" in state:
            self._num_groups, self._next_group = state["groups"].tolist()


def _length_in_step(rollout: Rollout) -> int:
    """Return the length of the episodes that so many envs ended at the same step; 0: of none."""
    done = rollout.terminated | rollout.truncated
    ends = ranks.total(done.sum(1).float())
    if ends.max() < max(2, SHARE_IN_STEP * done.shape[1] * ranks.size()):
        return 0
    step = int(ends.argmax())
    lengths = rollout.episode_length[step] * done[step]
    return int(ranks.total(lengths.sum().float()) / ends[step])
