"""Tables and intervals over the runs in a folder.

They may use `mtxl_rl` and `agents`; `plots`, grids and benchmarks use them.
"""
