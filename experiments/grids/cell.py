"""Train one cell of a grid: python -m experiments.grids.cell CONFIG.json.

The file holds what a run's config.json does. A run that is there already is gone on with.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from experiments.grids.work import STOPS_WITH_STDIN, stop_with_stdin
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config.json_form import from_json
from mtxl_rl.train import BEFORE_THE_RUN, train


def main() -> None:
    """Train as the file says."""
    # a shell ignores it for what it starts in the background, and so would its children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with fail_with_one_line(BEFORE_THE_RUN):
        arguments = sys.argv[1:]
        if arguments[1:] == [STOPS_WITH_STDIN]:
            stop_with_stdin()
            arguments.pop()
        if len(arguments) != 1:
            raise ValueError(f"got {len(arguments)} arguments; pass the path of a config.json")
        config = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        if Path(config["run_dir"]).exists():
            config |= {"resume": config["run_dir"], "run_dir": None}
        train(from_json(config))


if __name__ == "__main__":
    main()
