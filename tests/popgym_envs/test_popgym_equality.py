"""POPGym's tasks as tensors against the package popgym: pip install -e ".[dev,popgym]".

Every step of episodes that start in POPGym's own environments, with the same actions; and the
distribution of starts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from chi_squared import are_alike
from gymnasium import spaces
from scipy import stats

import envs
from envs.observation_fields import flat_space, make_flattener
from envs.popgym import registrations
from envs.rules.task_tensors import TaskTensorEnv

pytest.importorskip("popgym", reason="POPGym is an extra: pip install -e '.[popgym]'")

IDS = [
    pytest.param(env_id, marks=pytest.mark.slow) if "Hard" in env_id else env_id
    for env_id in registrations()
]
NOISY = ("NoisyPositionOnlyCartPole", "NoisyPositionOnlyPendulum")
UNSEEN = ("MineSweeper", "MultiarmedBandit", "CartPole", "Cartpole", "Pendulum")
"""Tasks of which POPGym does not keep the last observation."""
NUM_ENVS = 6
SKILLS = (0.0, 0.5, 0.9, 0.97, 1.0, 1.0)
"""How often each env's player does what is right."""


def original(env_id: str) -> Any:
    name = env_id.removeprefix("mtxl/")
    return gymnasium.make(name, disable_env_checker=True).unwrapped


def tensors(env_id: str, num_envs: int = NUM_ENVS, **options: Any) -> TaskTensorEnv:
    env = envs.make(env_id, num_envs, **options)
    assert isinstance(env, TaskTensorEnv)
    return env


class Chances:
    """What POPGym draws in a step, given."""

    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers  # whole numbers below 2^31

    def random(self) -> float:
        return float(self.numbers[0]) * 2**-31

    def normal(self, mean: float, sigma: np.ndarray) -> np.ndarray:
        angle = 2 * math.pi * self.numbers[0] * 2**-31
        radius = math.sqrt(-2 * math.log((self.numbers[1] + 1) * 2**-31))
        return mean + sigma * radius * np.array([math.cos(angle), math.sin(angle)])


def right_action(env: Any) -> Any:
    """Return what a player who sees everything does."""
    name = type(env).__mro__[1].__name__
    if name == "RepeatFirst":
        return env.card
    if name == "RepeatPrevious":
        hand = env.deck["player"]
        return env.deck.suits_idx[hand[-env.k]] if len(hand) >= env.k else 0
    if name == "Autoencode":
        return env.deck.suits_idx[env.deck["system"][-1]]
    if name == "CountRecall":
        return env.counts[env.query]
    if name == "HigherLower":
        ranks = env.deck.ranks_idx
        next_card = env.deck.idx[env.deck.deck_len - 1]
        return int(ranks[next_card] <= ranks[env.deck["player"][-1]])
    if name == "Concentration":
        down = [i for i in range(len(env.state)) if i not in env.deck["face_up_idx"]]
        waiting = env.deck["in_play_idx"]
        mates = [i for i in down if waiting and i != waiting[0]]
        return next((i for i in mates if env.state[i] == env.state[waiting[0]]), down[0])
    if name == "Battleship":
        return np.argwhere((env.board == 1) & (env.guesses == 0))[0]
    if name == "MineSweeper":
        return np.argwhere(env.hidden_grid == 0)[0]
    if name == "MultiarmedBandit":
        return env.bandits.argmax()
    if "CartPole" in [base.__name__.removeprefix("PositionOnly") for base in type(env).__mro__]:
        return int(env.state[2] + 0.3 * env.state[3] + 0.1 * env.state[1] > 0)
    if isinstance(env.action_space, spaces.Box):
        return env.action_space.sample()
    return int(env.state[2] + 0.3 * env.state[3] > 0)


def chances(env: TaskTensorEnv, has_two: bool) -> np.ndarray:
    """Return what the next step of each env draws."""
    state = {"stream": env._buffers["stream"], "time": env._buffers["time"] + 1}
    columns = [env.task.draw(state, n, 2) for n in (0, 1)] if has_two else [env.task.draw(state)]
    return torch.stack(columns, dim=1).numpy()


