"""Levels for MiniGrid's rules: made by MiniGrid in a process of its own, or drawn from a few.

It may use the ground (`envs/*.py`), `envs.memory_tasks` and `envs.minigrid`.
"""
