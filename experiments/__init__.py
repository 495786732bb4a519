"""Experiments: learning runs, benchmarks and plots, with a log of what they showed.

The modules here are commands; below them lie grids of runs, benchmarks and tables. They may use all
else of this project, and nothing else of it uses them.
"""

import signal
import sys
from pathlib import Path
from runpy import run_path

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a command that imports ends without a traceback

# as a module it would load torch, which who waits for a cell does not need
run_path(str(Path(__file__).parents[1] / "mtxl_rl" / "siblings.py"))
