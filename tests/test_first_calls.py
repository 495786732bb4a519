"""Types and shapes are checked in the first calls of each function in each test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import first_calls
import pytest
import torch
from jaxtyping import TypeCheckError

from agents.episodes import EpisodeCounts, clear, no_counts
from mtxl_rl.core.long_memory import GatedWrite, hard_sigmoid
from mtxl_rl.core.state import MemoryState

DONE = torch.zeros(2, dtype=torch.bool)
COUNTS = no_counts(2, torch.device("cpu"))


def of_a_class() -> None:
    MemoryState.from_dict([])  # type: ignore[arg-type]


WRONG: dict[str, Callable[[], object]] = {
    "function": partial(clear, COUNTS, DONE[None]),
    "constructor": partial(EpisodeCounts, *[DONE] * 4),
    "method": partial(GatedWrite(4, 1, 2, 3), torch.zeros(2, 1, 3, 4), DONE, 2),
    "class method": of_a_class,
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_found(kind: str) -> None:
    with pytest.raises(TypeCheckError):
        WRONG[kind]()


def test_after_many_calls_a_function_is_called_as_it_is_until_the_next_test() -> None:
    for _ in range(first_calls.NUM_CHECKED):
        clear(COUNTS, DONE)
    clear(COUNTS, DONE[None])  # would be refused
    with pytest.raises(TypeCheckError):
        hard_sigmoid(DONE)  # others are still checked
    first_calls.begin_anew()
    with pytest.raises(TypeCheckError):
        clear(COUNTS, DONE[None])
