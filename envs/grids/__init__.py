"""MiniGrid in batches of tensors: any family on levels in store, or by looking up a table.

`table_env` plays the families whose levels are few (Memory, T-mazes, junctions). It may use all of
`envs` but `envs.wrapped`, `envs.popgym` and the registry.
"""
