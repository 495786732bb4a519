"""What an evaluation does to an agent's memory, to learn which part of it is used.

Shapes: B envs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from agents.actor_critic import ActorCritic, Player
from agents.learning.rollout import Carry
from mtxl_rl.config import Memory
from mtxl_rl.core import MemoryState

MEMORIES: tuple[Memory, ...] = get_args(Memory)
RECEIVERS = "those that got another cue's memory"
"""Which of the episodes of swapped-long count, where cues are known."""


class InterventionError(ValueError):
    """The intervention cannot be made in this agent and environment."""


def fitting_interventions(agent: ActorCritic) -> list[Memory]:
    """Return the interventions that change something in this agent."""
    core = agent.core
    if not core.has_memory:
        return []
    fitting: list[Memory] = ["cleared"]
    if "short" in core.memories:
        fitting.append("without-short")
    if "long" in core.memories:
        fitting.extend(("without-long", "swapped-long"))
    return fitting


def levels_for(memory: Memory, levels: np.ndarray) -> np.ndarray:
    """Return the levels of the envs, in turn, so that those that count play `levels`.

    Of swapped-long the envs with odd numbers do, and those that give play them, too.
    """
    if memory != "swapped-long":
        return levels
    return np.stack((np.roll(levels, 1), levels), axis=1).flatten()


class Intervention:
    """Changes the memory before every step.

    - cleared: every step is as the first of an episode; previous action and reward are hidden too.
    - without-short: the short memory is emptied (the segment in progress stays).
    - without-long: the long memory is emptied.
    - swapped-long: envs with odd numbers get, at the start of every segment, the long memory of an
      episode with another cue, from the envs with even numbers, which are left alone. Who uses it
      then goes to the other end. It acts on episodes that have seen their cue; those alone count.
      Where no cue is known it is the long memory of any other episode, and all of them count.

    Args:
        memory: which.
        agent: whose.
        has_cue: whether the environments say which cue is in view.
        num_envs: B.

    Raises:
        InterventionError: for what cannot be done to this agent or in this environment.
    """

    def __init__(self, memory: Memory, agent: ActorCritic, has_cue: bool, num_envs: int):
        fitting = fitting_interventions(agent)
        if memory != "kept" and memory not in fitting:
            raise InterventionError(
                f"memory={memory!r} has nothing to act on in this agent; set --memory to "
                f"{' or '.join(('kept', *fitting))}"
            )
        if memory == "swapped-long" and num_envs < 2:
            raise InterventionError(
                f"memory={memory!r} needs two envs or more that play at once, not {num_envs}; "
                "raise --num-envs and --episodes"
            )
        self._memory = memory
        self._agent = agent
        self._has_cue = has_cue
        rows = torch.arange(num_envs, device=agent.device)
        self._is_receiver = rows % 2 == 1
        self._has_received = torch.zeros_like(self._is_receiver)
        self.is_idle = memory == "swapped-long"
        """Whether it has acted on no episode yet."""

    @property
    def plays(self) -> Bool[Tensor, " B"]:
        """Which envs play episodes that may count."""
        if self._memory == "swapped-long":
            return self._is_receiver
        return torch.ones_like(self._is_receiver)

    @property
    def has_acted(self) -> Bool[Tensor, " B"]:
        """Whether the episode in progress counts."""
        is_of_some = self._memory == "swapped-long" and self._has_cue
        return self._has_received if is_of_some else self.plays

    def __call__(self, player: Player, carry: Carry) -> Carry:
        """Change what the next step of `player` sees: its inputs, which are returned, or memory."""
        if self._memory == "cleared":
            return replace(carry, inputs=self._agent.without_past(carry.inputs))
        if self._memory == "swapped-long":
            self._has_received = self._has_received & ~carry.inputs.reset
        if self._memory != "kept" and player.acting.position == 0:  # memories change here
            state = player.state
            if self._memory == "without-short":
                player.state = replace(state, short_valid=torch.zeros_like(state.short_valid))
            if self._memory == "without-long":
                player.state = replace(state, long_valid=torch.zeros_like(state.long_valid))
            if self._memory == "swapped-long":
                player.state = self._swapped(carry, state)
        return carry

    def _swapped(self, carry: Carry, state: MemoryState) -> MemoryState:
        remembers = state.long_valid & (carry.cue >= 0) if self._has_cue else state.long_valid
        receives = remembers & self._is_receiver
        gives = remembers & ~self._is_receiver
        fits = receives[:, None] & gives[None, :]
        if self._has_cue:
            fits = fits & (carry.cue[:, None] != carry.cue[None, :])
        donor = (fits * torch.rand(fits.shape, device=fits.device)).argmax(dim=1)
        has_donor = fits.any(dim=1)
        self._has_received = self._has_received | has_donor
        self.is_idle &= not has_donor.any()
        long = torch.where(has_donor[:, None, None], state.long[donor], state.long)
        return replace(state, long=long)
