"""Holds the lock of a run until it is killed."""

import sys
import time
from pathlib import Path

from mtxl_rl.runs.run_directory import lock_run


def main(run_dir: str) -> None:
    with lock_run(Path(run_dir)):
        print("locked")
        time.sleep(100)


if __name__ == "__main__":
    main(*sys.argv[1:])
