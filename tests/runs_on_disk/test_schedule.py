"""Progress of a run."""

from __future__ import annotations

import pytest

from mtxl_rl.runs.schedule import Schedule


def test_goes_from_0_to_1() -> None:
    schedule = Schedule(1000, frames_per_update=10)
    assert [schedule.progress(frames) for frames in (0, 250, 1000)] == [0, 0.25, 1]
    assert not schedule.is_winding_down


def test_winds_down_from_where_it_is_within_a_quarter_as_many_frames() -> None:
    schedule = Schedule(1000, frames_per_update=2)
    schedule.wind_down(400)
    assert schedule.is_winding_down
    assert schedule.end_frames == 500
    assert schedule.progress(400) == pytest.approx(0.4)
    assert schedule.progress(450) == pytest.approx(0.7)
    assert schedule.progress(500) == pytest.approx(1)


def test_winds_down_over_ten_updates_at_least() -> None:
    """So that a run that starts at its target ends with a small step size too."""
    schedule = Schedule(1000, frames_per_update=8)
    schedule.wind_down(8)
    updates = [schedule.progress(frames) for frames in range(8, schedule.end_frames, 8)]
    assert len(updates) == 10
    assert updates[-1] > 0.9


def test_never_ends_later_than_it_would_have() -> None:
    schedule = Schedule(1000, frames_per_update=1)
    schedule.wind_down(960)
    assert schedule.end_frames == 1000
    assert schedule.progress(980) == pytest.approx(0.98)
    assert schedule.progress(1000) == pytest.approx(1)
