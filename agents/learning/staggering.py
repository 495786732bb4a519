"""Sets environments apart that would otherwise be at the same step of their episodes for ever.

All envs of a batch start together. Where every episode has as many steps, as in many of POPGym's
tasks, they stay together, and each rollout is of one part of the episode: values follow that part
instead of learning it, and what the policy learns is lost in their error. With the same options
nothing is learned of POPGym's RepeatPreviousMedium in a million frames so, and nearly all of it
where envs are set apart (experiments/LOG.md, 2026-11-30).

So the first time that all envs end their episodes at one and the same step, they are dealt into
groups, four for each rollout that such an episode takes, and one group after the other starts a new
episode after each of the next rollouts. The episodes that are left then are not counted; values of
their last steps take the place of their ends. It is for tensors: other environments may refuse to
leave an episode.

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
MIN_ENVS = 4
"""Fewer are left as they are: they end an episode together by chance."""


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
            self._num_groups = min(max(num_groups, 2), MAX_GROUPS, num_envs * ranks.size())
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
    """Return the length of the episodes that all envs ended at the same step; 0: of none.

    Nor of episodes of which each rollout has whole ones: it has all of their parts.
    """
    done = rollout.terminated | rollout.truncated
    num_steps, num_envs = done.shape[0], done.shape[1] * ranks.size()
    ends = ranks.total(done.sum(1).float())
    if num_envs < MIN_ENVS or ends.max() < num_envs:
        return 0
    step = int(ends.argmax())
    length = int(ranks.total(rollout.episode_length[step].sum().float()) / num_envs)
    return length if num_steps % length else 0
