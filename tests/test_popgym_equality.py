"""POPGym's tasks as tensors against the package popgym: pip install -e ".[dev,popgym]".

Every step of episodes that start in POPGym's own environments, with the same actions; and the
distribution of starts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
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
from envs.popgym.tensors import PopgymTensorEnv
from envs.popgym.task import PopgymTask

pytest.importorskip("popgym", reason="POPGym is an extra: pip install -e '.[popgym]'")

IDS = list(registrations())
NOISY = ("NoisyPositionOnlyCartPole", "NoisyPositionOnlyPendulum")
UNSEEN = ("MineSweeper", "MultiarmedBandit", "CartPole", "Cartpole", "Pendulum")
"""Tasks of which POPGym does not keep the last observation."""
NUM_ENVS = 6
SKILLS = (0.0, 0.5, 0.9, 0.97, 1.0, 1.0)
"""How often each env's player does what is right."""


def original(env_id: str) -> Any:
    name = env_id.removeprefix("mtxl/")
    return gymnasium.make(name, disable_env_checker=True).unwrapped


def tensors(env_id: str, num_envs: int = NUM_ENVS, **options: Any) -> PopgymTensorEnv:
    env = envs.make(env_id, num_envs, **options)
    assert isinstance(env, PopgymTensorEnv)
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


def chances(env: PopgymTensorEnv, has_two: bool) -> np.ndarray:
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
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if isinstance(
        env.observation_space.spaces.get("observation"), spaces.Box
    ) else {"rtol": 0, "atol": 0}

    def action_of(single: Any, index: int) -> Any:
        is_right = rng.random() < SKILLS[index]
        return right_action(single) if is_right else single.action_space.sample()

    def fields_of(observation: Any) -> dict[str, np.ndarray]:
        batch = tuple(np.array([part]) for part in observation) if isinstance(
            observation, tuple
        ) else np.array([observation])
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
        while any(is_playing):
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
                np.testing.assert_allclose(step.reward[index], np.float32(reward), **tolerance)
                assert bool(step.terminated[index]) == bool(terminated)
                assert bool(step.truncated[index]) == bool(truncated)
                is_over = bool(terminated or truncated)
                ours = step.final_observation if is_over else step.observation
                assert ours is not None
                for name, value in fields_of(observation).items():
                    assert ours[name].numpy().dtype == value.dtype
                    np.testing.assert_allclose(ours[name][index].numpy(), value, **tolerance)
                is_playing[index] = not is_over
                ends[bool(terminated), bool(truncated)] += is_over
    assert ends.total() == 2 * NUM_ENVS
    both_ways = ("Concentration", "Battleship", "CartPole", "Cartpole")
    if any(name in env_id for name in both_ways):
        assert ends[True, False] > 0
        assert ends[False, True] + ends[True, True] > 0
