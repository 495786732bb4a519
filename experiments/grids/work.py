"""Running one cell, on this machine or another: what a cell's folder says, its lock, its process.

GRID/CELL/        the run directory of a cell, such as mem_len=8,lmem_len=4,seed=1
GRID/.cells/      of each cell what it is to train (.json), what it printed (.log), a lock, and the
                  number of its job where it has one (.job)

A cell is finished when its run directory has an evaluation.json. Whoever holds a cell's lock works
on it: the lock is handed down to the process that trains, so that a grid whose own process was
killed never starts a cell twice at the same time, and several processes can share a grid.

It imports the standard library only: on a cluster it waits beside the process that trains.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import IO, Any

STOPS_WITH_STDIN = "--stops-with-stdin"
_POLL_SECONDS = 0.2
_SEEN_SECONDS = 90.0
"""After which a file that another machine has written is seen, where the folder is shared: NFS
looks for new names once a minute."""


def notes(run_dir: Path, suffix: str) -> Path:
    """Return a path beside the run directories."""
    return run_dir.parent / ".cells" / f"{run_dir.name}{suffix}"


def is_finished(run_dir: Path) -> bool:
    """Return whether a cell has ended."""
    return (run_dir / "evaluation.json").is_file()


def lock(run_dir: Path) -> IO[str] | None:
    """Return a locked file, or None where another process holds the cell."""
    path = notes(run_dir, ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        warnings.warn(
            f"{path.parent} cannot be locked against other processes ({error}): start this grid "
            "once at a time, or a cell may be run twice",
            RuntimeWarning,
            stacklevel=2,
        )
    return file


def start(
    config: dict[str, Any], lock: IO[str], *, stops_with_stdin: bool
) -> subprocess.Popen[bytes]:
    """Start to train a cell, or go on with it; it keeps the lock until it ends.

    Args:
        config: of the cell, as a run's config.json.
        lock: of the cell.
        stops_with_stdin: save and stop where the pipe to it is closed, as it is when this process
            ends, whichever way; and by itself on SIGTERM only.
    """
    run_dir = Path(config["run_dir"])
    notes(run_dir, ".json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    with notes(run_dir, ".log").open("a", encoding="utf-8") as log:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        print(f"--- {now} on {socket.gethostname()}", file=log, flush=True)
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.grids.cell", str(notes(run_dir, ".json")),
             *[STOPS_WITH_STDIN] * stops_with_stdin],
            stdin=subprocess.PIPE if stops_with_stdin else None,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
            process_group=0,  # a terminal's Ctrl-C is for the grid, which hands it on once
        )  # fmt: skip


def why_failed(run_dir: Path, exit_code: int) -> str | None:
    """Return why a cell has ended without being finished, for people; None where it is."""
    if is_finished(run_dir):
        return None
    log = notes(run_dir, ".log")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    how = f"exit code {exit_code}"
    if exit_code < 0:
        how = f"killed by {signal.Signals(-exit_code).name}"
    return f"{how}: {lines[-1]} (all of it: {log})"


def why_not_seen(run_dir: Path) -> str | None:
    """Wait until a cell that another machine has finished is seen here, or say that it is not."""
    for _ in range(round(_SEEN_SECONDS / _POLL_SECONDS)):
        if is_finished(run_dir):
            return None
        time.sleep(_POLL_SECONDS)
    return (
        f"it is finished where it ran, but {run_dir}/evaluation.json is not here: put the grid's "
        "--folder where all machines see the same files"
    )


class Work:
    """Run a cell that is not finished and that no other process runs, wherever this is called.

    It returns why the cell failed, None where it is finished. Whatever ends this process first, the
    one that trains saves a checkpoint and ends, too.

    Args:
        config: of the cell, as a run's config.json.
        folder: where the command was given, which relative paths begin at.
    """

    def __init__(self, config: dict[str, Any], folder: Path):
        self.config, self.folder = config, folder
        self.run_dir = Path(config["run_dir"])
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None

    def __call__(self) -> str | None:
        os.chdir(self.folder)
        while (held := lock(self.run_dir)) is None:  # by a node that was lost, or by another grid
            time.sleep(_POLL_SECONDS)
        with held:
            if is_finished(self.run_dir):
                return None
            process = start(self.config, held, stops_with_stdin=True)
            threading.Thread(target=self._wait, args=[process], daemon=True).start()
            self._process = process
            try:
                while self._exit_code is None:
                    time.sleep(_POLL_SECONDS)
            finally:
                self.stop()
        return why_failed(self.run_dir, self._exit_code)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        self._exit_code = process.wait()

    def stop(self) -> None:
        """Let the cell save a checkpoint and end; a handler of signals can call this.

        So it waits for a number to change: it may have interrupted who holds the process's lock.
        """
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        while self._exit_code is None:
            time.sleep(_POLL_SECONDS)

    def checkpoint(self) -> Any:
        """Save, and return what submitit puts into the queue again: it goes on where this is."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        return DelayedSubmission(Work(self.config, self.folder))


def stop_with_stdin() -> None:
    """Let this process stop, as by one Ctrl-C, when its stdin ends or SIGTERM comes.

    Only once, since a second Ctrl-C is an end without a checkpoint: a cluster sends its signals to
    every process of a job, so that what asks the one above to stop comes here, too.
    """
    ask_above = {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM, *ask_above})  # Ray blocks SIGINT
    once = threading.Lock()

    def stop_after(wait: Any, *arguments: Any) -> None:
        wait(*arguments)
        if once.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGINT)

    for arguments in ((os.read, 0, 1), (signal.sigwait, {signal.SIGTERM})):
        threading.Thread(target=stop_after, args=arguments, daemon=True).start()
