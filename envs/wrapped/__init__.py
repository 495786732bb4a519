"""Environments of others: any Gymnasium id, alone or vectorised, in batches of tensors.

`gymnasium_adapter` runs single environments, in turn or in processes; `vectorized_env` those that
are vectorised themselves. The others look at them first, guard them and say what failed. It may use
the ground (`envs/*.py`) and `envs.memory_tasks`; the registry uses it.
"""
