"""What is measured: episodes that ended, and evaluations."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from agents.rollout import Rollout

WINDOW = 1000
"""Episodes over which the progress display and --stop-at-success average."""
SUCCESS_TAG = "charts/success_rate"
WINDOW_TAG = "charts/success_rate_window"
"""Of the last `WINDOW` episodes, from when there are as many."""
SPEED_TAG = "charts/SPS"


@dataclass(frozen=True)
class Episodes:
    """Episodes that ended, one entry each."""

    success: np.ndarray  # 1.0 or 0.0; nan where the environment does not define it
    return_: np.ndarray  # sum of rewards
    length: np.ndarray  # steps
    cue_age: np.ndarray  # steps since the cue was in view, -1 for never; nan: no cue is known

    @classmethod
    def of(cls, columns: Tensor, has_success: bool, has_cue: bool) -> Episodes:
        """Take apart `columns` (n, 4): success, return, length, age of the cue."""
        success, return_, length, cue_age = columns.double().cpu().numpy().T
        unknown = np.full_like(success, np.nan)
        return cls(
            success if has_success else unknown, return_, length, cue_age if has_cue else unknown
        )

    @classmethod
    def joined(cls, parts: Sequence[Episodes]) -> Episodes:
        """Put several together, in their order."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    @property
    def saw_cue(self) -> Episodes:
        """The episodes in which the cue was in view."""
        rows = self.cue_age >= 0
        return Episodes(*(column[rows] for column in vars(self).values()))


EPISODE_COLUMNS = ("success", "episode_return", "episode_length", "cue_age")
"""What a rollout or a step records of an episode that ends, in the order of `Episodes.of`."""


def ended_episodes(rollout: Rollout, has_success: bool, has_cue: bool) -> Episodes:
    """Return the episodes that ended within a rollout, in the order of time."""
    done = rollout.terminated | rollout.truncated
    columns = [getattr(rollout, name).double() for name in EPISODE_COLUMNS]
    return Episodes.of(torch.stack(columns, dim=-1)[done], has_success, has_cue)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Success is None where the environment does not define it; what is said of the cue is None where
    none is known or, of success and age, where no episode has seen it.
    """

    episodes: int
    success_rate: float | None
    success_interval: tuple[float, float] | None  # Wilson's, 95 %
    mean_return: float
    mean_length: float
    cue_seen_rate: float | None = None  # share of episodes in which the cue was in view
    success_rate_cue_seen: float | None = None  # of those episodes
    mean_cue_age: float | None = None  # steps from its last sight to the last decision, of those

    @classmethod
    def of(cls, episodes: Episodes) -> Evaluation:
        """Summarise episodes."""
        num_episodes = len(episodes.success)
        rate = _success_rate(episodes)
        interval = None
        if rate is not None:
            num_successes = round(rate * num_episodes)
            bounds = binomtest(num_successes, num_episodes).proportion_ci(method="wilson")
            interval = (round(float(bounds.low), 4), round(float(bounds.high), 4))
        saw_cue = episodes.saw_cue
        has_cue = num_episodes > 0 and not np.isnan(episodes.cue_age).any()
        return cls(
            episodes=num_episodes,
            success_rate=rate,
            success_interval=interval,
            mean_return=float(episodes.return_.mean()),
            mean_length=float(episodes.length.mean()),
            cue_seen_rate=len(saw_cue.success) / num_episodes if has_cue else None,
            success_rate_cue_seen=_success_rate(saw_cue),
            mean_cue_age=float(saw_cue.cue_age.mean()) if len(saw_cue.cue_age) else None,
        )

    def describe_success(self) -> str:
        """Return the success rate with its interval, for people."""
        if self.success_rate is None or self.success_interval is None:
            return "not defined by this environment"
        low, high = self.success_interval
        return f"{self.success_rate:.3f}  (95 % interval {low:.3f} to {high:.3f})"

    def describe_cue(self) -> str:
        """Return in how many episodes the cue was seen, and what came of it, for people."""
        assert self.cue_seen_rate is not None
        text = f"seen in {self.cue_seen_rate:.3f} of the episodes"
        if self.success_rate_cue_seen is None:
            return text
        return (
            f"{text}, {self.mean_cue_age:.1f} steps before the end; success rate of those "
            f"{self.success_rate_cue_seen:.3f}"
        )


def _success_rate(episodes: Episodes) -> float | None:
    if not len(episodes.success) or np.isnan(episodes.success).any():
        return None
    return float(episodes.success.mean())


class EpisodeWindow:
    """The last episodes that ended."""

    def __init__(self, size: int = WINDOW):
        self._rows: deque[tuple[float, float]] = deque(maxlen=size)

    def add(self, episodes: Episodes) -> None:
        """Append episodes."""
        self._rows.extend(zip(episodes.success, episodes.return_, strict=True))

    @property
    def is_full(self) -> bool:
        """Whether the window holds as many episodes as it can."""
        return len(self._rows) == self._rows.maxlen

    def state_dict(self) -> dict[str, Tensor]:
        """Return the episodes as a tensor (n, 2): success and return."""
        return {"episodes": torch.tensor(list(self._rows), dtype=torch.float64).reshape(-1, 2)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        if state["episodes"].dim() != 2 or state["episodes"].shape[1] != 2:
            raise ValueError(f"window.episodes is {tuple(state['episodes'].shape)}, not (n, 2)")
        self._rows.clear()
        self._rows.extend(tuple(row) for row in state["episodes"].tolist())

    def reaches(self, target: float | None) -> bool:
        """Return whether the window is full, and its success rate at `target` or above."""
        return target is not None and self.is_full and self.success_rate >= target

    @property
    def success_rate(self) -> float:
        """Mean success; nan without episodes or where it is not defined."""
        return self._mean(0)

    @property
    def mean_return(self) -> float:
        """Mean return; nan without episodes."""
        return self._mean(1)

    def _mean(self, column: int) -> float:
        return float(np.mean([row[column] for row in self._rows])) if self._rows else math.nan
