"""Grids of runs: their cells, one run directory each, and widths of equal size."""
