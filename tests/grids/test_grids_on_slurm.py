"""Grids by submitit: what a time limit or a preemption interrupts goes on, and ends once."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
from programs import ROOT
from small_grid import (
    ablation,
    cells_of,
    interrupted,
    is_at_gate,
    is_interrupted,
    options,
    processes_below,
    trained_by,
    wait_until,
)

from experiments.ablation import GridConfig
from experiments.grids import on_slurm
from experiments.grids.grid import make_cells
from experiments.grids.on_slurm import SlurmConfig
from mtxl_rl.train import read_options

submitit = pytest.importorskip("submitit")
SCRIPT_OPTIONS = ("--executor", "slurm", "--slurm.partition", "short", "--slurm.time", "30",
                  "--slurm.signal-delay-s", "120", "--slurm.cpus-per-task", "3",
                  "--slurm.additional-parameters", "account", "lab", "--jobs", "2")  # fmt: skip


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def interrupt(pid: int, cell: Path, signals: tuple[int, ...]) -> None:
    """Send signals as Slurm does: to every process of a job."""
    (trained,) = trained_by(pid, cell)
    for number in signals:
        os.kill(trained, number)
        os.kill(pid, number)


@pytest.mark.slow
def test_through_submitits_local_executor_an_interrupted_cell_goes_on(tmp_path: Path) -> None:
    gate, run_dirs = tmp_path / "gate", cells_of(tmp_path / "grid")
    words = options(tmp_path / "grid", gate)
    base = read_options(words[1 : words.index("--seeds")])
    axes = {"core.mem_len": ["0", "4"], "core.lmem_len": ["0", "2"]}
    cells = make_cells(tmp_path / "grid", base, axes, 1)
    executor = submitit.LocalExecutor(tmp_path / "jobs", max_num_timeout=9)
    jobs = on_slurm.submit(executor, cells, 1)
    wait_until(lambda: all(map(is_at_gate, run_dirs)))
    lost = run_dirs[1]
    # the job's number is that of the process above the one that waits for the cell
    (waits,) = processes_below(int(jobs[lost.name].job_id), "submitit.core._submit")
    interrupt(waits, lost, (signal.SIGTERM, signal.SIGUSR2))  # a preemption
    wait_until(lambda: is_interrupted(lost))
    gate.touch()
    assert on_slurm.wait(jobs, {each.name: each for each in run_dirs}) == {}
    assert interrupted(run_dirs) == [lost.name]


@pytest.mark.slow
def test_a_killed_command_finds_its_jobs_and_their_limit_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm, folder, gate = tmp_path / "slurm", tmp_path / "grid", tmp_path / "gate"
    fake_slurm.install(slurm)
    monkeypatch.setenv("PATH", f"{slurm}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(slurm))
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    cells = cells_of(folder, 2)
    arguments = (*options(folder, gate, 2), *SCRIPT_OPTIONS)
    shown, err = ablation(*arguments, "--dry-run").communicate(timeout=300)
    assert not err
    assert not folder.exists()

    first = ablation(*arguments)
    wait_until(lambda: all(map(is_at_gate, cells)) or first.poll() is not None)
    first.kill()
    first.communicate()
    second = ablation(*arguments)
    assert second.stdout is not None
    said = [second.stdout.readline() for _ in range(3)]
    assert [line.rpartition(" ")[0] for line in said[1:]] == [
        f"in the queue  {cell.name}: job" for cell in cells
    ]
    (waits,) = [pid for pid in processes_below(0, "submitit.core._submit")
                if trained_by(pid, cells[1])]  # fmt: skip
    interrupt(waits, cells[1], (signal.SIGUSR1,))
    wait_until(lambda: is_interrupted(cells[1]))
    gate.touch()
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert interrupted(cells) == [cells[1].name]
    assert out.count("finished      mem_len=") == 2

    (script,) = (slurm / "queue").glob("script_*")  # submitted once
    lines = script.read_text().splitlines()
    for option in ("partition=short", "time=30", "signal=USR1@120", "cpus-per-task=3", "requeue",
                   "account=lab", "array=0-1%2", "job-name=grid"):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    assert all(line in shown.splitlines() for line in lines)
    assert '"num_threads": 3' in (folder / ".cells" / f"{cells[0].name}.json").read_text()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files of submitit
@pytest.mark.slow
def test_through_the_debug_executor_a_failure_is_one_line(tmp_path: Path) -> None:
    words = options(tmp_path / "grid", tmp_path / "gate")
    base = replace(read_options(words[1 : words.index("--seeds")]), env="broken_env:Broken-v0")
    base = replace(base, env_kwargs={})
    cells = make_cells(tmp_path / "grid", base, {"core.mem_len": ["0"]}, 1)
    jobs = on_slurm.submit(submitit.DebugExecutor(tmp_path / "jobs"), cells, 1)
    failed = on_slurm.wait(jobs, {cell.name: cell.run_dir for cell in cells})
    reason = failed.pop("mem_len=0,seed=1")
    assert re.match("exit code 1: error: .*RuntimeError: the simulator crashed", reason)
    assert not failed


@pytest.mark.parametrize(
    ("config", "wrong", "words"),
    [(SlurmConfig, {"cpus_per_task": 0}, "cpus_per_task=0 and gpus_per_node=0 must be at least 1"),
     (SlurmConfig, {"time": 1}, "signal_delay_s=90 must be from 1 second to less than the time=1"),
     (SlurmConfig, {"additional_parameters": {"no_requeue": ""}}, "cannot have no-requeue"),
     (GridConfig, {"slurm": SlurmConfig(partition="x")}, "slurm have no effect with executor='")],
)  # fmt: skip
def test_mistakes(config: Any, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        config(**wrong)


def test_without_slurm_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    base = read_options(["--env", "mtxl/Recall6-v0"])
    cells = make_cells(tmp_path / "grid", base, {"core.mem_len": ["8"]}, 1)
    with pytest.raises(ValueError, match="needs srun and sbatch, which are not on this machine"):
        on_slurm.run_cells(cells, SlurmConfig(), None, dry_run=True)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match=r'install it by pip install -e "\.\[slurm\]'):
        on_slurm.run_cells(cells, SlurmConfig(), None, dry_run=True)
    assert not (tmp_path / "grid").exists()


def test_what_sbatch_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\necho invalid partition >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    base = read_options(["--env", "mtxl/Recall6-v0"])
    cells = make_cells(tmp_path / "grid", base, {"core.mem_len": ["8"]}, 1)
    with pytest.raises(ValueError, match=r"sbatch has refused the job \(invalid partition"):
        on_slurm.run_cells(cells, SlurmConfig(partition="nowhere"), None, dry_run=False)
