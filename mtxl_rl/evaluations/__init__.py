"""Evaluation of a trained agent: episodes, interventions on its memory, films.

It may use `mtxl_rl.runs`, `agents`, `envs` and the core; `mtxl_rl.run` and the commands use it.
"""
