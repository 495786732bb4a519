"""What a core is refused for: its sizes, its inputs, a state of another core.

Shapes: B envs, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtxl_rl.core.state import MemoryState


def check_inputs(x: Tensor, state: MemoryState, reset: Tensor, input_dim: int) -> None:
    """Raise ValueError where x (B, T, input_dim), state and reset (B, T) do not fit."""
    expected = (state.batch_size, reset.shape[1], input_dim)
    if x.shape != expected or reset.shape[0] != state.batch_size or not x.shape[1]:
        raise ValueError(
            f"x is {tuple(x.shape)}, reset {tuple(reset.shape)} and the state holds "
            f"{state.batch_size} envs; pass x (B, T, {input_dim}), reset (B, T) and a "
            "state of B envs, with T >= 1 (acting takes them without T)"
        )
    check_reset(reset)


def check_state(state: MemoryState, core: Mapping[str, object]) -> None:
    """Raise ValueError for the state of another core.

    Args:
        state: of any number of envs.
        core: what tells the states of this core from others', by the names below.
    """
    found: dict[str, Any] = {
        "dim": state.segment.shape[3],
        "depth": state.segment.shape[1],
        "seq_len": state.segment.shape[2],
        "mem_len": state.short.shape[2],
        "lmem_len": state.long.shape[1],
        "number of memory layers": state.short.shape[1],
        "dtype": state.segment.dtype,
    }
    for name, size in found.items():
        if size != core[name]:
            raise ValueError(
                f"the state's {name} is {size}, the core's {core[name]}; pass a state of this "
                "core, or None to start"
            )
    if not 0 <= state.position < found["seq_len"]:
        raise ValueError(
            f"the state's position is {state.position}; it must be from 0 to "
            f"{found['seq_len'] - 1}, the steps of a segment so far"
        )


def check_reset(reset: Tensor) -> None:
    """Raise ValueError for anything but truth values, of which `~` would make something else."""
    if reset.dtype != torch.bool:
        raise ValueError(f"reset has dtype {reset.dtype}; pass a bool tensor")


def check_sizes(at_least_1: dict[str, int], at_least_0: dict[str, int]) -> None:
    """Raise ValueError for a size that is too small."""
    for least, sizes in ((1, at_least_1), (0, at_least_0)):
        for name, size in sizes.items():
            if size < least:
                raise ValueError(f"{name}={size} must be {least} or more; raise {name}")


def check_heads(dim: int, heads: int) -> None:
    """Raise ValueError for a number of heads that does not divide the width."""
    if dim % heads:
        divisors = [count for count in range(1, dim + 1) if dim % count == 0]
        below = max(count for count in divisors if count <= heads)
        above = min((count for count in divisors if count >= heads), default=below)
        raise ValueError(
            f"heads={heads} must divide dim={dim}; set heads to {below} or {above}, "
            f"or dim to {(dim // heads + 1) * heads}"
        )


def check_memory_layers(memory_layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the numbers of layers, counted from 1, in order, each once.

    Raises:
        ValueError: for a number that is none of a layer, or for none at all.
    """
    chosen = tuple(sorted(set(memory_layers)))
    if not chosen or chosen[0] < 1 or chosen[-1] > depth:
        raise ValueError(
            f"memory_layers={tuple(memory_layers)} must name layers from 1 to depth={depth}, at "
            "least one; for no memory at all set mem_len=0 and lmem_len=0"
        )
    return chosen
