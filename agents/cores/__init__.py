"""Recurrent cores: the interface, the table of them, the memory transformer, and the controls.

It may use `mtxl_rl.core` and `agents.trees`; the agent (`agents/*.py`) uses it.
"""
