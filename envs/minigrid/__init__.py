"""MiniGrid's rules on tensors: cells, directions, moves, what is seen, and its families' tasks.

It may use the ground (`envs/*.py`) and `envs.memory_tasks`.
"""
