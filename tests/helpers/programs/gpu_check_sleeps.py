"""A check of a GPU whose second step starts a process and waits for it, until it is killed."""

import signal
import sys
from pathlib import Path

from experiments import gpu_check
from experiments.gpu_check import Step, last_line


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run under nohup
    folder, is_test = Path(sys.argv[1]), sys.argv[2] == "True"
    begun = str(folder / "begun")
    waits = f"import os, time; print(os.getpid(), file=open({begun!r}, 'w')); time.sleep(300)"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waits!r}])"
    steps = [
        Step("first", ["-c", "print(1)"], 60, last_line, is_test=is_test),
        Step("sleeps", ["-c", starts], 300, last_line, is_test=is_test),
    ]
    gpu_check.find_steps = lambda _: iter(steps)
    gpu_check.os.cpu_count = lambda: 8
    sys.argv = ["check", "--device", "cpu", "--small", "--out", str(folder / "out")]
    gpu_check.main()


if __name__ == "__main__":
    main()
