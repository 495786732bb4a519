"""Curves from run directories."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose

from agents.cores.core import core_config
from experiments import plots
from experiments.tables.runs import (
    RETURN,
    SUCCESS,
    Run,
    find_runs,
    gap_of,
    grouped,
    measure_of,
    varying_options,
)
from experiments.tables.table import table_rows, write_tables
from mtxl_rl.config import TrainConfig
from mtxl_rl.runs.metrics import RETURN_WINDOW_TAG, SPEED_TAG, WINDOW_TAG, Episodes
from mtxl_rl.runs.run_directory import create_run
from mtxl_rl.runs.run_logger import RunLogger


def make_run(
    folder: Path,
    config: TrainConfig,
    rates: list[float],
    speeds: Sequence[float] = (),
    has_success: bool = True,
) -> None:
    create_run(folder, config)
    logger = RunLogger(folder, config)
    for update, rate in enumerate(rates):
        one = np.array([rate])
        success = one if has_success else one * np.nan
        logger.log_episodes(Episodes(success, one, one, one, one < 0), frames=100 * (update + 1))
    for update, speed in enumerate(speeds):
        logger.log({SPEED_TAG: speed}, frames=100 * (update + 1))
    logger.close()


def finish(folder: Path, success_rate: float | None, **interventions: float) -> None:
    """Write an evaluation with a cue that was seen in every second episode."""
    evaluation = {
        "success_rate": success_rate,
        "parameters": 12_345,
        "state_floats": 4352,
        "mean_return": 400.0 if success_rate is None else 2 * success_rate,
        "cue_seen_rate": 0.5,
        "success_rate_cue_seen": None,
        "interventions": {name: {"success_rate": rate} for name, rate in interventions.items()},
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def test_groups_runs_that_differ_in_their_seed_only(tmp_path: Path) -> None:
    control = TrainConfig(core=core_config(kind="feedforward"))
    make_run(tmp_path / "a", TrainConfig(), [0.0, 0.5, 1.0])
    make_run(tmp_path / "b", TrainConfig(seed=2), [0.5, 0.5])
    make_run(tmp_path / "c", control, [0.5, 0.5, 0.5])
    runs = find_runs(tmp_path)
    assert varying_options(runs) == ["core.kind"]
    groups = grouped(runs, ["core.kind"])
    assert {kind: len(group) for kind, group in groups.items()} == {
        ("feedforward",): 1,
        ("mtxl",): 2,
    }
    assert list(grouped(runs, ["seed", "core.kind"])) == [
        ("1", "feedforward"), ("1", "mtxl"), ("2", "mtxl"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="by='sead' must be an option: env, "):
        grouped(runs, ["sead"])
    curves = [curve for run in groups["mtxl",] if (curve := run.curve(SUCCESS)) is not None]
    frames, success = plots.band(curves, [False, False], num_points=3)
    assert frames.tolist() == [0, 100, 200]
    assert success.tolist() == [[0, 0, 0.5], [0.5, 0.5, 0.5]]
    shorter = (np.array([50, 100]), np.array([0.5, 1.0]))
    for has_ended, expected in (
        ([False, True], [0, 150, 300]),  # it keeps its last value
        ([True, False], [0, 50, 100]),
        ([True, True], [0, 150, 300]),
    ):
        frames, success = plots.band([curves[0], shorter], has_ended, num_points=3)
        assert frames.tolist() == expected
        assert success[1, -1] == 1.0
    plots.plot(tmp_path, tmp_path / "new" / "curves.png", smooth=2)
    assert iio.imread(tmp_path / "new" / "curves.png").std() > 0


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    for mem_len in (128, 8, 16):
        config = TrainConfig(core=core_config(mem_len=mem_len))
        make_run(tmp_path / str(mem_len), config, [0.5])
    assert list(grouped(find_runs(tmp_path), ["core.mem_len"])) == [("8",), ("16",), ("128",)]


def test_the_table_says_what_the_memory_did(tmp_path: Path) -> None:
    for seed, rate in ((1, 0.9), (2, 1.0)):
        make_run(
            tmp_path / f"a{seed}", TrainConfig(seed=seed), [0.5], speeds=[1.0, 1e3 * seed, 9e9]
        )
        finish(tmp_path / f"a{seed}", rate, cleared=0.25 * seed)
        control = TrainConfig(seed=seed, core=core_config(kind="gru"))
        make_run(tmp_path / f"b{seed}", control, [0.5])
        finish(tmp_path / f"b{seed}", 0.5)
    make_run(tmp_path / "unfinished", TrainConfig(seed=3), [0.5])
    gru, mtxl = table_rows(find_runs(tmp_path), ["core.kind"])
    assert gru["kind"] == "gru"
    assert mtxl["seeds"] == "2"
    assert mtxl["parameters"] == "12,345"
    assert mtxl["floats of state"] == "4,352"
    assert mtxl["frames/s"] == "1,500"  # the median of 1,000 and 2,000
    assert gru["frames/s"] == ""
    assert mtxl["success (IQM, 95 % interval)"] == "0.950 (0.900 to 1.000)"
    assert mtxl["return"] == "1.900"
    assert mtxl["cue seen"] == "0.500"
    assert mtxl["success if seen"] == ""
    assert mtxl["memory cleared"] == "0.375"
    assert mtxl["better than the first row (probability)"] == "1.000 (1.000 to 1.000)"
    assert "better than the first row (probability)" not in gru
    write_tables(find_runs(tmp_path), ["core.kind"], tmp_path)
    assert (tmp_path / "table.csv").read_text().startswith("kind,seeds,")
    assert "success if seen" not in (tmp_path / "table.md").read_text()  # nothing to say


def test_reads_when_the_last_episodes_succeeded(tmp_path: Path) -> None:
    create_run(tmp_path / "run", TrainConfig())
    logger = RunLogger(tmp_path / "run", TrainConfig())
    for frames, rate in ((100, 0.5), (200, 0.96), (300, 0.9)):
        logger.log({WINDOW_TAG: rate}, frames)
    logger.close()
    run = Run.of(tmp_path / "run")
    solved = run.when_solved()
    assert solved is not None
    assert solved[0] == 200
    assert 0 <= solved[1] < 1
    assert run.when_solved(0.97) is None


@pytest.mark.parametrize(
    ("env_id", "gap"),
    [
        ("MiniGrid-MemoryS13-v0", 8),
        ("mtxl/MemoryS65Cue-v0", 60),
        ("mtxl/TMaze300Active-v0", 300),
        ("mtxl/Recall20-v0", 21),
        ("mtxl/Recall20x8-v0", 28),
        ("mtxl/Recall10to40x8-v0", None),
        ("mtxl/Recall20x8gap3-v0", None),
        ("mtxl/Recall20x8shows2-v0", None),
        ("mtxl/Junctions20-v0", 21),
        ("mtxl/Junctions20x4-v0", 30),
        ("MiniGrid-MemoryS9-v0", None),
        ("MiniGrid-MemoryS17Random-v0", None),
        ("CartPole-v1", None),
    ],
)
def test_knows_the_gap_of_a_task(env_id: str, gap: int | None) -> None:
    assert gap_of(env_id) == gap


@pytest.mark.parametrize(
    ("env_id", "chance"),
    [
        ("MiniGrid-MemoryS17Random-v0", 0.5),
        ("mtxl/MiniGrid-MemoryS7-v0", 0.5),
        ("mtxl/MemoryS9to13Cue-v0", 0.5),
        ("mtxl/TMaze10to40-v0", 0.5),
        ("mtxl/Recall10to160-v0", 0.5),
        ("mtxl/Recall20x4-v0", 0.0625),
        ("mtxl/Recall10to160x3gap4shows4-v0", 0.125),
        ("mtxl/Junctions20to160x3-v0", 0.125),
        ("mtxl/EndlessTMaze5to20x2-v0", 0.25),
        ("MiniGrid-Empty-5x5-v0", None),
        ("CartPole-v1", None),
    ],
)
def test_chance_is_a_line_where_it_is_known(env_id: str, chance: float | None) -> None:
    figure = plots.draw_gaps({"ours": {10: [1.0, 1.0]}}, [env_id, env_id])
    dotted = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    heights = [np.asarray(line.get_ydata()).tolist() for line in dotted]
    assert heights == ([] if chance is None else [[chance, chance]])
    plt.close("all")


def test_draws_the_gaps_and_the_heat_map(tmp_path: Path) -> None:
    for index, (length, mem_len, lmem_len) in enumerate(product((10, 20), (0, 8), (0, 4))):
        core = core_config(mem_len=mem_len, lmem_len=lmem_len)
        config = TrainConfig(env=f"mtxl/TMaze{length}-v0", core=core)
        make_run(tmp_path / str(index), config, [0.5])
        if index != 3:  # one is not finished
            finish(tmp_path / str(index), 0.1 * index)
    plots.plot(tmp_path, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"curves.png", "heat_map.png", "gaps.png", "table.md", "table.csv"}
    assert all(iio.imread(path).std() > 0 for path in (tmp_path / "out").glob("*.png"))


def test_the_heat_map_has_short_memory_by_row(tmp_path: Path) -> None:
    for index, (mem_len, lmem_len) in enumerate(product((0, 8), (0, 2, 4))):
        core = core_config(mem_len=mem_len, lmem_len=lmem_len)
        make_run(tmp_path / str(index), TrainConfig(core=core), [0.5])
        if index != 3:
            finish(tmp_path / str(index), 0.1 * index)
    axes = plots.draw_heat_map(find_runs(tmp_path)).axes[0]
    shown = np.ma.filled(np.ma.asarray(axes.images[0].get_array()).astype(float), np.nan)
    assert_allclose(shown, [[0, 0.1, 0.2], [np.nan, 0.4, 0.5]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "8"]
    plt.close("all")


def test_gaps_are_lines_of_interquartile_means() -> None:
    figure = plots.draw_gaps(
        {"ours": {100: [0.5, 0.7], 10: [1.0, 1.0]}, "theirs": {10: [0.5]}}, ["CartPole-v1"]
    )
    lines = {str(line.get_label()): line.get_xydata() for line in figure.axes[0].lines}
    assert_allclose(np.asarray(lines["ours"]), [[10, 1], [100, 0.6]])
    assert_allclose(np.asarray(lines["theirs"]), [[10, 0.5]])
    plt.close("all")


def test_smoothing_averages_the_last_updates() -> None:
    frames, success = plots.smoothed((np.array([1, 2, 3]), np.array([0.0, 1.0, 2.0])), 2)
    assert frames.tolist() == [2, 3]
    assert success.tolist() == [0.5, 1.5]
    assert len(plots.smoothed((np.array([1]), np.array([0.5])), 9)[0]) == 1


def test_a_seed_counts_once(tmp_path: Path) -> None:
    """Of three runs of it the newest that is finished, whatever machine they ran on."""
    for when, (name, seed, threads, rate) in enumerate(
        [("a", 1, 1, 0.1), ("b", 1, 2, 0.3), ("c", 1, 1, None), ("d", 2, 1, 0.7)]
    ):
        make_run(tmp_path / name, TrainConfig(seed=seed, num_threads=threads), [0.5])
        if rate is not None:
            finish(tmp_path / name, rate)
            os.utime(tmp_path / name / "evaluation.json", (when, when))
    with pytest.warns(RuntimeWarning, match=f"not {tmp_path / 'a'}, {tmp_path / 'c'}$"):
        plots.plot(tmp_path)
    assert "| 2 | 12,345 | 4,352 | 0.500 (0.300 to 0.700) |" in (tmp_path / "table.md").read_text()
    with pytest.warns(RuntimeWarning, match=f"not {tmp_path / 'c'}$"):  # then b is no copy
        plots.plot(tmp_path, tmp_path / "by", by=("seed", "num_threads"))
    assert (tmp_path / "by" / "table.md").read_text().count("\n| 1 | ") == 2
    plt.close("all")


def test_no_run_and_no_episode_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        find_runs(tmp_path)
    make_run(tmp_path / "a", TrainConfig(), [])
    with pytest.raises(ValueError, match="has no run in which an episode has ended"):
        plots.plot(tmp_path)


def test_all_of_it_is_of_returns_where_there_is_no_success(tmp_path: Path) -> None:
    for index, (mem_len, lmem_len) in enumerate(product((0, 8), (0, 4))):
        core = core_config(mem_len=mem_len, lmem_len=lmem_len)
        config = TrainConfig(env="CartPole-v1", core=core, stop_at_return=300.0)
        folder = tmp_path / "runs" / str(index)
        make_run(folder, config, [20.0, 400.0], has_success=False)
        logger = RunLogger(folder, config, go_on_from=200)
        logger.log({RETURN_WINDOW_TAG: 310.0 + 10 * index}, 200)
        logger.log({RETURN_WINDOW_TAG: 290.0}, 300)
        logger.close()
        finish(folder, None, cleared=3.0)
        values = json.loads((folder / "evaluation.json").read_text())
        values["mean_return"] = 100.0 * index
        values["interventions"]["cleared"] |= {"success_rate": None, "mean_return": 7.0}
        (folder / "evaluation.json").write_text(json.dumps(values))
    runs = find_runs(tmp_path / "runs")
    assert measure_of(runs) is RETURN
    row = table_rows(runs, ["core.mem_len"])[1]
    assert row["return (IQM, 95 % interval)"].startswith("250.000")
    assert row["MMER (IQM, 95 % interval)"].startswith("335.000")
    assert row["success (IQM, 95 % interval)"] == ""
    assert row["memory cleared"] == "7.000"
    assert row["reached 300"] == "2 of 2"
    assert row["better than the first row (probability)"].startswith("1.000")
    axes = plots.draw_heat_map(runs).axes[0]
    assert axes.images[0].get_clim() == (0, 300)
    assert axes.get_title() == "return in CartPole-v1"
    axes = plots.draw_curves(runs, ["core.mem_len"]).axes[0]
    assert axes.get_ylabel() == "return"
    assert np.asarray(axes.lines[0].get_ydata()).max() == 400
    plots.plot(tmp_path / "runs", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"curves.png", "heat_map.png", "table.md", "table.csv"}


def test_a_run_with_success_among_those_without_decides(tmp_path: Path) -> None:
    make_run(tmp_path / "a", TrainConfig(env="CartPole-v1"), [20.0], has_success=False)
    assert measure_of(find_runs(tmp_path)) is RETURN
    make_run(tmp_path / "b", TrainConfig(), [0.5])
    assert measure_of(find_runs(tmp_path)) is SUCCESS


def test_a_run_without_episodes_does_not_stand_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "a", TrainConfig(), [0.5, 0.5])
    make_run(tmp_path / "b", TrainConfig(seed=2), [])
    finish(tmp_path / "a", 0.5)
    plots.plot(tmp_path)
    assert f"no success rate yet in {tmp_path / 'b'}" in capsys.readouterr().out
    assert (tmp_path / "table.md").is_file()
    assert iio.imread(tmp_path / "curves.png").std() > 0
