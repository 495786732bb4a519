"""The rules of MiniGrid's tasks, one family a file.

`task` has the interface. They may use the world's rules beside them (`envs/minigrid/*.py`), but not
`families`, which puts tasks and ids together.
"""
