"""What a run keeps and says: its directory, checkpoints, curves, schedules, and how it ends.

`mtxl_rl.run` is the loop that uses it. It may use `agents`, `envs`, the core and
`mtxl_rl.config`.
"""