@pytest.mark.parametrize("env_id", IDS)
def test_steps_equal_popgyms(env_id: str) -> None:
    """From whatever step they are loaded at, by players of all skills, to the episodes' end."""
    rng = np.random.default_rng(0)
    singles = [original(env_id) for _ in range(NUM_ENVS)]
    for index, single in enumerate(singles):
        single.action_space.seed(index)
    env = tensors(env_id)
    env.keeps_final = True
    flatten = make_flattener(singles[0].observation_space, env.observation_space)
    assert env.observation_space == flat_space(singles[0].observation_space)
    assert env.action_space == singles[0].action_space
    is_noisy = any(name in env_id for name in NOISY)
    # what moves by floats, where sines differ in their last bits
    has_floats = isinstance(env.observation_space.spaces.get("observation"), spaces.Box)
    limit = 1e-6 if has_floats else 0

    def action_of(single: Any, index: int) -> Any:
        is_right = rng.random() < SKILLS[index]
        return right_action(single) if is_right else single.action_space.sample()

    def fields_of(observation: Any) -> dict[str, np.ndarray]:
        is_tuple = isinstance(observation, tuple)
        parts = [np.array([part]) for part in (observation if is_tuple else [observation])]
        batch = tuple(parts) if is_tuple else parts[0]
        return {name: values[0] for name, values in flatten(batch).items()}

    ends: Counter[tuple[bool, bool]] = Counter()
    for round_ in range(2):
        seen = []
        for index, single in enumerate(singles):
            seen.append(single.reset(seed=100 * round_ + index)[0])
            num_before = int(rng.integers(env.task.num_steps)) if round_ else 0
            for _ in range(num_before):
                step = single.step(action_of(single, index))
                seen[index] = step[0]
                if step[2] or step[3]:  # too far: again from the start
                    seen[index] = single.reset()[0]
                    break
        loaded = env.load(singles)
        if not any(name in env_id for name in UNSEEN):
            for index, observation in enumerate(seen):
                for name, value in fields_of(observation).items():
                    assert (loaded[name][index].numpy() == value).all()
        is_playing = [True] * NUM_ENVS
        num_steps = 0
        while any(is_playing):
            num_steps += 1
            if num_steps % 200 == 0 and "body" in env._buffers:  # what differs grows e-fold in 13
                for index in np.flatnonzero(is_playing):
                    env._buffers["body"][index] = torch.from_numpy(singles[index].state)
            actions = [
                action_of(single, index) if is_playing[index] else single.action_space.sample()
                for index, single in enumerate(singles)
            ]
            numbers = chances(env, is_noisy)
            step = env.step(torch.as_tensor(np.stack([np.asarray(a) for a in actions])))
            for index in np.flatnonzero(is_playing):
                single = singles[index]
                single._np_random = Chances(numbers[index])
                observation, reward, terminated, truncated, _ = single.step(actions[index])
                single._np_random = None
                np.testing.assert_allclose(step.reward[index], np.float32(reward), 0, limit)
                assert bool(step.terminated[index]) == bool(terminated)
                assert bool(step.truncated[index]) == bool(truncated)
                is_over = bool(terminated or truncated)
                ours = step.final_observation if is_over else step.observation
                assert ours is not None
                for name, value in fields_of(observation).items():
                    assert ours[name].numpy().dtype == value.dtype
                    np.testing.assert_allclose(ours[name][index].numpy(), value, 0, limit)
                is_playing[index] = not is_over
                ends[bool(terminated), bool(truncated)] += is_over
    assert ends.total() == 2 * NUM_ENVS
    both_ways = ("Concentration", "Battleship", "CartPole", "Cartpole")
    if any(name in env_id for name in both_ways):
        assert ends[True, False] > 0
        assert ends[False, True] + ends[True, True] > 0


# --- what is drawn

NUM_STARTS = 20_000
Summary = Callable[[np.ndarray], tuple[Any, ...]]


def starts(env_id: str, name: str, num_episodes: int = NUM_STARTS) -> list[np.ndarray]:
    """Return what a buffer holds at the start of many episodes, ours and POPGym's."""
    env = tensors(env_id, num_episodes, seed=1)
    env.reset()
    env.reset()
    single = original(env_id)
    single.reset(seed=0)
    theirs = []
    for _ in range(num_episodes):
        single.reset()
        theirs.append(np.array(env.task.read(single)[name]))
    return [env.state_dict()[name].numpy(), np.stack(theirs)]


def at(*places: int) -> Summary:
    """Return what the script of an episode shows at these times."""
    return lambda script: tuple(script[list(places), :-1].ravel())


