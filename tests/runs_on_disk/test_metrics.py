"""Episodes and evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.learning.rollout import Rollout
from mtxl_rl.runs.metrics import Episodes, EpisodeWindow, Evaluation, ended_episodes


def episodes(*successes: float, cue_ages: Sequence[float] | None = None) -> Episodes:
    success = np.array(successes)
    ages = np.full(len(success), np.nan) if cue_ages is None else np.array(cue_ages)
    cut = np.zeros(len(success), dtype=bool)
    return Episodes(success, success * 0.5, np.full(len(success), 7.0), ages, cut)


def test_ended_episodes_are_those_with_a_flag() -> None:
    nothing = torch.zeros(2, 2)
    rollout = Rollout(
        inputs=None,  # type: ignore[arg-type]
        initial_state=None,
        action=nothing,
        log_prob=nothing,
        value=nothing,
        reward=nothing,
        terminated=torch.tensor([[False, True], [False, False]]),
        truncated=torch.tensor([[False, False], [True, False]]),
        success=torch.tensor([[False, True], [False, False]]),
        final_value=nothing,
        next_value=torch.zeros(2),
        episode_return=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        episode_length=torch.tensor([[1, 2], [3, 4]]),
        cue_age=torch.tensor([[5, 6], [-1, 8]]),
    )
    ended = ended_episodes(rollout, has_success=True, has_cue=True)
    assert ended.success.tolist() == [1, 0]
    assert ended.return_.tolist() == [2, 3]
    assert ended.length.tolist() == [2, 3]
    assert ended.cue_age.tolist() == [6, -1]
    unknown = ended_episodes(rollout, has_success=False, has_cue=False)
    assert np.isnan(unknown.success).all()
    assert np.isnan(unknown.cue_age).all()


def test_joined_episodes_keep_their_order() -> None:
    joined = Episodes.joined([episodes(1, 0), episodes(), episodes(0)])
    assert joined.success.tolist() == [1, 0, 0]
    assert joined.return_.tolist() == [0.5, 0, 0]
    assert joined.length.tolist() == [7, 7, 7]


def test_evaluation_has_wilsons_interval() -> None:
    evaluation = Evaluation.of(episodes(*[1.0] * 8, 0.0, 0.0))
    assert evaluation.success_rate == 0.8
    # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = .8, n = 10, z = 1.96
    assert evaluation.success_interval == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert evaluation.mean_return == pytest.approx(0.4)
    assert evaluation.mean_length == 7


def test_success_that_is_not_defined_is_none() -> None:
    evaluation = Evaluation.of(episodes(math.nan, math.nan))
    assert evaluation.success_rate is None
    assert evaluation.success_interval is None
    assert "not defined" in evaluation.describe_success()


def test_tells_no_sight_of_the_cue_from_no_memory_of_it() -> None:
    evaluation = Evaluation.of(episodes(1, 1, 0, 0, 1, cue_ages=[3, 5, 7, -1, -1]))
    assert evaluation.cue_seen_rate == 0.6
    assert evaluation.success_rate_cue_seen == pytest.approx(2 / 3)
    assert evaluation.mean_cue_age == 5
    assert evaluation.describe_cue() == (
        "seen in 0.600 of the episodes, 5.0 steps before the end; success rate of those 0.667"
    )
    blind = Evaluation.of(episodes(1, 0, cue_ages=[-1, -1]))
    assert (blind.cue_seen_rate, blind.success_rate_cue_seen, blind.mean_cue_age) == (0, None, None)
    assert Evaluation.of(episodes(1, 0)).cue_seen_rate is None


def test_episodes_of_which_success_is_not_known_are_counted_apart() -> None:
    some = episodes(1, math.nan, 0, 1, math.nan)
    assert some.success_rate == pytest.approx(2 / 3)
    evaluation = Evaluation.of(some)
    assert evaluation.success_rate == some.success_rate
    assert evaluation.success_interval == Evaluation.of(episodes(1, 0, 1)).success_interval
    assert evaluation.success_unknown == 2
    assert Evaluation.of(episodes(math.nan)).success_unknown == 0  # of none is it known
    window = EpisodeWindow(size=5)
    window.add(some)
    assert window.success_rate == some.success_rate


def test_a_cut_episode_is_a_failure_where_there_is_success() -> None:
    columns = torch.tensor([[math.nan, 1, 9, -1], [1, 1, 9, -1], [math.nan, 1, 5, -1]])
    is_cut = torch.tensor([True, True, False])
    known = Episodes.of(columns, has_success=True, has_cue=False, is_cut=is_cut)
    np.testing.assert_array_equal(known.success, [0, 1, math.nan])
    assert Evaluation.of(known, max_steps=9).cut_episodes == 2
    unknown = Episodes.of(columns, has_success=False, has_cue=False, is_cut=is_cut)
    assert unknown.success_rate is None


def test_the_mean_return_has_students_interval() -> None:
    three = replace(episodes(0, 0, 1), return_=np.array([1.0, 2.0, 3.0]))
    evaluation = Evaluation.of(three)  # 2 -+ 4.303 / sqrt(3)
    assert evaluation.return_interval == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert Evaluation.of(episodes(1)).return_interval is None


def test_reaches_a_success_rate_or_a_return() -> None:
    window = EpisodeWindow(size=2)
    window.add(episodes(1))
    assert not window.reaches(0.1, 0.1)  # it is not full
    window.add(episodes(0))
    assert window.reaches(0.5)
    assert not window.reaches(0.6)
    assert window.reaches(None, 0.25)
    assert not window.reaches(0.6, 0.26)
    assert not window.reaches(None)


def test_window_keeps_the_last_episodes() -> None:
    window = EpisodeWindow(size=4)
    assert math.isnan(window.success_rate)
    window.add(episodes(0, 0, 0))
    assert not window.is_full
    window.add(episodes(1, 1))
    assert window.is_full
    assert window.success_rate == 0.5
    assert window.mean_return == 0.25
