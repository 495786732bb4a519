"""Configurations of the backbone that differ in what they remember, and random inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mtxl_rl import MemoryState, MemoryTransformerXL

BATCH_SIZE = 4

BASE: dict[str, Any] = {
    "dim": 12, "depth": 3, "seq_len": 5, "mem_len": 7, "lmem_len": 3, "heads": 2, "input_dim": 11,
    "gate": "nbrc",
}  # fmt: skip

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "mem_len above seq_len": {},
    "mem_len far above seq_len": {"mem_len": 17},
    "mem_len below seq_len": {"mem_len": 3},
    "mem_len equal to seq_len": {"mem_len": 5},
    "no short memory": {"mem_len": 0},
    "no long memory": {"lmem_len": 0},
    "no memory but the segment": {"mem_len": 0, "lmem_len": 0},
    "segments of two steps": {"seq_len": 2},
    "one_kv_head": {"one_kv_head": True},
    "memory_layers": {"memory_layers": [2]},
    "persistent slots": {"num_mem_kv": 2},
    "timesteps": {"timesteps": True},
    "timesteps, a short memory below seq_len": {"timesteps": True, "mem_len": 3, "num_mem_kv": 2},
    "timesteps, no long memory, memory_layers": {
        "timesteps": True,
        "lmem_len": 0,
        "memory_layers": [2],
    },
    "the gated write": {"mem_write": "gated"},
    "the gated write, a short memory above seq_len": {"mem_write": "gated", "mem_len": 17},
    "the gated write, memory_layers": {"mem_write": "gated", "memory_layers": [2, 3]},
    "the seed's write": {"mem_write": "seed"},
    "the seed's write, one refinement": {"mem_write": "seed", "mem_write_iters": 1},
    "the seed's write, persistent slots": {"mem_write": "seed", "num_mem_kv": 2},
    "the seed's write, memory_layers": {"mem_write": "seed", "memory_layers": [2]},
    "residual": {"gate": "residual"},
    "gru": {"gate": "gru"},
    "mogrify": {"mogrify": True},
    "mogrified gru": {"gate": "gru", "mogrify": True},
    "ff_glu": {"ff_glu": True},
    "no projection": {"input_dim": None},
}


def make_core(name: str, seed: int = 0) -> MemoryTransformerXL:
    """Return a core whose every parameter matters, and none is so large that rounding grows."""
    torch.manual_seed(seed)
    core = MemoryTransformerXL(**(BASE | CONFIGURATIONS[name]))
    with torch.no_grad():
        for module in core.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(0.5)
        for parameter in core.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return core


def random_inputs(
    core: MemoryTransformerXL, num_steps: int, reset_rate: float, seed: int = 1
) -> tuple[Tensor, Tensor]:
    """Return x (B, T, input_dim) and reset (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH_SIZE, num_steps, core.input_dim, generator=generator)
    return x, torch.rand(BATCH_SIZE, num_steps, generator=generator) < reset_rate


def visible(state: MemoryState) -> dict[str, Tensor]:
    """Return the state without what its masks hide."""
    return {
        "short": torch.where(state.short_valid[:, None, :, None], state.short, 0.0),
        "short_valid": state.short_valid,
        "long": torch.where(state.long_valid[:, None, None], state.long, 0.0),
        "long_valid": state.long_valid,
        "segment": torch.where(state.segment_valid[:, None, :, None], state.segment, 0.0),
        "segment_valid": state.segment_valid,
        "position": torch.tensor(state.position),
    }
