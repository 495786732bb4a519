"""Configurations of small cores, one of each kind, and random inputs for them."""

from __future__ import annotations

import torch

from agents.cores.core import CoreKind, core_config
from agents.cores.core_config import CoreConfig

BATCH_SIZE, NUM_STEPS, DIM = 3, 11, 8


def config(kind: CoreKind) -> CoreConfig:
    if kind in ("mtxl", "gtrxl"):
        return core_config(kind=kind, dim=DIM, heads=2, seq_len=4, mem_len=5)
    return core_config(kind=kind, dim=DIM)


def inputs(reset_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(BATCH_SIZE, NUM_STEPS, DIM)
    return x, torch.rand(BATCH_SIZE, NUM_STEPS) < reset_rate
