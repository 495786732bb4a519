"""Statistics of a few seeds, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from experiments.tables.intervals import (
    interquartile_curve,
    interquartile_mean,
    probability_of_improvement,
)


def test_interquartile_mean_is_that_of_the_middle_half_over_all_tasks() -> None:
    estimate = interquartile_mean([[0.0, 0.5, 0.6, 1.0], [0.1, 0.7, 0.8, 0.9]])
    assert estimate.value == pytest.approx((0.5 + 0.6 + 0.7 + 0.8) / 4)
    assert 0 < estimate.low < estimate.value < estimate.high < 1


def test_intervals_draw_within_tasks() -> None:
    """Runs of one task that are alike leave nothing to chance, however far tasks are apart."""
    estimate = interquartile_mean([[0.2, 0.2, 0.2], [0.8, 0.8, 0.8]])
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_single_run_has_no_interval() -> None:
    estimate = interquartile_mean([[0.25]])
    assert estimate.value == 0.25
    assert math.isnan(estimate.low)
    assert str(estimate) == "0.250"


@pytest.mark.parametrize(
    "tasks", [[[0.25], [0.5, 0.7]], [[0.0], [1.0, 1.0, 1.0]], [[1.0, 0.5], [0]]]
)
def test_a_task_with_a_single_run_is_never_redrawn(tasks: list[list[float]]) -> None:
    estimate = interquartile_mean(tasks)
    assert estimate.low <= estimate.value <= estimate.high


def test_a_curve_has_the_estimate_of_each_of_its_points() -> None:
    scores = np.random.default_rng(1).random((5, 3))
    for point, curve in enumerate(zip(*interquartile_curve(scores), strict=True)):
        estimate = interquartile_mean([scores[:, point].tolist()])
        assert curve == pytest.approx((estimate.value, estimate.low, estimate.high))


def test_a_curve_of_a_single_run_is_its_own_interval() -> None:
    scores = np.array([[0.25, 0.5]])
    assert [each.tolist() for each in interquartile_curve(scores)] == [[0.25, 0.5]] * 3


def test_probability_of_improvement_counts_pairs_and_ties() -> None:
    # task 1: of 4 pairs 3 are above, 1 is a tie; task 2: all 2 are below
    estimate = probability_of_improvement([[0.5, 0.9], [0.1]], [[0.5, 0.4], [0.2, 0.3]])
    assert estimate.value == pytest.approx((3.5 / 4 + 0) / 2)
    assert estimate.low <= estimate.value <= estimate.high
    assert probability_of_improvement([[1.0, 1.0]], [[0.0, 0.0]]).low == 1
