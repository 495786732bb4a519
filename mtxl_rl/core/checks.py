"""What a core is refused for: its sizes, its inputs, a state of another core.

Shapes: B envs, T steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from mtxl_rl.core.state import TENSOR_FIELDS, MemoryState, Sizes

AUTOCAST = (torch.float32, torch.float16, torch.bfloat16)
"""What torch.autocast takes one for another."""
LARGEST = 2**31 - 1
"""Size of anything: what is larger overflows in torch."""
LARGEST_GAIN = 1e3
"""Keys this far apart pick one: a larger gain is no sharper, and in the end not finite."""


def check_tensor(name: str, value: object) -> None:
    """Raise ValueError for what is no tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} is a {type(value).__name__}; pass a tensor")


def check_inputs(
    x: Tensor, state: MemoryState, reset: Tensor, input_dim: int, dtype: torch.dtype
) -> None:
    """Raise ValueError where x (B, T, input_dim), state and reset (B, T) do not fit."""
    expected = (state.batch_size, *x.shape[1:2], input_dim)
    if x.shape != expected or reset.shape != expected[:2] or not x.shape[1]:
        raise ValueError(
            f"x is {tuple(x.shape)}, reset {tuple(reset.shape)} and the state holds "
            f"{state.batch_size} envs; pass x (B, T, {input_dim}), reset (B, T) and a "
            "state of B envs, with T >= 1 (acting takes them without T)"
        )
    if not x.device == reset.device == state.short.device:
        raise ValueError(
            f"x is on {x.device}, reset on {reset.device} and the state on {state.short.device}; "
            "pass all on one, by .to(device)"
        )
    check_dtypes(x, reset, dtype)


def check_dtypes(x: Tensor, reset: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError for an x of another dtype than the core's, and for no truth values."""
    if reset.dtype != torch.bool:  # of anything else `~` would make something else
        raise ValueError(f"reset has dtype {reset.dtype}; pass a bool tensor")
    if x.dtype == dtype:
        return
    if not (x.dtype in AUTOCAST and torch.is_autocast_enabled(x.device.type)):
        raise ValueError(f"x has dtype {x.dtype}, the core {dtype}; pass x.to({dtype})")


def check_state(state: object, sizes: Sizes) -> None:
    """Raise ValueError for the state of another core, and for one that no core has.

    Args:
        state: of any number of envs.
        sizes: of the states of this core.
    """
    if not isinstance(state, MemoryState):
        raise ValueError(
            f"state is a {type(state).__name__}; pass core(x, state, reset) a MemoryState that the "
            "core returned (MemoryState.from_dict makes one of what to_dict returned)"
        )
    for name in TENSOR_FIELDS:
        check_tensor(f"the state's {name}", getattr(state, name))
    for name, num_dims in (("short", 4), ("long", 3), ("segment", 4)):
        shape = tuple(getattr(state, name).shape)
        if len(shape) != num_dims:
            raise ValueError(
                f"the state's {name} is {shape} and must have {num_dims} dimensions, the first of "
                "envs; pass state[[0]] for the state of one"
            )
    for name, size, of_core in zip(Sizes._fields, state.sizes, sizes, strict=True):
        if size != of_core:
            word = name.replace("num_memory_layers", "number of memory layers")
            raise ValueError(
                f"the state's {word} is {size}, the core's {of_core}; pass a state of this "
                "core, or None to start"
            )
    for name, (shape, dtype) in sizes.of_tensors(state.batch_size).items():
        tensor = getattr(state, name)
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(
                f"the state's {name} is {tuple(tensor.shape)} of {tensor.dtype}, which beside its "
                f"short must be {shape} of {dtype}; pass a state that a core returned"
            )
    if not is_whole(state.position) or not 0 <= state.position < sizes.seq_len:
        raise ValueError(
            f"the state's position is {state.position!r}; it must be a whole number from 0 to "
            f"{sizes.seq_len - 1}, the steps of a segment so far"
        )


def is_whole(value: object) -> bool:
    """Return whether it is a whole number, of NumPy's too, and no truth value."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_size(name: str, size: int, least: int, remedy: str, most: int = LARGEST) -> None:
    """Raise ValueError for a size that is too small or too large, or no whole number."""
    if not is_whole(size):
        raise ValueError(f"{name}={size!r} must be a whole number; {remedy}")
    if size < least:
        raise ValueError(f"{name}={size} must be {least} or more; {remedy}")
    if size > most:
        raise ValueError(f"{name}={size} must be at most {most:,}; {remedy}")


def check_gain(mem_write_gain: float | None) -> None:
    """Raise ValueError for a gain with which keys are nothing, or as good as infinite."""
    if mem_write_gain is not None and not 0 < mem_write_gain <= LARGEST_GAIN:
        raise ValueError(
            f"mem_write_gain={mem_write_gain} must be above 0 and at most {LARGEST_GAIN:g}, or None"
        )


def check_sizes(at_least_1: dict[str, int], at_least_0: dict[str, int]) -> None:
    """Raise ValueError for a size that is too small or too large, or no whole number."""
    for least, sizes in ((1, at_least_1), (0, at_least_0)):
        for name, size in sizes.items():
            check_size(name, size, least, f"set {name}")


def check_timesteps(timesteps: bool, mem_len: int) -> None:
    """Raise ValueError for timesteps without the short memory that counts them."""
    if timesteps and not mem_len:
        raise ValueError(
            "timesteps=True has no effect without a short memory, which counts them; leave it out, "
            "or set mem_len"
        )


def divisors(number: int) -> list[int]:
    """Return what a number can be divided by, in order; quickly, also where it is large."""
    small = [count for count in range(1, math.isqrt(number) + 1) if number % count == 0]
    return sorted({*small, *(number // count for count in small)})


def check_heads(dim: int, heads: int) -> None:
    """Raise ValueError for a number of heads that does not divide the width."""
    if dim % heads:
        below = max(count for count in divisors(dim) if count <= heads)
        above = min((count for count in divisors(dim) if count >= heads), default=below)
        raise ValueError(
            f"heads={heads} must divide dim={dim}; set heads to {below} or {above}, "
            f"or dim to {(dim // heads + 1) * heads}"
        )


def check_memory_layers(memory_layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the numbers of layers, counted from 1, in order, each once.

    Raises:
        ValueError: for a number that is none of a layer, or for none at all.
    """
    if not isinstance(memory_layers, Sequence) or not all(map(is_whole, memory_layers)):
        raise ValueError(
            f"memory_layers={memory_layers!r} must be a list of layers, counted from 1, or None "
            "for all; pass [1, 2], say"
        )
    chosen = tuple(sorted(set(memory_layers)))
    if not chosen or chosen[0] < 1 or chosen[-1] > depth:
        raise ValueError(
            f"memory_layers={tuple(memory_layers)} must name layers from 1 to depth={depth}, at "
            "least one; for no memory at all set mem_len=0 and lmem_len=0"
        )
    return chosen
