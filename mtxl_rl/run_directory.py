"""Run directories: one folder for a run, which one process at a time writes.

RUN/config.json                      the configuration of training
RUN/checkpoints/                     see mtxl_rl.checkpoint
RUN/events.out.tfevents...           TensorBoard
RUN/evaluation.json                  the evaluation at the end
RUN/non_finite/                      the rollout that a run has stopped at, if it has
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mtxl_rl.config import TrainConfig, from_json, to_json

MAX_JSON_BYTES = 10_000_000
"""A file that is larger is not one of ours."""


def create_run(run_dir: Path, config: TrainConfig) -> None:
    """Make the run directory with its configuration; it is there as a whole or not at all.

    Raises:
        ValueError: when it exists.
    """
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = run_dir.with_name(f".{run_dir.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_config(partial, config)
    try:
        if run_dir.exists():
            raise FileExistsError
        partial.rename(run_dir)
    except OSError:
        shutil.rmtree(partial)
        if not run_dir.exists():
            raise
        raise ValueError(
            f"run_dir={run_dir} exists and is kept as it is; choose another --run-dir, go on with "
            f"it by --resume {run_dir}, or move it away"
        ) from None


def write_config(run_dir: Path, config: TrainConfig) -> None:
    """Write the configuration of a run."""
    write_json(run_dir / "config.json", to_json(config))


def load_config(run_dir: Path) -> TrainConfig:
    """Read a run's configuration.

    Raises:
        ValueError: when the folder is not a run.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        raise ValueError(f"{run_dir} is not a run directory: it has no config.json; pass RUN_DIR")
    return from_json(read_json(path))


def lock_run(run_dir: Path) -> FileLock:
    """Take the run for this process, until the lock is released or the process ends.

    Raises:
        ValueError: when another process has it.
    """
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{run_dir} is in use: another process trains there; stop that one first, or start a "
            "run of its own with another --run-dir"
        ) from None
    except NotImplementedError as error:
        warnings.warn(f"{run_dir} cannot be locked: {error}", RuntimeWarning, stacklevel=2)
    return lock


def check_place(path: Path, option: str) -> None:
    """Raise ValueError for a path to write to that leads out of the folder that it names.

    That is the folder of its first name ("runs" of runs/memory/seed1, which may be a link itself),
    or, for an absolute path, the one before its last.
    """
    if ".." in path.parts:
        raise ValueError(f"{option}={path} goes up by '..'; write the path without it")
    if path.is_absolute():
        outer = path.parent
    else:
        outer = Path(path.parts[0]) if len(path.parts) > 1 else Path()
    if not path.resolve().is_relative_to(outer.resolve()):
        raise ValueError(
            f"{option}={path} is a link out of {outer}, to {path.resolve()}; write that path, or "
            "remove the link"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        ValueError: when the file does not hold one.
    """
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes, ours have at most {MAX_JSON_BYTES:,}; "
            "restore it"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}; restore it") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write an object; the file is there as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
