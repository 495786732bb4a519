"""The process that makes levels in advance: requests on stdin, levels on stdout.

python -m envs.levels.level_server
"""

from __future__ import annotations

import pickle
import sys
from contextlib import suppress
from typing import IO

from envs.levels.level_maker import LevelMaker


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests for levels until there are no more."""
    maker = LevelMaker(*pickle.load(requests))
    while True:
        try:
            seeds = pickle.load(requests)
        except EOFError:
            return
        levels = maker.make(seeds)
        with suppress(BrokenPipeError):  # nobody waits for them any more
            pickle.dump(levels, replies)
            replies.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
