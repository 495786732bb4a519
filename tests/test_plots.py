"""Curves from run directories."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from agents.core import CoreConfig
from experiments import plots
from mtxl_rl.checkpoint import create_run
from mtxl_rl.config import TrainConfig
from mtxl_rl.metrics import Episodes, RunLogger


def make_run(folder: Path, config: TrainConfig, rates: list[float]) -> None:
    create_run(folder, config)
    logger = RunLogger(folder, config)
    for update, rate in enumerate(rates):
        one = np.array([rate])
        logger.log_episodes(Episodes(one, one, one, one), frames=100 * (update + 1))
    logger.close()


def test_reads_and_draws_every_run_by_core(tmp_path: Path) -> None:
    control = TrainConfig(core=CoreConfig(kind="feedforward"))
    make_run(tmp_path / "a", TrainConfig(), [0.0, 0.5, 1.0])
    make_run(tmp_path / "b", TrainConfig(seed=2), [0.5, 0.5])
    make_run(tmp_path / "c", control, [0.5, 0.5, 0.5])
    curves = plots.find_curves(tmp_path)
    assert {kind: len(of_kind) for kind, of_kind in curves.items()} == {"mtxl": 2, "feedforward": 1}
    assert {value: len(group) for value, group in plots.find_curves(tmp_path, "seed").items()} == {
        "1": 2,
        "2": 1,
    }
    with pytest.raises(ValueError, match="by='sead' must be an option: env, "):
        plots.find_curves(tmp_path, "sead")
    frames, success = plots.band(curves["mtxl"], num_points=3)
    assert frames.tolist() == [0, 100, 200]
    assert success.tolist() == [[0, 0, 0.5], [0.5, 0.5, 0.5]]
    plots.plot(tmp_path, tmp_path / "new" / "curves.png", smooth=2)
    assert iio.imread(tmp_path / "new" / "curves.png").std() > 0


def test_smoothing_averages_the_last_updates() -> None:
    frames, success = plots.smoothed((np.array([1, 2, 3]), np.array([0.0, 1.0, 2.0])), 2)
    assert frames.tolist() == [2, 3]
    assert success.tolist() == [0.5, 1.5]
    assert len(plots.smoothed((np.array([1]), np.array([0.5])), 9)[0]) == 1


def test_no_run_and_no_episode_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        plots.find_curves(tmp_path)
    make_run(tmp_path / "a", TrainConfig(), [])
    with pytest.raises(ValueError, match="has no charts/success_rate yet"):
        plots.find_curves(tmp_path)
