"""Grids of runs: nothing is run twice, a failure stays alone, a kill loses little."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from recall_env import RecallEnv
from small_grid import ablation

from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.ppo import PPOConfig
from experiments.ablation import GridConfig, grid
from experiments.grids import local, work
from experiments.grids.grid import Cell, make_cells, parse_axes
from experiments.grids.widths import sizes_for, width_for
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.json_form import to_json
from mtxl_rl.runs.checkpoint import list_checkpoints

TINY = TrainConfig(
    env="mtxl/Recall6-v0",
    total_frames=512,
    num_envs=16,
    eval_episodes=20,
    device="cpu",
    num_threads=1,
    core=core_config(dim=8, heads=2, depth=1, seq_len=4),
    ppo=PPOConfig(rollout_len=16, num_minibatches=2),
)
RECALL = RecallEnv(num_envs=1, delay=6)
OPTIONS = (
    "--env", "mtxl/Recall6-v0", "--total-frames", "512", "--num-envs", "16",
    "--eval-episodes", "20", "--device", "cpu", "--num-threads", "1", "--core.dim", "8",
    "--core.heads", "2", "--core.depth", "1", "--core.seq-len", "4", "--ppo.rollout-len", "16",
    "--ppo.num-minibatches", "2",
)  # fmt: skip


def when_finished(cells: list[Cell]) -> dict[str, int]:
    paths = {cell.name: cell.run_dir / "evaluation.json" for cell in cells}
    return {name: path.stat().st_mtime_ns for name, path in paths.items() if path.is_file()}


@pytest.mark.slow
def test_a_killed_grid_goes_on_where_it_was(tmp_path: Path) -> None:
    arguments = ("memory_lengths", *OPTIONS, "--mem-len", "0", "4", "--lmem-len", "0", "2",
                 "--seeds", "1", "--jobs", "1", "--folder", str(tmp_path))  # fmt: skip
    axes = {"core.mem_len": ["0", "4"], "core.lmem_len": ["0", "2"]}
    cells = make_cells(tmp_path, TINY, axes, num_seeds=1)
    first = ablation(*arguments)
    assert first.stdout is not None
    while "finished      mem_len" not in first.stdout.readline():
        assert first.poll() is None
    time.sleep(1)  # the second cell has started
    first.kill()
    first.communicate()
    finished_first = when_finished(cells)
    assert 1 <= len(finished_first) < 4

    second = ablation(*arguments)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert set(when_finished(cells)) == {cell.name for cell in cells}
    finished_second = when_finished(cells)
    assert finished_second.items() >= finished_first.items()
    assert "4 cells, " in out
    rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| mem_len", "lmem_len"], ["| 0", "0"], ["| 0", "2"], ["| 4", "0"], ["| 4", "2"],
    ]  # fmt: skip
    assert (tmp_path / "table.csv").read_text().count("\n") == 5
    for picture in ("curves.png", "heat_map.png"):
        assert iio.imread(tmp_path / picture).std() > 0
    assert json.loads((cells[3].run_dir / "config.json").read_text())["core"]["lmem_len"] == 2

    third = ablation(*arguments)  # all is there: nothing is run
    out, _ = third.communicate(timeout=300)
    assert "4 cells, 4 finished before" in out
    assert when_finished(cells) == finished_second


@pytest.mark.slow
def test_a_cell_that_fails_stays_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    process = ablation("grid", *OPTIONS, "--seeds", "1", "--folder", str(tmp_path), "--jobs", "2",
                       "--over", "env", "broken_env:Broken-v0", "mtxl/Recall6-v0")  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "failed        env=broken_env_Broken-v0,seed=1: exit code 1" in out
    assert "RuntimeError: the simulator crashed" in err
    assert "error: 1 of 2 cells failed; the same command tries them again" in err
    rows = [line for line in out.splitlines() if line.startswith("| mtxl/Recall6-v0 | 1 |")]
    assert len(rows) == 1


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.slow
def test_stopped_it_stops_its_runs_and_they_go_on_later(tmp_path: Path) -> None:
    arguments = ("grid", *OPTIONS, "--total-frames", "100000000", "--compile", "off",
                 "--over", "core.mem-len", "0", "--seeds", "1",
                 "--folder", str(tmp_path))  # fmt: skip
    process = ablation(*arguments)
    log = tmp_path / ".cells" / "mem_len=0,seed=1.log"

    def stop_when_it_trains(process: subprocess.Popen[str], number: signal.Signals) -> str:
        for _ in range(600):
            if log.is_file() and "Run:" in log.read_text():
                break
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, number)  # as a terminal does
        process.communicate(timeout=60)
        assert process.returncode == 130
        said = log.read_text()
        log.unlink()
        assert "stopped by SIGINT; what was trained" in said
        return said

    assert "Resumed:" not in stop_when_it_trains(process, signal.SIGINT)
    (saved,) = list_checkpoints(tmp_path / "mem_len=0,seed=1")
    frames = int(saved.name.removeprefix("frames_"))
    for number in (signal.SIGHUP, signal.SIGTERM):
        said = stop_when_it_trains(ablation(*arguments), number)
        assert f"Resumed:      from {frames:,} frames" in said
        frames_before = frames
        frames = int(list_checkpoints(saved.parents[1])[-1].name.removeprefix("frames_"))
        assert frames > frames_before


def test_names_and_orders_cells_by_seed() -> None:
    cells = make_cells(Path("grid"), TINY, {"core.memory_layers": ["1", "None"]}, num_seeds=2)
    assert [cell.name for cell in cells] == [
        "memory_layers=1,seed=1", "memory_layers=None,seed=1",
        "memory_layers=1,seed=2", "memory_layers=None,seed=2",
    ]  # fmt: skip
    assert cells[2].config.seed == 2
    assert asdict(cells[2].config.core)["memory_layers"] == (1,)
    assert cells[2].run_dir == Path("grid/memory_layers=1,seed=2")


def test_goes_on_from_the_cells_of_another_grid() -> None:
    axes = {"core.mem_len": ["0", "4"]}
    cells = make_cells(Path("second"), TINY, axes, num_seeds=2, after=Path("first"))
    assert cells[1].config.init_from == Path("first/mem_len=4,seed=1")
    assert cells[1].run_dir == Path("second/mem_len=4,seed=1")


def test_cells_of_equal_parameters_or_state_differ_in_their_width(
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = replace(TINY, core=core_config(dim=64, heads=4, depth=2))
    kinds = ["mtxl", "gtrxl", "gru", "lstm", "mingru", "deltanet", "feedforward"]
    cells = make_cells(Path("grid"), base, {"core.kind": kinds}, 2, equal="parameters")
    said = capsys.readouterr().out
    assert cells[0].config.core == base.core
    assert len(cells) == 14
    widths, sizes = {}, {}
    for cell in cells[:7]:
        core = cell.config.core
        assert f"kind={core.kind}: width {core.dim}, " in said
        agent = ActorCritic(RECALL.observation_space, RECALL.action_space, core)
        found = sum(parameter.numel() for parameter in agent.parameters())
        assert f"width {core.dim}, {found:,} parameters, " in said
        sizes[core.kind] = found
        assert core.dim % 4 == 0 or core.kind not in ("mtxl", "gtrxl", "deltanet")
        widths[core.kind] = core.dim
    for found in sizes.values():
        assert found == pytest.approx(sizes["mtxl"], rel=0.07)  # heads make steps of 4
    assert widths["gru"] > widths["lstm"] > widths["mtxl"]

    kinds.remove("feedforward")
    cells = make_cells(Path("grid"), base, {"core.kind": kinds}, 1, equal="state_floats")
    layers, state = 2, 2 * 32 * 64 + 4 * 64
    found = {cell.config.core.kind: cell.config.core.dim for cell in cells}
    assert found["gru"] == found["mingru"] == state / layers
    assert found["lstm"] == state / layers / 2
    assert found["gtrxl"] == 68  # 2 x 32 x 68 = 4352
    for axes, words in (
        ({"core.kind": ["feedforward"]}, "the core feedforward has a size of 0 at every width"),
        ({"core.dim": ["8", "16"]}, "core.dim cannot be varied with equal='state_floats'"),
    ):
        with pytest.raises(ValueError, match=words):
            make_cells(Path("grid"), base, axes, 1, equal="state_floats")


def test_sizes_are_found_without_drawing_weights() -> None:
    before = torch.get_rng_state()
    spaces = RECALL.observation_space, RECALL.action_space
    sizes = sizes_for(core_config(kind="lstm", chrono=9), *spaces)
    assert torch.equal(torch.get_rng_state(), before)
    assert sizes == ActorCritic(*spaces, core_config(kind="lstm")).sizes


def test_width_for_comes_nearest() -> None:
    gru, deltanet = core_config(kind="gru"), core_config(kind="deltanet", heads=4)
    for target, expected in ((0, 1), (1, 1), (2, 1), (3, 2), (89, 9), (91, 10), (100, 10)):
        assert width_for(target, gru, lambda core: core.dim**2) == expected
    for target, expected in ((1, 4), (90, 8), (119, 12), (10_000, 100)):
        assert width_for(target, deltanet, lambda core: core.dim**2) == expected


def test_controls_leave_out_what_they_do_not_have() -> None:
    core = core_config(
        dim=8,
        heads=2,
        depth=1,
        seq_len=4,
        lmem_len=2,
        mem_write="seed",
        mem_write_gain=2.0,
    )
    base = replace(TINY, core=core)
    kinds = ["mtxl", "gtrxl", "gru", "deltanet"]
    cells = make_cells(Path("grid"), base, {"core.kind": kinds}, num_seeds=1)
    assert [cell.config.core for cell in cells] == [
        base.core,
        core_config(kind="gtrxl", dim=8, heads=2, depth=1, seq_len=4),
        core_config(kind="gru", dim=8, depth=1),
        core_config(kind="deltanet", dim=8, depth=1, heads=2),
    ]
    base = replace(TINY, core=core_config(kind="gru", dim=8, chrono=100))
    cells = make_cells(Path("grid"), base, {"core.kind": ["lstm", "mtxl"]}, num_seeds=1)
    assert [cell.config.core for cell in cells] == [
        core_config(kind="lstm", dim=8, chrono=100),
        core_config(dim=8),
    ]
    axes = {"core.kind": ["gru", "mingru"], "core.chrono": ["None", "9"]}
    cells = make_cells(Path("grid"), TINY, axes, num_seeds=1)
    assert [asdict(cell.config.core)["chrono"] for cell in cells] == [None, 9, None, 9]


def test_reads_values_as_the_command_line_does() -> None:
    axes = parse_axes(
        [
            ("core.gate", "nbrc", "gru"),
            ("core.mogrify", "True"),
            ("core.memory-layers", "1", "None"),
        ]
    )
    cells = make_cells(Path("grid"), TINY, axes, 1)
    cores = [asdict(cell.config.core) for cell in cells]
    assert [(core["gate"], core["mogrify"], core["memory_layers"]) for core in cores] == [
        ("nbrc", True, (1,)), ("nbrc", True, None), ("gru", True, (1,)), ("gru", True, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"core.mem_length": ["1"]}, "'core.mem_length' is not an option; did you mean core.mem_"),
        ({"core.mem_len": ["8", "8"]}, "must be one or more different values"),
        ({"core.mem_len": []}, "must be one or more different values"),
        ({"core.mem_len": ["8.5"]}, "cell mem_len=8.5: see above"),
        ({"core.gate": ["grru"]}, "cell gate=grru: see above"),
        (
            {"core.kind": ["mtxl", "gru"], "core.mem_len": ["4"]},
            "core.mem_len has no effect",
        ),
        ({"core.heads": ["3"]}, "cell heads=3: heads=3 must divide dim=8"),
        ({"env": ["mtxl/TMaze5-v0"]}, "cell env=mtxl_TMaze5-v0: length=5 must be from 7"),
        (
            {"env": ["CartPole-v1"], "env_kwargs.sutton_reward": ["true", "false"]},
            "cell env=CartPole-v1,sutton_reward=true: env_kwargs names 'sutton_reward', which the "
            "constructor of env='CartPole-v1' does not know; did you mean sutton_barto_reward?",
        ),
        ({"env_kwargs.delay": ["9"]}, "cell delay=9: env_kwargs names 'delay', which the constr"),
        ({"seed": ["1", "2"]}, "seed cannot be varied in a grid; set --seeds"),
        ({"run_dir": ["a", "b"]}, "run_dir cannot be varied in a grid; set --folder"),
    ],
)
def test_bad_grids_are_rejected_before_anything_runs(
    axes: dict[str, list[str]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make_cells(tmp_path, TINY, axes, 1)
    assert not list(tmp_path.iterdir())


def test_other_mistakes_of_a_grid(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds=0 must be 1 or more"):
        make_cells(tmp_path, TINY, {"core.mem_len": ["8"]}, 0)
    with pytest.raises(ValueError, match=r"over names core\.gate twice"):
        parse_axes([("core.gate", "nbrc"), ("core.gate", "gru")])
    with pytest.raises(ValueError, match="over is empty"):
        parse_axes([()])
    with pytest.raises(ValueError, match="init_from cannot be varied in a grid; set --after"):
        make_cells(tmp_path, TINY, {"init_from": ["a"]}, 1, after=Path("first"))


def test_will_not_go_on_with_another_grid_in_the_folder(tmp_path: Path) -> None:
    cell = make_cells(tmp_path, TINY, {"core.mem_len": ["8"]}, 1)[0]
    cell.run_dir.mkdir()
    other = to_json(TrainConfig(env="mtxl/Recall20-v0"))
    (cell.run_dir / "config.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="env is mtxl/Recall20-v0 there and mtxl/Recall6-v0 here"):
        make_cells(tmp_path, TINY, {"core.mem_len": ["8"]}, 1)


def test_a_grid_says_where_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    options = GridConfig(folder=tmp_path / "file", seeds=1)
    over = (("core.mem_len", "8"),)
    with pytest.raises(ValueError, match="file cannot be written"):
        grid(TINY, options, over)
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="torchrun is for one run on several ranks"):
        grid(TINY, options, over)


@pytest.mark.parametrize(
    ("allowed", "expected"), [("", 4), ("1", 1), ("3,2", 3), ("16", 4), ("0", 1), ("all", 4)]
)
def test_cells_share_the_cores_that_omp_allows(
    allowed: str,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mtxl_rl.device.num_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    local.run_cells([], num_jobs=2, dry_run=True)
    assert f"2 at a time on this machine, with {expected} threads each" in capsys.readouterr().out


def test_a_cell_that_was_killed_says_by_what(tmp_path: Path) -> None:
    log = work.notes(tmp_path / "cell", ".log")
    log.parent.mkdir()
    log.write_text("--- now on here\nRun: there\n")
    why = work.why_failed(tmp_path / "cell", -signal.SIGKILL)
    assert why == f"killed by SIGKILL: Run: there (all of it: {log})"
