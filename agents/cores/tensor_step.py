"""A step of the memory transformer as a function of tensors whose shapes never change, for export.

Shapes: one env; L layers, P memory layers, M short-memory length, S long-memory slots, W segment
length, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtxl_rl.core import MemoryTransformerXL
from mtxl_rl.core.state import TENSOR_FIELDS
from mtxl_rl.core.writes import of_layers, write


def first_tensors(core: MemoryTransformerXL) -> dict[str, Tensor]:
    """Return the state of an env that has seen nothing, by name, without what is empty.

    `clock` is the step's place in its segment, (1,).
    """
    state = core.initial_state(1)
    named = {name: getattr(state, name) for name in TENSOR_FIELDS}
    named["clock"] = torch.zeros(1, dtype=torch.int64)
    return {name: tensor for name, tensor in named.items() if tensor.numel()}


def step_tensors(
    core: MemoryTransformerXL, x: Tensor, reset: Tensor, *state: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output of a step, and the state after it, of tensors whose shapes never change."""
    first = core.initial_state(1)
    names = list(first_tensors(core))  # what is empty is no input
    parts = {name: getattr(first, name) for name in TENSOR_FIELDS}
    parts |= dict(zip(names, state, strict=True))
    clock: Tensor = parts["clock"]
    short: Tensor = parts["short"]
    long: Tensor = parts["long"]
    segment: Tensor = parts["segment"]
    short_valid = parts["short_valid"] & ~reset[:, None]
    segment_valid = parts["segment_valid"] & ~reset[:, None]
    long_valid = parts["long_valid"] & ~reset

    places = torch.arange(core.seq_len)
    # keys are persistent slots, long and short memory, the whole segment, and the step itself:
    # those of later places are not seen. The last position vector is that of distance 0.
    last = core.positions.shape[1] - 1
    index = (torch.arange(last + 1) + (core.seq_len - 1 - clock)).clamp_max(last)
    positions = torch.cat((core.positions[:, index], core.positions[:, last:]), dim=1)
    is_step = torch.ones(1, 1, dtype=torch.bool)
    persistent = torch.ones(1, core.num_mem_kv, dtype=torch.bool)
    earlier = segment_valid & (places < clock)
    slots = long_valid[:, None].expand(-1, core.lmem_len)
    full_mask = torch.cat((persistent, slots, short_valid, earlier, is_step), dim=1)[:, None]
    local_mask = torch.cat((persistent, earlier, is_step), dim=1)[:, None]

    y = core.embed(x[:, None], full_mask)
    inputs = []
    for place, layer in enumerate(core.layers):
        inputs.append(y)
        sees = core.has_memory(place)
        mask = full_mask if sees else local_mask
        y = layer(
            y,
            segment[:, place],
            long if sees and core.lmem_len else None,
            short[:, core.memory_index(place)] if sees and core.mem_len else None,
            positions[:, core.num_mem_kv - mask.shape[2] :],
            mask,
        )

    is_here = places == clock
    steps = torch.where(is_here[:, None], torch.stack(inputs, dim=1), segment)  # (1, L, W, D)
    steps_valid = earlier | is_here
    is_end = clock == core.seq_len - 1  # (1,)
    hidden = of_layers(steps, core.memory_layers)
    valid = torch.cat((short_valid, steps_valid), dim=1)
    after = {
        "short": torch.where(is_end, torch.cat((short, hidden), 2)[:, :, core.seq_len :], short),
        # ONNX Runtime has no choice between truth values
        "short_valid": (valid[:, core.seq_len :] & is_end) | (short_valid & ~is_end),
        "long": long,
        "long_valid": long_valid,
        "segment": torch.where(is_end, 0.0, steps),
        "segment_valid": steps_valid & ~is_end,
        "clock": torch.where(is_end, 0, clock + 1),
    }
    if core.long_memory is not None:
        before = torch.where(long_valid[:, None, None], long, core.long_memory.initial_slot)
        written, _ = write(core.long_memory, before, hidden, valid, short)
        after["long"] = torch.where(is_end, written, long)
        after["long_valid"] = long_valid | is_end
    return y[:, 0], tuple(after[name] for name in names)
