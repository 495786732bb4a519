"""A grid of runs: several at a time, each in a process of its own, in one folder.

GRID/CELL/        the run directory of a cell, such as mem_len=8,lmem_len=4,seed=1
GRID/.cells/      of each cell what it is to train (.json), what it printed (.log) and a lock

A cell is finished when its run directory has an evaluation.json. Whoever holds a cell's lock works
on it: the lock is handed down to the process that trains, so that a grid whose own process was
killed never starts a cell twice at the same time, and several processes can share a grid.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtxl_rl.config import TrainConfig, flat, from_json, to_json

PLACES = ("run_dir", "num_threads")
"""Options that say where and how fast a cell runs, not what it computes."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    name: str
    config: TrainConfig

    @property
    def run_dir(self) -> Path:
        assert self.config.run_dir is not None
        return self.config.run_dir

    @property
    def is_finished(self) -> bool:
        return (self.run_dir / "evaluation.json").is_file()

    def notes(self, suffix: str) -> Path:
        """Return a path beside the run directories."""
        return self.run_dir.parent / ".cells" / f"{self.name}{suffix}"


def make_cells(
    folder: Path,
    base: TrainConfig,
    axes: Mapping[str, Sequence[Any]],
    num_seeds: int,
    after: Path | None = None,
) -> list[Cell]:
    """Return the cells of the product of `axes`, all of the first seed first.

    Args:
        folder: of the grid.
        base: the options that are the same everywhere.
        axes: values by option: {"core.mem_len": [0, 8]}.
        num_seeds: seeds from that of `base` on.
        after: another grid, of whose cell of the same name each cell has the weights as its start.

    Raises:
        ValueError: for an option that there is not, or a combination that cannot be run.
    """
    for name, values in axes.items():
        if name not in flat(base):
            raise ValueError(f"{name!r} must be an option: {', '.join(flat(base))}")
        if not values or len({repr(value) for value in values}) < len(values):
            raise ValueError(f"{name}={list(values)} must be one or more different values")
    if num_seeds < 1:
        raise ValueError(f"seeds={num_seeds} must be 1 or more; set --seeds")
    cells = []
    for seed in range(base.seed, base.seed + num_seeds):
        for values in itertools.product(*axes.values()):
            options = dict(zip(axes, values, strict=True)) | {"seed": seed}
            name = ",".join(f"{_short(key)}={_plain(value)}" for key, value in options.items())
            if after is not None:
                options["init_from"] = str(after / name)
            options["run_dir"] = str(folder / name)
            try:
                config = _changed(base, options)
            except ValueError as error:
                raise ValueError(f"cell {name}: {error}") from None
            cells.append(Cell(name, config))
    for cell in cells:
        _check_alike(cell)
    return cells


def run_cells(cells: Sequence[Cell], num_jobs: int) -> list[tuple[Cell, str]]:
    """Run every cell that is not finished, `num_jobs` at a time; return those that failed, and why.

    Ends when each cell is finished or has failed once, also those that another process works on.
    """
    num_threads = max(1, (os.cpu_count() or 1) // num_jobs)
    waiting = [cell for cell in cells if not cell.is_finished]
    print(f"Grid:         {len(cells)} cells, {len(cells) - len(waiting)} finished before")
    running: list[_Job] = []
    failed: list[tuple[Cell, str]] = []
    try:
        while waiting or running:
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                job.lock.close()
                if job.cell.is_finished:
                    print(f"finished      {job.cell.name}")
                else:
                    failed.append((job.cell, _last_line(job)))
                    print(f"failed        {job.cell.name}: {failed[-1][1]}")
            for cell in list(waiting):
                if len(running) == num_jobs:
                    break
                with contextlib.suppress(BlockingIOError):  # another process works on it
                    lock = _lock(cell)
                    waiting.remove(cell)
                    if cell.is_finished:
                        lock.close()
                        continue
                    running.append(_start(cell, lock, num_threads))
            time.sleep(_POLL_SECONDS)
    finally:
        for job in running:
            job.process.send_signal(signal.SIGINT)  # it saves a checkpoint
        for job in running:
            job.process.wait()
    return failed


@dataclass(frozen=True)
class _Job:
    cell: Cell
    process: subprocess.Popen[bytes]
    lock: Any  # the open file that is locked


def _lock(cell: Cell) -> Any:
    path = cell.notes(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


def _start(cell: Cell, lock: Any, num_threads: int) -> _Job:
    if cell.run_dir.exists():
        print(f"again         {cell.name}: it was interrupted")
        shutil.rmtree(cell.run_dir)
    config = to_json(cell.config)
    if config["num_threads"] is None:
        config["num_threads"] = num_threads
    cell.notes(".json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"started       {cell.name}")
    with cell.notes(".log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.cell", str(cell.notes(".json"))],
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
        )
    return _Job(cell, process, lock)


def _last_line(job: _Job) -> str:
    lines = job.cell.notes(".log").read_text().strip().splitlines()
    said = lines[-1] if lines else "it printed nothing"
    return f"exit code {job.process.returncode}: {said} (all of it: {job.cell.notes('.log')})"


def _check_alike(cell: Cell) -> None:
    """Raise ValueError where the folder holds the cell of another grid."""
    path = cell.run_dir / "config.json"
    if not path.is_file():
        return
    found, wanted = flat(from_json(json.loads(path.read_text()))), flat(cell.config)
    differences = [
        f"{name} is {found[name]} there and {wanted[name]} here"
        for name in wanted
        if name not in PLACES and found[name] != wanted[name]
    ]
    if differences:
        raise ValueError(
            f"{cell.run_dir} was run with other options: {'; '.join(differences)}. Set --folder to "
            "another one, or give the same options"
        )


def _changed(base: TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    values = to_json(base)
    for name, value in options.items():
        *outer, inner = name.split(".")
        target = values
        for part in outer:
            target = target[part]
        target[inner] = value
    _leave_out_foreign(values["core"], {name.removeprefix("core.") for name in options})
    return from_json(values)


def _leave_out_foreign(core: dict[str, Any], given: set[str]) -> None:
    """Leave out those options of the memory transformer that a control does not have."""
    if core["kind"] == "mtxl":
        return
    is_recurrent = core["kind"] != "gtrxl"
    foreign = set(core) - {"kind", "dim", "depth"} if is_recurrent else {"lmem_len"}
    for name in foreign - given:
        del core[name]


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _plain(value: Any) -> str:
    text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return text.replace("/", "_").replace(":", "_")


def parse_axes(axes: Sequence[Sequence[str]]) -> Iterator[tuple[str, list[Any]]]:
    """Turn ("core.gate", "nbrc", "gru") into ("core.gate", ["nbrc", "gru"]).

    Values are JSON, or else text.
    """
    for name, *values in axes:
        yield name.replace("-", "_"), [_value(value) for value in values]


def _value(text: str) -> Any:
    try:
        return json.loads({"None": "null", "True": "true", "False": "false"}.get(text, text))
    except json.JSONDecodeError:
        return text
