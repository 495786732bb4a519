"""POPGym's oddities, which are kept: each with a test that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from popgym_tasks import tensors

from envs.popgym.dealt import HigherLower
from envs.rules.task_tensors import TaskTensorEnv


def set_(env: TaskTensorEnv, **values: Any) -> None:
    """Write into the buffers, as one row for all envs."""
    for name, value in values.items():
        env._buffers[name][:] = torch.as_tensor(value)


def play(env: TaskTensorEnv, actions: list[Any]) -> list[tuple[Any, ...]]:
    """Return what one env shows after each action: observation, reward, terminated, truncated."""
    seen = []
    for action in actions:
        step = env.step(torch.tensor([action]))
        shown = step.final_observation if step.final_observation else step.observation
        values = [value[0].tolist() for value in shown.values()]
        observation = tuple(values) if len(values) > 1 else values[0]
        ends = bool(step.terminated), bool(step.truncated)
        seen.append((observation, round(float(step.reward), 6), *ends))
    return seen


def test_repeat_first_never_says_which_card_was_the_first() -> None:
    env = tensors("RepeatFirstEasy", 1)
    assert env.observation_space == spaces.Dict({"observation": spaces.Discrete(4)})
    env.reset()
    first = int(env.state_dict()["script"][0, 0, 0])
    steps = play(env, [first] * 51)
    assert sum(step[1] for step in steps) == pytest.approx(1, abs=1e-4)
    assert [step[2] for step in steps] == [False] * 50 + [True]


def test_repeat_previous_with_k_of_4_asks_for_three_steps_before() -> None:
    env = tensors("RepeatPreviousEasy", 1)
    env.reset()
    deck = env.state_dict()["script"][0, :, 0].tolist()
    steps = play(env, [0, 0, 0, *deck[:48]])
    assert [step[1] for step in steps] == [0.0] * 3 + [round(1 / 48, 6)] * 48


def test_autoencode_shows_the_last_card_in_mode_play_and_then_suit_0() -> None:
    env = tensors("AutoencodeEasy", 1)
    env.reset()
    deck = env.state_dict()["script"][0, :52, 1].tolist()
    steps = play(env, [0] * 51 + deck[::-1])
    assert [step[0] for step in steps[:50]] == [(1, card) for card in deck[1:51]]
    assert steps[50][0] == (0, deck[51])
    assert {step[0] for step in steps[51:-1]} == {(0, 0)}
    assert [step[1] for step in steps] == [0.0] * 51 + [round(1 / 52, 6)] * 52


def test_count_recall_counts_the_card_that_is_shown_and_knows_no_near_miss() -> None:
    env = tensors("CountRecallEasy", 1)
    seen = env.reset()["observation"][0].tolist()
    count = int(seen[0] == seen[1])
    state = env.state_dict()
    assert env.step(torch.tensor([count])).reward == np.float32(1 / 51)
    for wrong in (1 - count, 26):
        env.load_state_dict(state)
        assert env.step(torch.tensor([wrong])).reward == np.float32(-1 / 51)


def concentration() -> TaskTensorEnv:
    """Return a deck that lies in order, so that neighbours are pairs."""
    env = tensors("ConcentrationHard", 1)
    env.reset()
    set_(env, cards=torch.arange(52) // 4)
    return env


def up(observation: list[int]) -> dict[int, int]:
    return {place: card for place, card in enumerate(observation) if card != 13}


def test_concentration_shows_both_cards_of_a_try_once() -> None:
    steps = play(concentration(), [5, 20, 9, 10])
    assert [up(step[0]) for step in steps] == [
        {5: 1},
        {5: 1, 20: 5},
        {9: 2},
        {9: 2, 10: 2},
    ]
    failure = -1 / 104
    assert [step[1] for step in steps] == [0, round(2 * failure, 6), 0, round(1 / 26, 6)]


def test_concentration_turns_the_other_card_down_where_one_is_up_already() -> None:
    steps = play(concentration(), [0, 1, 7, 0, 1, 7, 6])
    assert [up(step[0]) for step in steps[3:]] == [
        {0: 0, 1: 0, 7: 1},
        {0: 0, 1: 0},
        {0: 0, 1: 0, 7: 1},
        {0: 0, 1: 0, 6: 1, 7: 1},
    ]
    one = round(-1 / 104, 6)
    assert [step[1] for step in steps[3:]] == [round(-2 / 104, 6), one, 0, round(1 / 26, 6)]


def test_concentration_takes_the_same_card_twice_for_a_failure() -> None:
    steps = play(concentration(), [3, 3, 4])
    assert [step[1] for step in steps] == [0, round(-2 / 104, 6), 0]
    assert up(steps[2][0]) == {4: 1}


def test_concentration_ends_twice_in_the_very_last_step() -> None:
    env = concentration()
    play(env, list(range(51)))
    set_(env, time=103)
    assert play(env, [51])[0][2:] == (True, True)


def test_higher_lower_pays_nothing_for_the_same_rank() -> None:
    env = tensors("HigherLowerEasy", 1)
    env.reset()
    deck = torch.tensor([[5, 5, 6, 2, 9] + [0] * 47], dtype=torch.int16)
    assert isinstance(env.task, HigherLower)
    set_(env, script=env.task.script(deck))
    worth = round(1 / 52, 6)
    assert [step[1] for step in play(env, [0, 0, 0, 1])] == [0, worth, -worth, -worth]


def test_battleship_takes_a_second_hit_for_a_miss_and_says_no_place() -> None:
    env = tensors("BattleshipEasy", 1)
    env.reset()
    cell = int(env.state_dict()["afloat"][0].int().argmax())
    steps = play(env, [(cell // 8, cell % 8)] * 2)
    assert [step[:2] for step in steps] == [(1, round(1 / 12, 6)), (0, round(-1 / 52, 6))]


def test_battleship_terminates_and_is_truncated_in_the_very_last_step() -> None:
    env = tensors("BattleshipEasy", 1)
    env.reset()
    cell = int(env.state_dict()["afloat"][0].int().argmax())
    set_(env, hits=11, time=63)
    assert play(env, [(cell // 8, cell % 8)])[0][2:] == (True, True)


def mine_field() -> TaskTensorEnv:
    """Return 4 x 4 cells with mines in two corners."""
    env = tensors("MineSweeperEasy", 1)
    env.reset()
    mines = torch.zeros(16, dtype=torch.uint8)
    mines[[0, 15]] = 1
    near = torch.zeros(16, dtype=torch.uint8)
    near[[0, 1, 4, 5, 10, 11, 14, 15]] = 1
    set_(env, cells=mines, near=near)
    return env


def test_a_mine_counts_itself() -> None:
    env = mine_field()
    env.keeps_final = True
    assert play(env, [(0, 0)]) == [(1, round(-0.5 - 1 / 14, 6), True, False)]


def test_mine_sweeper_leaves_no_step_to_lose() -> None:
    free = [divmod(cell, 4) for cell in range(1, 15)]
    assert play(mine_field(), free)[-1][2:] == (True, False)
    steps = play(mine_field(), [free[0], *free[:-1]])
    assert steps[1][1] == round(-0.5 / 12, 6)
    assert steps[-1][2:] == (False, True)


def test_a_pole_that_falls_still_pays() -> None:
    env = tensors("PositionOnlyCartPoleEasy", 1)
    env.reset()
    steps = play(env, [1] * 8 + [1] * 8)
    ends = [step[2] for step in steps]
    assert any(ends)
    assert {step[1] for step in steps} == {round(1 / 200, 6)}


def test_velocity_only_shows_positions_first() -> None:
    env = tensors("VelocityOnlyCartpoleEasy", 1)
    first = env.reset()["observation"][0]
    body = env.state_dict()["body"][0].float()
    assert torch.equal(first, body[[0, 2]])
    second = env.step(torch.tensor([1])).observation["observation"][0]
    assert torch.equal(second, env.state_dict()["body"][0, [1, 3]].float())
