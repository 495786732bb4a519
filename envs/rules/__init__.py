"""Tasks as rules on tensors: a class of rules is one environment for Gymnasium, and thousands.

It may use the ground (`envs/*.py`).
"""
