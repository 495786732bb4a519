"""A grid of runs: several at a time, each in a process of its own, in one folder.

GRID/CELL/        the run directory of a cell, such as mem_len=8,lmem_len=4,seed=1
GRID/.cells/      of each cell what it is to train (.json), what it printed (.log) and a lock

A cell is finished when its run directory has an evaluation.json. Whoever holds a cell's lock works
on it: the lock is handed down to the process that trains, so that a grid whose own process was
killed never starts a cell twice at the same time, and several processes can share a grid.
"""

from __future__ import annotations

import difflib
import fcntl
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.cores.core import as_kind, make_core
from envs.registry import choose
from experiments.grids.widths import Size, describe, with_equal
from mtxl_rl.config import TrainConfig, differences, flat, num_cores, short_name, to_json
from mtxl_rl.options import read
from mtxl_rl.runs.run_directory import load_config

PLACES = ("run_dir", "num_threads")
"""Options that say where and how fast a cell runs, not what it computes."""
ENV_KWARGS = "env_kwargs."
"""What the names of an environment's arguments begin with."""
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
    axes: Mapping[str, Sequence[str]],
    num_seeds: int,
    after: Path | None = None,
    equal: Size | None = None,
) -> list[Cell]:
    """Return the cells of the product of `axes`, all of the first seed first.

    Args:
        folder: of the grid.
        base: the options that are the same everywhere.
        axes: values by option, as one types them: {"core.mem_len": ["0", "8"]}.
        num_seeds: seeds from that of `base` on.
        after: another grid, of whose cell of the same name each cell has the weights as its start.
        equal: of what each core is to have as much as that of `base`, by its width.

    Raises:
        ValueError: for an option that there is not, or a combination that cannot be run.
    """
    if num_seeds < 1:
        raise ValueError(f"seeds={num_seeds} must be 1 or more; set --seeds")
    kinds = axes.get("core.kind") or [base.core.kind]
    options = {
        name for kind in kinds for name in flat(replace(base, core=as_kind(base.core, kind)))
    }
    for name, values in axes.items():
        _check_axis(options, name, values, after)
    if equal and "core.dim" in axes:
        raise ValueError(f"core.dim cannot be varied with equal={equal!r}, which sets it")
    combinations = {}
    for values in itertools.product(*axes.values()):
        options = dict(zip(axes, values, strict=True))
        name = ",".join(f"{short_name(key)}={_plain(value)}" for key, value in options.items())
        try:
            combinations[name] = _changed(base, options)
        except ValueError as error:
            raise ValueError(f"cell {name}: {error}") from None
    if equal:
        for name, config in combinations.items():
            combinations[name] = with_equal(equal, base.core, config)
            _say("Equal:", f"{name}: {describe(combinations[name])}")
    cells = []
    for seed in range(base.seed, base.seed + num_seeds):
        for combination, config in combinations.items():
            name = f"{combination},seed={seed}"
            init_from = config.init_from if after is None else after / name
            changes: dict[str, Any] = {"seed": seed, "run_dir": folder / name}
            cells.append(Cell(name, replace(config, init_from=init_from, **changes)))
    for cell in cells:
        _check_alike(cell)
    return cells


