"""What is measured: episodes that ended, and evaluations."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents import ranks
from agents.learning.rollout import Rollout

WINDOW = 1000
"""Episodes over which the progress display, --stop-at-success and --stop-at-return average."""
SUCCESS_TAG = "charts/success_rate"
WINDOW_TAG = "charts/success_rate_window"
"""Of the last `WINDOW` episodes, from when there are as many."""
RETURN_TAG = "charts/episodic_return"
RETURN_WINDOW_TAG = "charts/episodic_return_window"
SPEED_TAG = "charts/SPS"


@dataclass(frozen=True)
class Episodes:
    """Episodes that ended, one entry each."""

    success: np.ndarray  # 1.0 or 0.0; nan where it is not known
    return_: np.ndarray  # sum of rewards
    length: np.ndarray  # steps
    cue_age: np.ndarray  # steps since the cue was in view, -1 for never; nan: no cue is known
    is_cut: np.ndarray  # whether an evaluation has cut it off

    @classmethod
    def of(
        cls, columns: Tensor, has_success: bool, has_cue: bool, is_cut: Tensor | None = None
    ) -> Episodes:
        """Take apart `columns` (n, 4): success or nan, return, length, age of the cue."""
        success, return_, length, cue_age = columns.cpu().double().numpy().T
        cut = np.zeros(len(success), dtype=bool) if is_cut is None else is_cut.cpu().numpy()
        unknown = np.full_like(success, np.nan)
        # not to have ended in time is a failure
        success = np.where(cut & np.isnan(success), 0.0, success) if has_success else unknown
        return cls(success, return_, length, cue_age if has_cue else unknown, cut)

    @classmethod
    def joined(cls, parts: Sequence[Episodes]) -> Episodes:
        """Put several together, in their order."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    @property
    def success_rate(self) -> float | None:
        """Of the episodes of which it is known; None where it is of none."""
        known = self.success[~np.isnan(self.success)]
        return float(known.mean()) if len(known) else None

    @property
    def saw_cue(self) -> Episodes:
        """The episodes in which the cue was in view."""
        rows = self.cue_age >= 0
        return Episodes(*(column[rows] for column in vars(self).values()))


EPISODE_COLUMNS = ("success", "episode_return", "episode_length", "cue_age")
"""What a rollout or a step records of an episode that ends, in the order of `Episodes.of`."""


