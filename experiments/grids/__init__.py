"""Grids of runs: their cells, one run directory each, and widths of equal size.

They may use `mtxl_rl`, `agents` and `envs`; `work`, which waits for a cell on a cluster, nothing.
"""
