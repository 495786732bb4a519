"""Slurm's commands, as far as submitit uses them, on this machine: a folder is the queue."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

ARRAY = 7
"""The number of every array job: there is one."""
COMMANDS = ("sbatch", "srun", "sacct", "scontrol")


def install(folder: Path) -> None:
    """Write the commands into a folder for the PATH, and the queue beside them."""
    (folder / "queue").mkdir(parents=True)
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        script.chmod(0o755)


def sbatch(queue: Path, path: str) -> None:
    """Start every task of an array, without a limit of how many at a time."""
    text = Path(path).read_text()
    number = len(list(queue.glob("script_*")))
    (queue / f"script_{number}").write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    assert array is not None
    for index in range(int(array[1]) + 1):
        call = [sys.executable, __file__, "task", path, str(index)]
        subprocess.Popen(
            call, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        (queue / f"{ARRAY}_{index}").touch()
    print(f"Submitted batch job {ARRAY}")


def task(queue: Path, path: str, index: str) -> None:
    """Run a task of an array, again for as long as it asks for it."""
    numbers = {"SLURM_ARRAY_JOB_ID": str(ARRAY), "SLURM_ARRAY_TASK_ID": index}
    again = queue / f"requeue_{ARRAY}_{index}"
    while True:
        subprocess.run(["bash", path], env=os.environ | numbers, check=False)
        if not again.exists():
            break
        again.unlink()
    (queue / f"{ARRAY}_{index}").unlink()


def srun(queue: Path, *arguments: str) -> None:
    """Run a command; what it prints goes to the file that --output names."""
    options = dict(pairwise(arguments))
    output = options["--output"].replace("%A", str(ARRAY)).replace("%t", "0")
    output = output.replace("%a", os.environ["SLURM_ARRAY_TASK_ID"])
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    call = arguments[arguments.index(options["--error"]) + 1 :]
    os.execv(call[0], call)


def sacct(queue: Path, *_: str) -> None:
    """Print the tasks that have not ended."""
    print("JobID|State|NodeList")
    for file in queue.glob(f"{ARRAY}_*"):
        print(f"{file.name}|RUNNING|here")


def scontrol(queue: Path, requeue: str, job: str) -> None:
    """Let a task run again when it has ended."""
    (queue / f"{requeue}_{job}").touch()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(os.environ["FAKE_SLURM"]) / "queue", *sys.argv[2:])
