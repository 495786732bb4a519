"""Some envs of a batch start anew between two steps; the others do not notice."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import envs
from envs.wrapped.guarded_env import EnvError

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


class ClockEnv(envs.BatchedEnv):
    """Tensors of one's own, which show the time and start anew where they are asked to."""

    observation_space = spaces.Dict({"time": spaces.Box(0, 99, (1,))})
    action_space = spaces.Discrete(2)
    has_success = False
    answer = "right"

    def __init__(self, num_envs: int, device: torch.device, seed: int):
        self.num_envs, self.device = num_envs, device

    def reset(self) -> dict[str, Tensor]:
        self.time = torch.zeros(self.num_envs, 1)
        return {"time": self.time}

    def restart(self, rows: Tensor) -> Any:
        self.time[rows] = 0
        rows.fill_(False)  # they are a copy
        if self.answer == "fails":
            raise KeyError("rows")
        return {"time": self.time if self.answer == "right" else self.time[:2]}

    def step(self, actions: Tensor) -> envs.EnvStep:
        self.time += 1
        no = torch.zeros(self.num_envs, dtype=torch.bool)
        return envs.EnvStep({"time": self.time}, no.float(), no, no, no, None)

    def render(self, index: int) -> Any: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("answer", "said"),
    [("right", ""), ("fails", "restart after 1 failed: KeyError"), ("short", "restart after 1")],
)
def test_tensors_of_ones_own_may_start_anew(
    answer: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClockEnv, "answer", answer)
    monkeypatch.delitem(gymnasium.registry, "Clock-v0", raising=False)
    envs.register("Clock-v0", ClockEnv)
    env = envs.make("Clock-v0", NUM_ENVS)
    env.reset()
    env.step(torch.zeros(NUM_ENVS, dtype=torch.int64))
    rows = ROWS.clone()
    if said:
        with pytest.raises(EnvError, match=said):
            env.restart(rows)
        return
    begun = env.restart(rows)
    assert begun is not None
    assert begun["time"][:, 0].tolist() == [1, 0, 0, 1, 1, 0]
    assert torch.equal(rows, ROWS)
    env.step(torch.zeros(NUM_ENVS, dtype=torch.int64))
    assert begun["time"][:, 0].tolist() == [1, 0, 0, 1, 1, 0]  # the env's own tensor has gone on
