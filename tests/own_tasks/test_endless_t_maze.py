"""The endless T-maze: what it draws, its two forms step by step, and what it refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from chi_squared import is_uniform
from wrong_actions import refuses_wrong_actions

import envs
from envs.memory_tasks.endless_t_maze import (
    CORRIDOR,
    JUNCTION,
    EndlessTMazeEnv,
    endless_options,
)
from envs.memory_tasks.endless_t_maze_tensors import EndlessTMazeTensorEnv
from envs.registry import check_id
from envs.wrapped.gymnasium_adapter import GymnasiumEnv

IDS = [f"mtxl/EndlessTMaze{name}-v0" for name in ("0x1", "0x5", "3x4", "1to5x6", "0to9x33")]
MIXED = "mtxl/EndlessTMaze1to5x6-v0"


def tensors(env_id: str, num_envs: int, **options: Any) -> EndlessTMazeTensorEnv:
    check_id(env_id)
    return EndlessTMazeTensorEnv(env_id, num_envs, **options)


def original(env_id: str) -> EndlessTMazeEnv:
    check_id(env_id)
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    assert isinstance(env, EndlessTMazeEnv)
    return env


def play(env: EndlessTMazeEnv, seed: int, is_right: bool) -> tuple[list[int], list[float], bool]:
    """Return symbols, rewards and success of an episode of an agent that remembers the last cue."""
    symbol, _ = env.reset(seed=seed)
    symbols, rewards, cue, is_over, info = [symbol], [], -1, False, {}
    while not is_over:
        cue = symbol if symbol < CORRIDOR else cue
        symbol, reward, is_over, is_cut, info = env.step(cue if is_right else 1 - cue)
        assert not is_cut
        symbols.append(symbol)
        rewards.append(reward)
    return symbols, rewards, info["is_success"]


@pytest.mark.parametrize("env_id", IDS)
def test_the_last_cue_is_the_turn(env_id: str) -> None:
    env = original(env_id)
    number = env.num_corridors
    for seed in range(5):
        symbols, rewards, is_success = play(env, seed, is_right=True)
        assert is_success
        assert sum(rewards) == pytest.approx(1)
        assert symbols[:-1].count(JUNCTION) == number
        assert [reward > 0 for reward in rewards] == [s == JUNCTION for s in symbols[:-1]]
        ends = [-1, *(step for step, symbol in enumerate(symbols[:-1]) if symbol == JUNCTION)]
        assert set(np.diff(ends) - 2) <= set(env.lengths)
        cues = [step for step, symbol in enumerate(symbols) if symbol < CORRIDOR]
        assert cues[0] == 0
        assert set(cues) <= {end + 1 for end in ends}
        assert play(env, seed, is_right=False)[1:] == ([0.0] * len(rewards), False)


@pytest.mark.parametrize("form", ["gymnasium", "tensor"])
def test_lengths_cues_and_news_are_drawn_evenly(form: str) -> None:
    env_id, num_episodes = "mtxl/EndlessTMaze1to5x8-v0", 400
    if form == "tensor":
        env = tensors(env_id, num_episodes, seed=3)
        env.reset()
        state = env.state_dict()
        junctions, shown = state["junctions"], state["shown"]
    else:
        single = original(env_id)
        episodes = []
        for seed in range(num_episodes):
            single.reset(seed=seed)
            episodes.append((single.junctions, single.shown))
        junctions, shown = (torch.tensor(each) for each in zip(*episodes, strict=True))
    lengths = torch.diff(junctions, dim=1) - 2
    assert is_uniform([int((lengths == length).sum()) for length in (1, 2, 4, 5)])
    is_new = shown[:, 1:] != CORRIDOR
    assert is_uniform([int(is_new.sum()), int((~is_new).sum())])
    assert is_uniform([int((shown == cue).sum()) for cue in (0, 1)])
    assert (shown[:, 0] != CORRIDOR).all()
    cues = [row[row != CORRIDOR] for row in shown]
    assert all((torch.diff(row) != 0).all() for row in cues)  # each is another


def test_without_memory_no_turn_is_better_than_another() -> None:
    env = tensors("mtxl/EndlessTMaze0x3-v0", 4000)
    env.reset()
    answers = env.state_dict()["answers"]
    kinds = (answers * torch.tensor([1, 2, 4])).sum(1).bincount(minlength=8)
    assert is_uniform(kinds.tolist())


@pytest.mark.parametrize("env_id", IDS)
def test_tensors_equal_the_gymnasium_form(env_id: str) -> None:
    """Loaded at any step; half of the players right and half of them random."""
    rng = np.random.default_rng(0)
    singles = [original(env_id) for _ in range(8)]
    env = tensors(env_id, len(singles))
    env.keeps_final = True
    ends: Counter[bool] = Counter()

    def action_of(single: EndlessTMazeEnv, index: int) -> int:
        corridor = int(np.searchsorted(single.junctions, single.time))
        return single.answers[corridor] if index % 2 == 0 else int(rng.integers(2))

    for round_ in range(3):
        seen = []
        for index, single in enumerate(singles):
            seen.append(single.reset(seed=100 * round_ + index)[0])
            for _ in range(int(rng.integers(single.junctions[-1] + 1)) if round_ else 0):
                seen[index] = single.step(action_of(single, index))[0]
        assert env.load(singles)["observation"].tolist() == seen
        is_playing = [True] * len(singles)
        while any(is_playing):
            actions = [action_of(s, i) if is_playing[i] else 0 for i, s in enumerate(singles)]
            step = env.step(torch.tensor(actions))
            assert step.cue is None
            for index in np.flatnonzero(is_playing):
                symbol, reward, is_over, _, info = singles[index].step(actions[index])
                assert step.reward[index] == np.float32(reward)
                assert bool(step.terminated[index]) == is_over
                assert not step.truncated[index]
                assert bool(step.success[index]) == info.get("is_success", False)
                seen_now = step.final_observation if is_over else step.observation
                assert seen_now is not None
                assert seen_now["observation"][index] == symbol
                is_playing[index] = not is_over
                ends[info.get("is_success", False)] += is_over
    assert ends[True] >= 12


def test_both_backends_play_the_episodes_of_given_seeds() -> None:
    both = [
        envs.make(MIXED, 2, backend=backend, level_seeds=[3, 1, 4])
        for backend in ("tensor", "gymnasium")
    ]
    assert isinstance(both[0], EndlessTMazeTensorEnv)
    assert isinstance(both[1], GymnasiumEnv)
    assert both[0].observation_space == both[1].observation_space
    assert [env.has_success for env in both] == [True, True]
    first = [env.reset()["observation"] for env in both]
    assert torch.equal(*first)
    generator, num_ended = torch.Generator().manual_seed(0), 0
    while num_ended < 8:
        actions = torch.randint(2, (2,), generator=generator)
        ours, theirs = (env.step(actions) for env in both)
        assert torch.equal(ours.observation["observation"], theirs.observation["observation"])
        for name in ("reward", "terminated", "truncated", "success"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        num_ended += int(ours.terminated.sum())


def test_ids_say_their_sizes() -> None:
    assert endless_options("mtxl/EndlessTMaze10x16-v0") == {"lengths": (10,), "num_corridors": 16}
    options = endless_options("mtxl/EndlessTMaze10to40x2-v0")
    assert options == {"lengths": (10, 20, 40), "num_corridors": 2}
    assert endless_options("mtxl/Recall20-v0") is None
    for env_id, words in {
        "mtxl/EndlessTMaze010x2-v0": "must be mtxl/EndlessTMaze",
        "mtxl/EndlessTMaze10-v0": "must be mtxl/EndlessTMaze",
        "mtxl/EndlessTMaze9to3x2-v0": "names sizes from 9 to 3; swap them",
        "mtxl/EndlessTMaze1000001x2-v0": "length=1000001 must be a whole number from 0 to 1000000",
        "mtxl/EndlessTMaze1x1001-v0": "num_corridors=1001 must be a whole number from 1 to 1000",
    }.items():
        with pytest.raises(ValueError, match=words):
            envs.make(env_id, 1)
    with pytest.raises(ValueError, match="lengths is empty"):
        EndlessTMazeEnv(())
    with pytest.raises(ValueError, match="length=True must be a whole number from 0"):
        EndlessTMazeEnv((True,))
    with pytest.raises(ValueError, match="num_corridors=True must be a whole number from 1"):
        EndlessTMazeEnv((1,), True)


def test_what_does_not_fit_is_named_and_changes_nothing() -> None:
    env = tensors(MIXED, 3)
    refuses_wrong_actions(env, highest=1, named="turn 0, turn 1")
    before = env.state_dict()
    other = original("mtxl/EndlessTMaze1to5x7-v0")
    with pytest.raises(ValueError, match="an environment without an episode; reset"):
        env.load([other] * 3)
    other.reset(seed=0)
    with pytest.raises(ValueError, match=r"with num_corridors=7, but this batch has .*=6"):
        env.load([other] * 3)
    with pytest.raises(ValueError, match=r"mtxl/EndlessTMaze.* draws no pictures"):
        env.render(0)
    assert all(torch.equal(value, before[name]) for name, value in env.state_dict().items())
