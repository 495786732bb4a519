"""Grids of cells that take no time but wait half way for a test, and what became of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from programs import ROOT

FRAMES_AT_GATE = 64
"""That are saved when a cell waits: in its third update."""


def options(folder: Path, gate: Path, num_cells: int = 4) -> tuple[str, ...]:
    """Return the command line of a grid of two or four cells of eight updates each."""
    return (
        "memory_lengths", "--env", "gated_env:Gated-v0", "--env-kwargs",
        json.dumps({"gate": str(gate)}), "--env-timeout", "None", "--total-frames", "256",
        "--num-envs", "4", "--checkpoint-every", "32", "--eval-episodes", "2",
        "--device", "cpu",
        "--core.dim", "8", "--core.heads", "2", "--core.depth", "1", "--core.seq-len", "4",
        "--ppo.rollout-len", "8", "--vectorize", "sync", "--seeds", "1", "--folder", str(folder),
        "--mem-len", "0", "4", "--lmem-len", *("0", "2")[: num_cells // 2],
    )  # fmt: skip


def cells_of(folder: Path, num_cells: int = 4) -> list[Path]:
    """Return the run directories of such a grid."""
    names = [f"mem_len={m},lmem_len={n},seed=1" for m in (0, 4) for n in (0, 2)[: num_cells // 2]]
    return [folder / name for name in names]


def ablation(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a grid's command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.ablation", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
        process_group=0,
    )


def is_interrupted(cell: Path) -> bool:
    """Return whether a cell that is at the gate is told to stop, or was killed and goes on."""
    return "stopping:" in log_of(cell) or log_of(cell).count("--- ") == 2


def log_of(cell: Path) -> str:
    """Return what a cell has printed so far."""
    log = cell.parent / ".cells" / f"{cell.name}.log"
    return log.read_text() if log.is_file() else ""


def trained_by(pid: int, cell: Path) -> list[int]:
    """Return the process below `pid`, 0 for any, that trains a cell."""
    return processes_below(pid, f"{cell.parent}/.cells/{cell.name}.json")


def is_at_gate(cell: Path) -> bool:
    """Return whether a cell has saved what it has before it waits."""
    return (cell / "checkpoints" / f"frames_{FRAMES_AT_GATE:012d}").is_dir()


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.1)


def processes_below(pid: int, words: str) -> list[int]:
    """Return the processes that this one has started, and these in turn, with words in their call.

    Those that end meanwhile are left out.
    """
    shown = subprocess.run(
        ["ps", "-e", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    calls, children = {}, {}
    for line in shown.stdout.splitlines():
        child, parent, *call = line.split(maxsplit=2)
        calls[int(child)] = " ".join(call)
        children.setdefault(int(parent), []).append(int(child))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += [each for each in below if words in calls[each]]
        todo += below
    return found


def interrupted(cells: Sequence[Path]) -> list[str]:
    """Return the cells that were interrupted, and check that each was run to its end, once.

    What was saved is gone on with, and one process at a time trains.
    """
    names = []
    for cell in cells:
        evaluation = json.loads((cell / "evaluation.json").read_text())
        assert evaluation["frames"] == 256
        log = log_of(cell)
        assert log.count("Trained: ") == log.count("Evaluated: ") == 1, log
        first, *others = log.split("--- ")[1:]
        assert "Resumed:" not in first, log
        for before, after in pairwise([first, *others]):
            saved = re.search(r"stopped by SIGINT; .* of (\d+) frames", before)  # or it was killed
            frames = saved[1] if saved else FRAMES_AT_GATE
            assert f"Resumed:      from {frames} frames" in after, log
        starts = json.loads((cell / "made_by.json").read_text())["sessions"]
        assert len(starts) == 1 + len(others), log
        names += [cell.name] * len(others)
    return names
