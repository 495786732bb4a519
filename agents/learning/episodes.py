"""What is counted of the episodes in progress: their return, their length, and their cue.

Training needs none of it. Statistics of episodes, and what changes a memory on purpose, read it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@runtime_checkable
class Counted(Protocol):
    """What is counted of a step: see `agents.learning.rollout.Env.step`."""

    @property
    def reward(self) -> Tensor: ...
    @property
    def cue(self) -> Tensor | None: ...


@dataclass(frozen=True)
class EpisodeCounts:
    """Counts of the episodes in progress, one for each of B envs."""

    episode_return: Float[Tensor, " B"]
    episode_length: Int64[Tensor, " B"]
    cue: Int64[Tensor, " B"]  # the one that they saw last, -1 for none
    cue_age: Int64[Tensor, " B"]  # steps since then, -1 for never


Counts = TypeVar("Counts", bound=EpisodeCounts)


def count(counts: Counts, step: Counted) -> Counts:
    """Return the counts up to and with a step."""
    cue, cue_age = counts.cue, counts.cue_age
    if step.cue is not None:
        is_in_view = step.cue >= 0
        cue = torch.where(is_in_view, step.cue, cue)
        cue_age = torch.where(is_in_view, 0, cue_age + (cue_age >= 0))
    return replace(
        counts,
        episode_return=counts.episode_return + step.reward,
        episode_length=counts.episode_length + 1,
        cue=cue,
        cue_age=cue_age,
    )


def clear(counts: Counts, done: Bool[Tensor, " B"]) -> Counts:
    """Return the counts with those of new episodes where `done`."""
    return replace(
        counts,
        episode_return=torch.where(done, 0.0, counts.episode_return),
        episode_length=torch.where(done, 0, counts.episode_length),
        cue=torch.where(done, -1, counts.cue),
        cue_age=torch.where(done, -1, counts.cue_age),
    )


def no_counts(num_envs: int, device: torch.device) -> EpisodeCounts:
    """Return the counts of episodes that have not begun."""
    zeros = torch.zeros(num_envs, dtype=torch.int64, device=device)
    return EpisodeCounts(torch.zeros(num_envs, device=device), zeros, zeros - 1, zeros - 1)
