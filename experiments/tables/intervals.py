"""Statistics of a few seeds, as in rliable (Agarwal et al. 2021, arXiv 2108.13264), by SciPy.

The interquartile mean over all runs, and the probability that a run of one kind does better than
one of another, with percentile bootstrap intervals (95 %) that draw runs anew within each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; the interval is nan where every task has a single run."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def interquartile_mean(tasks: Sequence[Sequence[float]]) -> Estimate:
    """Return the mean of the middle half of all scores; of fewer than four scores, of all.

    Args:
        tasks: the scores of each task's runs.
    """
    return _estimate(_middle_mean, [np.array(task, dtype=float) for task in tasks])


def interquartile_curve(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the interquartile mean at each point, and the ends of its interval: (N,) each.

    Args:
        scores: (runs, N); with a single run all three are its scores.
    """
    mean = _middle_mean(scores, axis=0)
    if len(scores) < 2:
        return mean, mean, mean
    return mean, *_interval([scores], _middle_mean, axis=0)


def _middle_mean(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    from scipy import stats  # a second of imports, for `--help` too

    return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def probability_of_improvement(
    tasks: Sequence[Sequence[float]], other_tasks: Sequence[Sequence[float]]
) -> Estimate:
    """Return how probably a run does better than one of another kind, averaged over tasks.

    A tie counts half.

    Args:
        tasks: the scores of each task's runs.
        other_tasks: those of the other kind, for the same tasks.
    """
    pairs = list(zip(tasks, other_tasks, strict=True))
    samples = [np.array(scores, dtype=float) for pair in pairs for scores in pair]

    def probability(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        moved = [np.moveaxis(sample, axis, -1) for sample in samples]
        shares = [
            _share_above(ours, theirs) for ours, theirs in zip(moved[::2], moved[1::2], strict=True)
        ]
        return np.mean(shares, axis=0)

    return _estimate(probability, samples)


def _share_above(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    difference = ours[..., :, None] - theirs[..., None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-2, -1))


def _estimate(statistic: Callable[..., np.ndarray], samples: list[np.ndarray]) -> Estimate:
    value = float(statistic(*samples))
    several = [sample for sample in samples if len(sample) > 1]
    if not several:
        return Estimate(value, np.nan, np.nan)

    def redrawn(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        # SciPy redraws samples of two values and more; a single one is always itself
        rest = iter(np.moveaxis(sample, axis, -1) for sample in drawn)
        shape = np.moveaxis(drawn[0], axis, -1).shape[:-1]
        every = [
            next(rest) if len(sample) > 1 else np.broadcast_to(sample, (*shape, 1))
            for sample in samples
        ]
        return statistic(*every)

    low, high = _interval(several, redrawn)
    return Estimate(value, float(low), float(high))


def _interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], axis: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    from scipy import stats

    interval = stats.bootstrap(
        samples,
        statistic,
        n_resamples=NUM_RESAMPLES,
        method="percentile",
        vectorized=True,
        axis=axis,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return interval.low, interval.high
