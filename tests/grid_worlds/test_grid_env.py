"""The tensor engine against Minigrid itself: same state, same actions, equal step by step."""

from __future__ import annotations

from itertools import groupby

import gymnasium
import numpy as np
import pytest
from minigrid.minigrid_env import MiniGridEnv
from minigrid_solver import next_action
from stock_pair import Pair, Policy, play, stock

from envs.selection import has_tensor_env

pytestmark = pytest.mark.unchecked

FAMILIES = {
    name: list(specs)
    for name, specs in groupby(
        sorted(
            (str(spec.entry_point).split(":")[-1], spec.id)
            for spec in gymnasium.registry.values()
            if spec.id.startswith("MiniGrid-") and has_tensor_env(spec)
        ),
        key=lambda pair: pair[0],
    )
}
NUM_ENVS = 8


def mixed_policy(rng: np.random.Generator, share_random: float) -> Policy:
    """Return a policy that solves the task, but for some random actions."""

    def act(env: MiniGridEnv) -> int:
        return int(rng.integers(7)) if rng.random() < share_random else next_action(env)

    return act


def test_the_families_are_those_of_minigrid() -> None:
    """All but WFC, whose patterns are missing in Minigrid's wheel, and Playground."""
    known = {env_id for ids in FAMILIES.values() for _, env_id in ids}
    others = {i for i in gymnasium.registry if i.startswith("MiniGrid-")} - known
    assert len(known) == 75
    assert all("WFC" in env_id or "Playground" in env_id for env_id in others)


@pytest.mark.parametrize("num_rounds", [1, pytest.param(4, marks=pytest.mark.proof)])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_step_equals_minigrid(family: str, num_rounds: int) -> None:
    """In as many rounds as asked for, and more where a success or a truncation is still missing."""
    rng = np.random.default_rng(0)
    num_episodes = 0
    for _, env_id in FAMILIES[family]:
        pair = Pair(env_id, NUM_ENVS)
        for number in range(num_rounds + 3):
            is_seen = pair.counts["successes"] and pair.counts["truncations"]
            if number >= num_rounds and is_seen:
                break
            for share_random in (0.1, 1.0):
                num_steps = 80 // len(FAMILIES[family]) + 30
                play(pair, mixed_policy(rng, share_random), num_steps, rng)
        assert pair.counts["successes"], env_id
        assert pair.counts["truncations"], env_id
        num_episodes += pair.counts["episodes"]
        pair.env.close()
    assert num_episodes >= 50 * num_rounds


@pytest.mark.parametrize("family", FAMILIES)
def test_success_on_the_last_step_sets_both_flags(family: str) -> None:
    """Minigrid's time limit does not ask whether the episode has just ended."""
    _, env_id = FAMILIES[family][0]
    seeds = [seed for seed in range(20) if solution(env_id, seed)][:NUM_ENVS]
    assert seeds
    pair = Pair(env_id, len(seeds))
    solutions = [solution(env_id, seed) for seed in seeds]
    for index, (seed, actions) in enumerate(zip(seeds, solutions, strict=True)):
        pair.reset(index, seed, max_steps=len(actions))
    pair.load()
    for time in range(max(map(len, solutions))):
        pair.step([actions[time] if time < len(actions) else 6 for actions in solutions])
        for index, actions in enumerate(solutions):
            if len(actions) == time + 1:
                assert pair.counts["both"]
                pair.reset(index, seed=0)
        pair.load()
    assert pair.counts["both"] == len(seeds)


def solution(env_id: str, seed: int) -> list[int]:
    """Return actions that end an episode in success, or none."""
    env = stock(env_id)
    env.reset(seed=seed)
    actions = []
    for _ in range(env.max_steps):
        actions.append(next_action(env))
        _, reward, terminated, _, _ = env.step(actions[-1])
        if terminated:
            return actions if float(reward) > 0 else []
    return []