def ended_episodes(rollout: Rollout, has_success: bool, has_cue: bool) -> Episodes:
    """Return the episodes that ended within a rollout, of all ranks, in the order of time."""
    done = (rollout.terminated | rollout.truncated).cpu()
    columns = [getattr(rollout, name).cpu().double() for name in EPISODE_COLUMNS]
    ended = torch.stack(columns, dim=-1)[done]
    steps = done.nonzero()[:, 0]
    parts = ranks.gather_objects((steps, ended, has_success))
    order = torch.cat([steps for steps, _, _ in parts]).argsort(stable=True)  # then by envs
    is_known = any(has for _, _, has in parts)  # an episode's end may be the first to say so
    return Episodes.of(torch.cat([each for _, each, _ in parts])[order], is_known, has_cue)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Success is None where it is known of no episode; what is said of the cue is None where none is
    known or, of success and age, where no episode has seen it.
    """

    episodes: int
    success_rate: float | None  # of the episodes of which it is known
    success_interval: tuple[float, float] | None  # Wilson's, 95 %, of two or more
    mean_return: float
    mean_length: float
    cue_seen_rate: float | None = None  # share of episodes in which the cue was in view
    success_rate_cue_seen: float | None = None  # of those episodes
    mean_cue_age: float | None = None  # steps from its last sight to the last decision, of those
    return_interval: tuple[float, float] | None = None  # of the mean, Student's t, 95 %
    success_unknown: int = 0  # episodes of which success is not known, where it is of others
    cut_episodes: int = 0  # that did not end within `max_steps`
    max_steps: int | None = None  # after which episodes were cut; None: never

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it, which has no word for a number that is not finite: None."""

        def known(value: Any) -> Any:
            if isinstance(value, tuple):
                return [known(part) for part in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {name: known(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def of(
        cls,
        episodes: Episodes,
        max_steps: int | None = None,
        shares: np.ndarray | None = None,
    ) -> Evaluation:
        """Summarise episodes.

        Args:
            episodes: that were played.
            max_steps: after which they were cut, None: never.
            shares: how often each is met, where they are all that there are: means are weighted by
                it, and no sample, so that there are no intervals. None: they are a sample.
        """
        num_episodes = len(episodes.success)
        is_known = ~np.isnan(episodes.success)
        num_known = int(is_known.sum())

        def mean(values: np.ndarray, rows: np.ndarray) -> float | None:
            weights = None if shares is None else shares[rows]
            return float(np.average(values[rows], weights=weights)) if rows.any() else None

        rate = mean(episodes.success, is_known)
        interval = None
        if rate is not None and num_known > 1 and shares is None:
            from scipy import stats  # half a second

            bounds = stats.binomtest(round(rate * num_known), num_known).proportion_ci(
                method="wilson"
            )
            interval = (round(float(bounds.low), 4), round(float(bounds.high), 4))
        saw_cue = episodes.cue_age >= 0
        has_cue = num_episodes > 0 and not np.isnan(episodes.cue_age).any()
        every = np.ones(num_episodes, dtype=bool)
        return_, length = mean(episodes.return_, every), mean(episodes.length, every)
        assert return_ is not None
        assert length is not None
        return cls(
            episodes=num_episodes,
            success_rate=rate,
            success_interval=interval,
            mean_return=return_,
            mean_length=length,
            cue_seen_rate=mean(saw_cue.astype(float), every) if has_cue else None,
            success_rate_cue_seen=mean(episodes.success, saw_cue & is_known),
            mean_cue_age=mean(episodes.cue_age, saw_cue),
            return_interval=_mean_interval(episodes.return_) if shares is None else None,
            success_unknown=0 if rate is None else num_episodes - num_known,
            cut_episodes=int(episodes.is_cut.sum()),
            max_steps=max_steps,
        )

    def describe_success(self) -> str:
        """Return the success rate with its interval, for people."""
        if self.success_rate is None:
            return "not defined by this environment"
        text = f"{self.success_rate:.3f}"
        if self.success_interval is not None:
            text += "  (95 % interval {:.3f} to {:.3f})".format(*self.success_interval)
        if self.success_unknown:
            text += f"; {self.success_unknown} of {self.episodes} episodes did not say"
        return text

    def describe_return(self) -> str:
        """Return mean return and length, and how many episodes were cut, for people."""
        text = f"{self.mean_return:.3f}"
        if self.return_interval is not None:
            text += "  (95 % interval {:.3f} to {:.3f})".format(*self.return_interval)
        text += f", mean length {self.mean_length:.1f}"
        if self.cut_episodes:
            text += f"; {self.cut_episodes} of {self.episodes} episodes were cut at "
            text += f"{self.max_steps:,} steps"
        return text

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


def _mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return round(float(values.mean() - half), 4), round(float(values.mean() + half), 4)


class EpisodeWindow:
    """The last episodes that ended."""

    def __init__(self, size: int = WINDOW):
        self.longest = 0
        """Steps of the longest episode of all."""
        self._rows: deque[tuple[float, float]] = deque(maxlen=size)

    def add(self, episodes: Episodes) -> None:
        """Append episodes."""
        self._rows.extend(zip(episodes.success, episodes.return_, strict=True))
        self.longest = max(self.longest, int(episodes.length.max(initial=0)))

    @property
    def is_full(self) -> bool:
        """Whether the window holds as many episodes as it can."""
        return len(self._rows) == self._rows.maxlen

    def state_dict(self) -> dict[str, Tensor]:
        """Return the episodes as a tensor (n, 2), success and return, and the longest's steps."""
        rows = torch.tensor(list(self._rows), dtype=torch.float64).reshape(-1, 2)
        return {"episodes": rows, "longest": torch.tensor(self.longest)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`."""
        if state["episodes"].dim() != 2 or state["episodes"].shape[1] != 2:
            raise ValueError(f"window.episodes is {tuple(state['episodes'].shape)}, not (n, 2)")
        self.longest = int(state.get("longest", 0))  # earlier checkpoints have none
        self._rows.clear()
        self._rows.extend(tuple(row) for row in state["episodes"].tolist())

    def reaches(self, success: float | None, return_: float | None = None) -> bool:
        """Return whether the window is full, and its mean at one of the targets or above."""
        targets = ((success, self.success_rate), (return_, self.mean_return))
        return self.is_full and any(goal is not None and mean >= goal for goal, mean in targets)

    @property
    def success_rate(self) -> float:
        """Mean success of the episodes of which it is known; nan where it is of none."""
        known = [success for success, _ in self._rows if not math.isnan(success)]
        return float(np.mean(known)) if known else math.nan

    @property
    def mean_return(self) -> float:
        """Mean return; nan without episodes."""
        return float(np.mean([return_ for _, return_ in self._rows])) if self._rows else math.nan
