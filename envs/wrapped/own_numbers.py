"""Torch's generators as environments of a process see them: theirs, and not the agent's.

An environment that calls `torch.manual_seed` in its reset would make the agent sample the same
actions again and again; one that draws from torch would change what the agent draws.
"""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor


class OwnNumbers:
    """Within, torch's generators go on from where they were within the last time.

    Args:
        seed: of the first time.
    """

    def __init__(self, seed: int):
        self._own = [torch.Generator().manual_seed(seed).get_state()]
        self._agents: list[Tensor] = []

    def __enter__(self) -> None:
        self._agents = _states()
        _set(self._own)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._own = _states()
        _set(self._agents)


def _states() -> list[Tensor]:
    """Return the state of the CPU's generator and, where it is used, of the GPU's."""
    on_gpu = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_gpu]


def _set(states: list[Tensor]) -> None:
    on_cpu, *on_gpu = states
    torch.set_rng_state(on_cpu)
    for state in on_gpu:
        torch.cuda.set_rng_state(state)