def run_cells(cells: Sequence[Cell], num_jobs: int) -> list[tuple[Cell, str]]:
    """Run every cell that is not finished, `num_jobs` at a time; return those that failed, and why.

    Ends when each cell is finished or has failed once, also those that another process works on.
    """
    num_threads = max(1, num_cores() // num_jobs)
    waiting = [cell for cell in cells if not cell.is_finished]
    _say("Grid:", f"{len(cells)} cells, {len(cells) - len(waiting)} finished before")
    running: list[_Job] = []
    failed: list[tuple[Cell, str]] = []
    elsewhere: set[str] = set()
    try:
        while waiting or running:
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                if job.cell.is_finished:
                    _say("finished", job.cell.name)
                else:
                    failed.append((job.cell, _last_line(job)))
                    _say("failed", f"{job.cell.name}: {failed[-1][1]}")
                job.lock.close()
            for cell in list(waiting):
                if len(running) == num_jobs:
                    break
                lock = _lock(cell)
                if lock is None:
                    if cell.name not in elsewhere:
                        _say("elsewhere", f"{cell.name}: another process runs it")
                    elsewhere.add(cell.name)
                    continue
                waiting.remove(cell)
                if cell.is_finished:
                    lock.close()
                else:
                    running.append(_start(cell, lock, num_threads))
            time.sleep(_POLL_SECONDS)
    finally:
        for job in running:
            job.process.send_signal(signal.SIGINT)  # it saves a checkpoint
        for job in running:
            job.process.wait()
    return failed


def _say(what: str, words: str) -> None:
    print(f"{what:14s}{words}", flush=True)


@dataclass(frozen=True)
class _Job:
    cell: Cell
    process: subprocess.Popen[bytes]
    lock: Any  # the open file that is locked


def _lock(cell: Cell) -> Any:
    """Return a locked file, or None where another process holds the cell."""
    path = cell.notes(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _start(cell: Cell, lock: Any, num_threads: int) -> _Job:
    config = to_json(cell.config)
    if cell.run_dir.exists():
        _say("goes on", f"{cell.name}: it was not finished")
        config |= {"resume": str(cell.run_dir), "run_dir": None}
    if config["num_threads"] is None:
        config["num_threads"] = num_threads
    cell.notes(".json").write_text(json.dumps(config, indent=2) + "\n")
    _say("started", cell.name)
    with cell.notes(".log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.grids.cell", str(cell.notes(".json"))],
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
            process_group=0,  # a terminal's Ctrl-C is for the grid, which hands it on once
        )
    return _Job(cell, process, lock)


def _last_line(job: _Job) -> str:
    lines = (
        job.cell.notes(".log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    )
    said = lines[-1] if lines else "it printed nothing"
    return f"exit code {job.process.returncode}: {said} (all of it: {job.cell.notes('.log')})"


def _check_axis(
    options: Collection[str], name: str, values: Sequence[str], after: Path | None
) -> None:
    if name not in options and not name.startswith(ENV_KWARGS):
        near = difflib.get_close_matches(name, list(options), n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        allowed = ", ".join((*options, f"{ENV_KWARGS}NAME"))
        raise ValueError(f"{name!r} is not an option{hint} Allowed: {allowed}")
    taken = {"seed": "--seeds", "run_dir": "--folder"} | ({"init_from": "--after"} if after else {})
    if name in taken:
        raise ValueError(f"{name} cannot be varied in a grid; set {taken[name]}")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name}={list(values)} must be one or more different values")


def _check_alike(cell: Cell) -> None:
    """Raise ValueError where the folder holds the cell of another grid."""
    if not (cell.run_dir / "config.json").is_file():
        return
    found, wanted = flat(load_config(cell.run_dir)), flat(cell.config)
    different = differences(found, wanted, "there", "here", lambda name: name not in PLACES)
    if different:
        raise ValueError(
            f"{cell.run_dir} was run with other options: {different}. Set --folder to another one, "
            "or give the same options"
        )


def _changed(base: TrainConfig, options: Mapping[str, str]) -> TrainConfig:
    """Return `base` with some options as the command line of training reads them."""
    base = replace(base, core=as_kind(base.core, options.get("core.kind", base.core.kind)))
    env_kwargs = {name.removeprefix(ENV_KWARGS): _typed(name, text)
                  for name, text in options.items() if name.startswith(ENV_KWARGS)}  # fmt: skip
    base = replace(base, env_kwargs=base.env_kwargs | env_kwargs)
    if "wrap" in options:
        base = replace(base, wrap=tuple(options["wrap"].split()))
    arguments = []
    for name, text in options.items():
        if name == "wrap" or name.startswith(ENV_KWARGS):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(flat(base).get(name), bool) and text in ("True", "False"):
            before, dot, last = flag.removeprefix("--").rpartition(".")
            arguments.append(flag if text == "True" else f"--{before}{dot}no-{last}")
        else:
            arguments += [flag, *text.split()]
    try:
        config = read(base, arguments)
    except SystemExit:  # it has said why
        raise ValueError("see above") from None
    choose(config.env, config.backend, config.env_kwargs, config.wrap)  # or says why not
    make_core(config.core)
    return config


def _typed(name: str, text: str) -> Any:
    """Return a value of an argument of an environment: JSON, or, where it is none, the text."""
    if text in ("True", "False", "None"):
        raise ValueError(f"{name}={text} is Python's; write JSON: true, false or null")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _plain(text: str) -> str:
    return text.replace(" ", "+").replace("/", "_").replace(":", "_")


def parse_axes(axes: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Turn ("core.mem-len", "0", "8") into {"core.mem_len": ["0", "8"]}.

    Raises:
        ValueError: for an option that is named twice, or none.
    """
    parsed: dict[str, list[str]] = {}
    for option, *values in filter(None, axes):
        name = option.removeprefix("--").replace("-", "_")
        if name in parsed:
            raise ValueError(f"over names {option} twice; give all its values at once")
        parsed[name] = values
    if not parsed:
        raise ValueError("over is empty; name an option and its values: --over core.gate nbrc gru")
    return parsed
