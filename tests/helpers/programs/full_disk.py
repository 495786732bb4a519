"""A run during which files may not grow, for two updates of eight: a disk that is full."""

import resource
import sys
from pathlib import Path

from eight_updates import make_config

from agents.learning.acceleration import Trainer
from mtxl_rl import train

LIMITS = {3: 4000, 5: -1}
"""Bytes of a file, from an update on; -1: any."""


def main(run_dir: str) -> None:
    collect, num_updates = Trainer.collect, 0

    def limited(trainer: Trainer) -> object:
        nonlocal num_updates
        if num_updates in LIMITS:
            resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITS[num_updates], -1))
        num_updates += 1
        return collect(trainer)

    Trainer.collect = limited  # type: ignore[method-assign, assignment]
    train.train(make_config(Path(run_dir), keep=9))


if __name__ == "__main__":
    main(*sys.argv[1:])
