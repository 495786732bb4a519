"""What measures speed or wears the product out, and is no test.

It may use `mtxl_rl`, `agents`, `envs` and `experiments.tables`.
"""
