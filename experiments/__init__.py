"""Experiments: learning runs, benchmarks and plots, with a log of what they showed."""

from pathlib import Path
from runpy import run_path

# as a module it would load torch, which who waits for a cell does not need
run_path(str(Path(__file__).parents[1] / "mtxl_rl" / "siblings.py"))
