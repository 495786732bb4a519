"""Experiments: learning runs, benchmarks and plots, with a log of what they showed."""

import signal
import sys
from pathlib import Path
from runpy import run_path

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a command that imports ends without a traceback

# as a module it would load torch, which who waits for a cell does not need
run_path(str(Path(__file__).parents[1] / "mtxl_rl" / "siblings.py"))
