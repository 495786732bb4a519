"""Tasks that need memory, of our own or made larger: Memory, T-mazes, junctions, recall.

They are Gymnasium environments, the oracles of the tensor forms; `recall_tensors` is one of those.
It may use the ground (`envs/*.py`).
"""