DRAWN: dict[str, tuple[str, str, Summary]] = {
    "suits": ("RepeatPreviousEasy", "script", at(0, 1, 51)),
    "suits of two decks": ("AutoencodeMedium", "script", at(0, 50, 103)),
    "ranks": ("HigherLowerEasy", "script", at(0, 1)),
    "two decks of colours": ("CountRecallEasy", "script", at(0, 9, 51)),
    "places of cards": ("ConcentrationHard", "cards", lambda c: (int(c[0]), int(c[-1]))),
    "mines": ("MineSweeperEasy", "cells", lambda c: tuple(np.flatnonzero(c))),
    "arms": ("MultiarmedBanditEasy", "payouts", lambda p: tuple((p[[0, 3, 9]] * 5).astype(int))),
    "carts": (
        "PositionOnlyCartPoleEasy",
        "body",
        lambda body: tuple(((body + 0.05) * 40).astype(int)),
    ),
    "pendulums": (
        "PositionOnlyPendulumEasy",
        "body",
        lambda body: tuple(((body / [math.pi, 1] + 1) * 5).astype(int)),
    ),
}


@pytest.mark.parametrize("what", DRAWN)
def test_starts_are_distributed_as_popgyms(what: str) -> None:
    name, buffer, summary = DRAWN[what]
    ours, theirs = (
        Counter(summary(episode) for episode in episodes)
        for episodes in starts(f"mtxl/popgym-{name}-v0", buffer)
    )
    assert len(ours) > 15
    assert are_alike(ours, theirs)


def test_ships_are_distributed_as_popgyms() -> None:
    """Where the first and the last part of a ship are, and how many lie in the left half."""
    ours, theirs = starts("mtxl/popgym-BattleshipEasy-v0", "afloat", 5_000)
    assert (ours.sum(1) == 2 + 3 + 3 + 4).all()
    summaries: list[Callable[[np.ndarray], Any]] = [
        lambda board: int(board.argmax()),
        lambda board: int(board[::-1].argmax()),
        lambda board: int(board.reshape(8, 8)[:, :4].sum()),
        lambda board: int(board[[0, 7, 56, 63]].sum()),
    ]
    for summary in summaries:
        pair = [Counter(map(summary, boards)) for boards in (ours, theirs)]
        merged = [
            Counter({key: n[key] for key in n if sum(m[key] for m in pair) > 20}) for n in pair
        ]
        assert are_alike(*merged)


def test_noise_is_normal() -> None:
    env = tensors("mtxl/popgym-NoisyPositionOnlyPendulumMedium-v0", 20_000)
    env.reset()
    env.step(torch.zeros(20_000, 1))
    body = env.state_dict()["body"]
    exact = torch.stack((body[:, 0].cos(), body[:, 0].sin()), dim=1)
    noise = env.state_dict()["observation"].double() - exact
    for column, seen in zip(noise.unbind(1), exact.unbind(1), strict=True):
        is_free = seen.abs() < 0.2  # four deviations from the bounds
        assert stats.kstest(column[is_free].numpy() / 0.2, "norm").pvalue > 1e-3


def test_arms_pay_as_often_as_they_should() -> None:
    env = tensors("mtxl/popgym-MultiarmedBanditEasy-v0", 2_000)
    env.reset()
    actions = torch.zeros(2_000, dtype=torch.int64)
    paid = sum(env.step(actions).observation["observation"].double() for _ in range(199)) / 199
    payout = env.state_dict()["payouts"][:, 0].double()
    deviation = (payout * (1 - payout) / 199).sqrt()
    z = ((paid - payout) / deviation.clamp(min=1e-3)).numpy()
    assert abs(z.mean()) < 4 / 2_000**0.5
    assert abs(z.std() - 1) < 0.1


# --- errors


def test_load_names_what_does_not_fit() -> None:
    env = tensors("mtxl/popgym-RepeatPreviousEasy-v0", 1)
    single = original("popgym-RepeatPreviousEasy-v0")
    with pytest.raises(ValueError, match="an environment without an episode; reset"):
        env.load([single])
    single.reset(seed=0)
    with pytest.raises(ValueError, match=r"load was given 2 environments; .*num_envs=1"):
        env.load([single, single])
    other = original("popgym-RepeatPreviousHard-v0")
    other.reset(seed=0)
    with pytest.raises(
        ValueError,
        match=r"given RepeatPrevious\(num_decks=3, k=64\), but .*\(num_decks=1, k=4\); pass",
    ):
        env.load([other])
    for wrong in (original("popgym-RepeatFirstEasy-v0"), env.prototype):
        with pytest.raises(ValueError, match="but this batch is of POPGym's RepeatPrevious; pass"):
            env.load([wrong])
    for _ in range(51):
        single.step(0)
    with pytest.raises(ValueError, match="an environment without an episode; reset"):
        env.load([single])
