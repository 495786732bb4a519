"""Settings of every test."""

from __future__ import annotations

import torch

# On a machine with a busy neighbour, two threads are many times slower than one.
torch.set_num_threads(1)
