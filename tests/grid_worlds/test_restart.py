"""Some envs of a batch of tensors start anew between two steps; the others do not notice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import envs
from envs.tensor_env import TensorEnv

NUM_ENVS = 6
ROWS = torch.tensor([False, True, True, False, False, True])
BATCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "table": ("MiniGrid-MemoryS7-v0", {"max_steps": 15}),
    "t-maze": ("mtxl/TMaze10-v0", {}),
    "cells": ("MiniGrid-DoorKey-5x5-v0", {"max_steps": 15}),
    "symbols": ("mtxl/Recall1to8x3gap2shows2-v0", {}),
    "rules": ("mtxl/popgym-RepeatPreviousEasy-v0", {}),
    "rules, boards": ("mtxl/popgym-ConcentrationEasy-v0", {}),
    "mayhem": ("mtxl/MortarMayhem-Grid-v0", {}),
}


def make(kind: str) -> TensorEnv:
    env_id, options = BATCHES[kind]
    env = envs.make(env_id, NUM_ENVS, seed=3, env_kwargs=options)
    assert isinstance(env, TensorEnv)
    return env


@pytest.mark.unchecked
@pytest.mark.parametrize("num_steps", [1, 70])
@pytest.mark.parametrize("kind", list(BATCHES))
def test_each_episode_is_that_of_its_number_and_the_others_do_not_notice(
    kind: str, num_steps: int
) -> None:
    ours, twin, again = make(kind), make(kind), make(kind)
    generator = torch.Generator().manual_seed(0)
    num_actions = len(ours.action_names)
    actions = torch.randint(num_actions, (num_steps + 200, NUM_ENVS), generator=generator)
    for env in (ours, twin, again):
        env.reset()
    for each in actions[:num_steps]:
        ours.step(each)
        twin.step(each)
    seen_before = ours._observe()
    before = ours._buffers["episode"].clone()
    begun = ours.restart(ROWS)
    assert torch.equal(ours._buffers["episode"], before + ROWS)
    for name, seen in begun.items():
        assert torch.equal(seen[~ROWS], seen_before[name][~ROWS]), name
    resumed = again.load_state_dict(ours.state_dict())  # has drawn nothing ahead
    for name, seen in begun.items():
        assert torch.equal(seen, resumed[name]), name

    num_ends = 0
    for each in actions[num_steps:]:
        one, other, alone = ours.step(each), again.step(each), twin.step(each)
        for name in ("reward", "terminated", "truncated", "success"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
            assert torch.equal(getattr(one, name)[~ROWS], getattr(alone, name)[~ROWS]), name
        for name, seen in one.observation.items():
            assert torch.equal(seen, other.observation[name]), name
            assert torch.equal(seen[~ROWS], alone.observation[name][~ROWS]), name
        num_ends += int((one.terminated | one.truncated)[ROWS].sum())
    assert num_ends


@pytest.mark.unchecked
@pytest.mark.parametrize("kind", list(BATCHES))
def test_without_looking_as_on_a_gpu_episodes_are_the_same(kind: str) -> None:
    ours, looking = make(kind), make(kind)
    ours._on_host = False
    generator = torch.Generator().manual_seed(0)
    for env in (ours, looking):
        env.reset()
    for number in range(120):
        actions = torch.randint(len(ours.action_names), (NUM_ENVS,), generator=generator)
        one, other = ours.step(actions).observation, looking.step(actions).observation
        if number % 40 == 20:
            one, other = ours.restart(ROWS), looking.restart(ROWS)
        for name, seen in one.items():
            assert torch.equal(seen, other[name]), (number, name)


def test_nothing_starts_anew_before_it_has_started() -> None:
    with pytest.raises(ValueError, match="no episode has started"):
        make("table").restart(ROWS)
