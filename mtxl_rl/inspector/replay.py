"""The same episode with another memory: where does the policy part?

What the agent sees and does is that of the recording; only its memory is changed, as
`mtxl_rl.evaluations.interventions` does it.

Shapes: see `mtxl_rl.inspector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from agents.actor_critic import ActorCritic
from agents.trees import map_tensors
from mtxl_rl.core import MemoryState
from mtxl_rl.inspector.recording import Recording
from mtxl_rl.policies.policy import numbers_of

CHUNK = 64
"""Steps of a call where there are no segments."""


@torch.no_grad()
def replay(
    agent: ActorCritic,
    recording: Recording,
    is_cleared: bool = False,
    donor: Recording | None = None,
) -> Float[Tensor, "T A"]:
    """Return the policy at each step of a recording, with its long memory, or another.

    Args:
        agent: who played.
        recording: what it saw and did.
        is_cleared: whether the long memory is emptied before every segment; of a core without
            slots, all memory before every step.
        donor: whose slots after as many writes take the place of its own; the last ones where its
            episode was shorter.
    """
    has_slots = "long" in agent.core.memories
    length = agent.core.segment_len if agent.core.memories else CHUNK
    state = agent.initial_state(1)
    policies = []
    for start in range(0, len(recording), length):
        steps = recording.inputs[start : start + length]
        inputs = map_tensors(lambda *tensors: torch.cat(tensors, dim=1), *steps)
        if is_cleared and not has_slots:
            inputs = agent.without_past(inputs)
        if has_slots and start:
            assert isinstance(state, MemoryState)
            if is_cleared:
                state = replace(state, long_valid=torch.zeros_like(state.long_valid))
            elif donor is not None and donor.memories:
                write = min(start // length, len(donor.memories)) - 1
                slots = donor.memories[write][None].to(state.long)
                state = replace(state, long=slots)
        policy, _, state = agent(inputs, state)
        policies.append(numbers_of(policy)[0].float().cpu())
    return torch.cat(policies)


def distances(
    policy: Float[Tensor, "T A"], other: Float[Tensor, "T A"], sizes: Sequence[int]
) -> Float[Tensor, " T"]:
    """Return the total variation between two policies: 0 where they are one, 1 where they part.

    Of an action of several parts, that of the part that differs most.

    Args:
        policy: from `numbers_of`.
        other: the other one; deviations are the same in both.
        sizes: numbers of choices of each part; empty where actions are numbers.
    """
    if sizes:
        parts = (policy - other).abs().split(list(sizes), dim=-1)
        return torch.stack([part.sum(dim=-1) / 2 for part in parts]).amax(dim=0)
    (mean, deviation), other_mean = policy.chunk(2, dim=-1), other.chunk(2, dim=-1)[0]
    return torch.erf((mean - other_mean).abs() / (8**0.5 * deviation)).amax(dim=-1)


def find_donor(recording: Recording, others: Sequence[Recording]) -> Recording | None:
    """Return an episode with another cue, or, where none is known, any other; None for none."""
    cue = max(recording.last_cue[-1], recording.cue[-1])
    for other in others:
        theirs = max(other.last_cue[-1], other.cue[-1])
        if other is not recording and other.memories and (cue < 0 or theirs not in (cue, -1)):
            return other
    return None
