"""Environments of others, one by one: any Gymnasium id, in turn or in processes.

`gymnasium_adapter` makes a batch of tensors of them. The others look at an environment first, guard
it, and say what failed. It may use the ground (`envs/*.py`) and `envs.memory_tasks`; `vectorized`
and the registry use it.
"""
