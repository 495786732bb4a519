"""Some envs of a batch start anew between two steps; the others do not notice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import envs

NUM_ENVS = 6
ROWS = torch.tensor([False, True, True, False, False, True])
BATCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "table": ("MiniGrid-MemoryS7-v0", {}),
    "cells": ("MiniGrid-DoorKey-5x5-v0", {}),
    "symbols": ("mtxl/Recall1to8x3gap2shows2-v0", {}),
    "rules": ("mtxl/popgym-RepeatPreviousEasy-v0", {}),
    "single": ("mtxl/Recall1to8x3gap2-v0", {"backend": "gymnasium", "vectorize": "sync"}),
    "single with cues": ("MiniGrid-MemoryS7-v0", {"backend": "gymnasium", "vectorize": "sync"}),
    "processes": ("mtxl/Recall1to8x3gap2-v0", {"backend": "gymnasium", "vectorize": "async"}),
    "processes, with texts": ("liberties_env:Talking-v0", {"vectorize": "async"}),
    "vector, reset by a mask": ("vector_env:Vector-SyncDisabled-v0", {}),
    "vector, reset by number": ("vector_env:Vector-Pool-v0", {}),
}


def make(kind: str) -> envs.BatchedEnv:
    env_id, options = BATCHES[kind]
    return envs.make(env_id, NUM_ENVS, seed=3, **options)


@pytest.mark.filterwarnings("ignore:observation .says. has a text of more")
@pytest.mark.parametrize("kind", list(BATCHES))
def test_some_start_anew_and_the_others_do_not_notice(kind: str) -> None:
    ours, twin, again = make(kind), make(kind), make(kind)
    try:
        first = ours.reset()
        twin.reset()
        again.reset()
        second = again.reset()  # of the next episodes
        actions = torch.zeros(NUM_ENVS, dtype=torch.int64)
        for env in (ours, twin):
            step = env.step(actions)
            assert not (step.terminated | step.truncated).any()
        begun = ours.restart(ROWS)
        assert begun is not None
        for name, seen in begun.items():
            assert torch.equal(seen[ROWS], second[name][ROWS]), name
            assert torch.equal(seen[~ROWS], step.observation[name][~ROWS]), name
        if "Talking" not in BATCHES[kind][0]:  # whose episodes are all alike
            assert any(not torch.equal(seen[ROWS], first[n][ROWS]) for n, seen in begun.items())
        num_ends = 0
        for _ in range(60):
            one, other = ours.step(actions), twin.step(actions)
            for name in ("reward", "terminated", "truncated", "cue"):
                if getattr(other, name) is not None:
                    mine, theirs = getattr(one, name), getattr(other, name)
                    assert torch.equal(mine[~ROWS], theirs[~ROWS]), name
            for name, seen in one.observation.items():
                assert torch.equal(seen[~ROWS], other.observation[name][~ROWS]), name
            num_ends += int((one.terminated | one.truncated).sum())
        assert num_ends or "MiniGrid" in BATCHES[kind][0]
    finally:
        for env in (ours, twin, again):
            env.close()


def test_what_resets_itself_cannot_be_asked_and_nothing_changes() -> None:
    ours, twin = (envs.make("vector_env:Vector-SyncSame-v0", NUM_ENVS, seed=3) for _ in range(2))
    for env in (ours, twin):
        env.reset()
    assert ours.restart(ROWS) is None
    actions = torch.zeros(NUM_ENVS, dtype=torch.int64)
    for _ in range(9):
        one, other = ours.step(actions), twin.step(actions)
        assert torch.equal(one.observation["time"], other.observation["time"])
