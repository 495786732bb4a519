"""The backbone, fed one step at a time; how many, and what is equal."""

from __future__ import annotations

from typing import Any

import torch
from memory_configurations import BATCH_SIZE
from torch import Tensor

from mtxl_rl import Acting, MemoryState, MemoryTransformerXL

NUM_STEPS = 17  # three whole segments and a part
TOLERANCE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def run_steps(
    core: MemoryTransformerXL, x: Tensor, reset: Tensor, state: MemoryState | None = None
) -> tuple[Tensor, MemoryState]:
    acting = Acting(core, BATCH_SIZE if state is None else state)
    steps = zip(x.unbind(1), reset.unbind(1), strict=True)
    return torch.stack([acting.step(x_t, reset_t) for x_t, reset_t in steps], dim=1), acting.state
