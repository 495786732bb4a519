"""Cells on this machine: several at a time, each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from experiments.grids import work
from experiments.grids.grid import Cell
from mtxl_rl.device import share_of_cores
from mtxl_rl.runs.progress import say

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Job:
    cell: Cell
    process: subprocess.Popen[bytes]
    lock: IO[str]


def run_cells(cells: Sequence[Cell], num_jobs: int, *, dry_run: bool) -> dict[str, str]:
    """Run cells that are not finished, `num_jobs` at a time; return why those failed that did.

    Ends when each cell is finished or has failed once, also those that another process works on.
    """
    num_threads = share_of_cores(num_jobs)
    if dry_run:
        say(f"Would run:    {num_jobs} at a time on this machine, with {num_threads} threads each")
        return {}
    waiting = list(cells)
    running: list[_Job] = []
    failed: dict[str, str] = {}
    elsewhere: set[str] = set()
    try:
        while waiting or running:
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                reason = work.why_failed(job.cell.run_dir, job.process.returncode)
                if reason is None:
                    say(f"finished      {job.cell.name}")
                else:
                    failed[job.cell.name] = reason
                    say(f"failed        {job.cell.name}: {reason}")
                job.lock.close()
            for cell in list(waiting):
                if len(running) == num_jobs:
                    break
                lock = work.lock(cell.run_dir)
                if lock is None:
                    if cell.name not in elsewhere:
                        say(f"elsewhere     {cell.name}: another process runs it")
                    elsewhere.add(cell.name)
                    continue
                waiting.remove(cell)
                if cell.is_finished:
                    lock.close()
                else:
                    say(f"{cell.what_it_does:14s}{cell.name}")
                    config = cell.to_json(num_threads)
                    process = work.start(config, lock, stops_with_stdin=False)
                    running.append(_Job(cell, process, lock))
            time.sleep(_POLL_SECONDS)
    finally:
        for job in running:
            job.process.send_signal(signal.SIGINT)  # it saves a checkpoint
        for job in running:
            job.process.wait()
    return failed
