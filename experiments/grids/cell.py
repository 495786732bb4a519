"""Train one cell of a grid: python -m experiments.grids.cell CONFIG.json.

The file holds what a run's config.json does.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import from_json
from mtxl_rl.train import BEFORE_THE_RUN, train


def main() -> None:
    """Train as the file says."""
    # a shell ignores it for what it starts in the background, and so would its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with fail_with_one_line(BEFORE_THE_RUN):
        if len(sys.argv) != 2:
            raise ValueError(f"got {len(sys.argv) - 1} arguments; pass the path of a config.json")
        train(from_json(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
