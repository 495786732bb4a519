"""One step of an agent as a function of tensors whose shapes never change, for export.

Shapes: one env; L layers, P memory layers, M short-memory length, S long-memory slots, W segment
length, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agents.actor_critic import ActorCritic
from agents.cores.baseline_cores import BaselineCore, TensorState
from agents.cores.memory_core import MemoryCore
from mtxl_rl import MemoryTransformerXL
from mtxl_rl.policy import numbers_of

MEMORY = ("short", "short_valid", "long", "long_valid", "segment", "segment_valid", "clock")
"""Parts of a memory transformer's state; the clock is the step's place in its segment, (1,)."""


class ActingStep(nn.Module):
    """One step as a function of tensors: the core's forward pass with T = 1, without branches.

    A write to the long memory is computed at every step and taken at the last one of a segment.

    Args:
        agent: who acts.
    """

    def __init__(self, agent: ActorCritic):
        super().__init__()
        self.agent = agent
        self.observation_names = list(agent.observation_space.spaces)
        self.state_names = list(first_state(agent))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take a step.

        Args:
            tensors: the observation's parts by `observation_names`, the previous action and reward,
                whether the step starts an episode, the state by `state_names`.

        Returns:
            Probabilities of the actions, part by part (of numbers the means and then the
            deviations); the value; the state.
        """
        num_parts = len(self.observation_names)
        observation = dict(zip(self.observation_names, tensors, strict=False))
        prev_action, prev_reward, reset, *state = tensors[num_parts:]
        inputs = self.agent.next_inputs(observation, prev_action, prev_reward, reset)
        x = self.agent.encode(inputs)
        core = self.agent.core
        if isinstance(core, MemoryCore):
            y, after = _memory_step(core.transformer, x, reset, *state)
        else:
            assert isinstance(core, BaselineCore)
            y, tensor_state = core.step(x, TensorState(tuple(state)), reset)
            after = tensor_state.tensors
        policy, value = self.agent.heads(y, inputs)
        return numbers_of(policy), value, *after


def first_state(agent: ActorCritic) -> dict[str, Tensor]:
    """Return the state of an env that has seen nothing, by name."""
    state = agent.initial_state(1)
    if isinstance(state, TensorState):
        return {f"state_{place}": tensor for place, tensor in enumerate(state.tensors)}
    named = {name: getattr(state, name) for name in MEMORY[:-1]}
    named["clock"] = torch.zeros(1, dtype=torch.int64)
    # what is empty is no input
    return {name: tensor for name, tensor in named.items() if tensor.numel()}


def _memory_step(
    core: MemoryTransformerXL, x: Tensor, reset: Tensor, *state: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output of a step, and the state after it, of tensors whose shapes never change."""
    parts = {name: getattr(core.initial_state(1), name) for name in MEMORY[:-1]}
    names = [name for name in parts if parts[name].numel()] + ["clock"]
    parts |= dict(zip(names, state, strict=True))  # what is empty is no input
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

    y = core.input_proj(x)[:, None]
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
    hidden = core.of_memory_layers(steps)
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
        written, _ = core.write(before, hidden, valid, short)
        after["long"] = torch.where(is_end, written, long)
        after["long_valid"] = long_valid | is_end
    return y[:, 0], tuple(after[name] for name in names)
