"""Run directories: one folder for a run, which one process at a time writes.

RUN/config.json                      the configuration of training
RUN/made_by.json                     what made it: see mtxl_rl.runs.made_by
RUN/checkpoints/                     see mtxl_rl.runs.checkpoint
RUN/events.out.tfevents...           TensorBoard
RUN/evaluation.json                  the evaluation at the end
RUN/non_finite/                      the rollout that a run has stopped at, if it has
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from mtxl_rl.config import TrainConfig
from mtxl_rl.config.json_form import from_json, to_json

MAX_NAMED = 10
"""Runs that a message names."""
MAX_JSON_BYTES = 10_000_000
"""A file that is larger is not one of ours."""


class RunExists(ValueError):  # noqa: N818
    """There is a folder of that name."""


def create_free_run(run_dir: Path, config: TrainConfig) -> Path:
    """Make a run directory of this name or, where it is taken, NAME-2, NAME-3 and so on."""
    free, number = run_dir, 1
    while True:
        try:
            create_run(free, config)
            return free
        except RunExists:
            number += 1
            free = run_dir.with_name(f"{run_dir.name}-{number}")


def create_run(run_dir: Path, config: TrainConfig) -> None:
    """Make the run directory with its configuration; it is there as a whole or not at all.

    Raises:
        RunExists: when it exists.
        ValueError: when it cannot be made.
    """
    partial = run_dir.with_name(f".{run_dir.name}.{os.getpid()}.partial")
    try:
        if run_dir.exists():
            raise FileExistsError
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write_config(partial, config)
        partial.rename(run_dir)
        sync(run_dir.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if run_dir.exists():
            raise RunExists(
                f"run_dir={run_dir} exists and is kept as it is; choose another --run-dir, go on "
                f"with it by --resume {run_dir}, or move it away"
            ) from None
        raise ValueError(f"run_dir={run_dir} cannot be made: {error}; choose another") from None


def write_config(run_dir: Path, config: TrainConfig) -> None:
    """Write the configuration of a run."""
    write_json(run_dir / "config.json", to_json(config))


ALWAYS = {"env", "core", "ppo"}
"""What the configuration of every release has."""


def load_config(run_dir: Path) -> TrainConfig:
    """Read a run's configuration.

    Raises:
        ValueError: when the folder is not a run, naming those that are there.
    """
    path = run_dir / "config.json"
    if path.is_file():
        written = read_json(path)
        missing = ALWAYS - written.keys()
        if missing:  # defaults in their place would be another run
            raise ValueError(
                f"{path} has no {' and no '.join(sorted(missing))}, which every run has; write it "
                "back as it was"
            )
        try:
            return from_json(written)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    what = "has no config.json" if run_dir.is_dir() else "is no folder"
    if not run_dir.exists():
        what = "does not exist"
    raise ValueError(f"{run_dir} is not a run directory: it {what}; {_runs_near(run_dir)}")


def is_config(path: Path) -> bool:
    """Tell a configuration of ours, of whatever release, from a config.json of another tool's."""
    try:
        return read_json(path).keys() >= ALWAYS
    except (ValueError, OSError):
        return (path.parent / "checkpoints").is_dir()  # a damaged one is not passed over


def _runs_near(folder: Path) -> str:
    """Return the runs in a folder, or in the nearest one above it that exists, for people."""
    while not folder.is_dir():
        folder = folder.parent
    runs = [path.parent for path in folder.glob("*/config.json") if path.parent.name[0] != "."]
    if not runs:
        return "pass the folder that training has printed as its run"
    runs.sort(key=lambda run: (run / "config.json").stat().st_mtime, reverse=True)
    more = f" and {len(runs) - MAX_NAMED} more" if len(runs) > MAX_NAMED else ""
    return f"the runs there, the newest first: {', '.join(map(str, runs[:MAX_NAMED]))}{more}"


def lock_run(run_dir: Path) -> IO[str]:
    """Take the run for this process, until the file is closed or the process ends.

    Raises:
        ValueError: when another process has it.
    """
    file = (run_dir / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            file.close()
            raise ValueError(
                f"{run_dir} is in use: another process trains there; stop that one first, or "
                "start a run of its own with another --run-dir"
            ) from None
        warnings.warn(
            f"{run_dir} cannot be locked against other processes: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
    return file


def check_place(path: Path, option: str) -> None:
    """Raise ValueError for a path to write to that leads out of the folder that it names.

    That is the folder of its first name ("runs" of runs/memory/seed1, "../runs" of ../runs/seed1,
    which may be a link itself), or, for an absolute path, the one before its last.
    """
    num_ups = sum(1 for _ in itertools.takewhile("..".__eq__, path.parts))
    names = path.parts[num_ups:]
    if not path.name or not names:
        raise ValueError(f"{option}={path} has no name; give a folder of its own")
    if ".." in names:
        raise ValueError(f"{option}={path} goes up by '..' after a name; write the path without it")
    first = Path(*path.parts[: num_ups + (len(names) > 1)])
    outer = path.parent if path.is_absolute() else first
    if not path.resolve().is_relative_to(outer.resolve()):
        raise ValueError(
            f"{option}={path} is a link out of {outer}, to {path.resolve()}; write that path, or "
            "remove the link"
        )


def check_out(out: Path, suffix: str) -> None:
    """Raise ValueError for an `out` where no file with this suffix can be written."""
    if out.is_dir():
        raise ValueError(f"out={out} is a folder; name a file in it: --out {out / f'NAME{suffix}'}")
    if out.suffix != suffix:
        raise ValueError(f"out={out} must end in {suffix}; set --out to such a name")
    if not out.parent.is_dir():
        raise ValueError(
            f"out={out} is in no folder that is there; make the folder {out.parent}, or set --out"
        )
    try:
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise ValueError(
            f"out={out} cannot be written: {error.strerror}; set --out to a place that can be"
        ) from None


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
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name.

    Raises:
        OSError: when the disk does not take them.
    """
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file(on_host, path)
        path.chmod(mode)  # as the umask has it: theirs is 0600
    except SafetensorError as error:  # its word for what the disk says
        raise OSError(str(error)) from None


def sync(path: Path) -> None:
    """Let the disk have a file, or a folder's list of files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
