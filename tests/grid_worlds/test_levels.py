"""Levels of tensor environments: Minigrid's, drawn alike, and the same whoever plays them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from chi_squared import are_alike
from stock_pair import stock
from tensor_grids import DOOR_KEY, FETCH, MEMORY, NUM_ENVS, random_actions, record

import envs
from envs.grids.grid_env import GridEnv
from envs.levels.level_pool import POOL_LEN, RENEW_EVERY, RENEWED_LEN
from envs.tensor_env import TensorEnv
from envs.wrapped.gymnasium_adapter import GymnasiumEnv


@pytest.mark.parametrize("env_id", [MEMORY, FETCH, "MiniGrid-MultiRoom-N2-S4-v0"])
def test_the_same_levels_on_both_backends(env_id: str) -> None:
    """What evaluation plays: the levels of given seeds, in their order, round and round."""
    seeds = [3, 1, 4, 1, 5]
    tensors = envs.make(env_id, 2, backend="tensor", level_seeds=seeds)
    gym = envs.make(env_id, 2, backend="gymnasium", level_seeds=seeds)
    assert isinstance(tensors, TensorEnv)
    assert isinstance(gym, GymnasiumEnv)
    assert tensors.observation_space == gym.observation_space
    assert tensors.action_space == gym.action_space
    observations = [tensors.reset(), gym.reset()]
    for actions in random_actions(250, num_envs=2):
        for name in observations[0]:
            assert torch.equal(observations[0][name], observations[1][name])
            assert observations[0][name].dtype == observations[1][name].dtype
        observations = [env.step(actions).observation for env in (tensors, gym)]


def test_the_pool_holds_minigrids_levels_and_renews_them() -> None:
    env = GridEnv(DOOR_KEY, 2, seed=1)
    env.reset()
    pool = env._pool
    original = stock(DOOR_KEY)
    played = GridEnv(DOOR_KEY, 1)

    def assert_holds(place: int, seed: int) -> None:
        original.reset(seed=seed)
        played.load([original])
        assert torch.equal(pool.levels.cells[place], played._buffers["cells"][0])
        assert pool.levels.position[place] == played._buffers["position"][0]

    first = pool._seeds_held()
    assert len(set(first)) == POOL_LEN
    record(env, random_actions(2 * RENEW_EVERY, num_envs=2))
    seeds = pool._seeds_held()
    assert seeds[2 * RENEWED_LEN :] == first[2 * RENEWED_LEN :]
    assert not set(seeds[: 2 * RENEWED_LEN]) & set(first)
    for place in (0, 5, RENEWED_LEN + 3, 2 * RENEWED_LEN, POOL_LEN - 1):
        assert_holds(place, seeds[place])
    env.close()


def test_levels_are_the_same_when_their_process_dies() -> None:
    env, other = (GridEnv(DOOR_KEY, NUM_ENVS, seed=1) for _ in range(2))
    for each in (env, other):
        each.reset()
    actions = random_actions(2 * RENEW_EVERY)
    expected = record(other, actions)
    half = RENEW_EVERY // 2
    first = record(env, actions[:half])
    process = env._pool._process
    assert process is not None
    process._process.kill()
    with pytest.warns(UserWarning, match="has ended; from now on levels are made in this process"):
        rest = record(env, actions[half:])
    assert torch.equal(torch.cat([first, rest]), expected)
    env.close()
    other.close()


def test_levels_are_drawn_alike() -> None:
    env = GridEnv("MiniGrid-Empty-Random-5x5-v0", 50_000, seed=3)
    env.reset()
    env._pool.levels.step_count.copy_(torch.arange(POOL_LEN))  # marks the levels
    env.reset()
    drawn = Counter(env._buffers["step_count"].tolist())
    assert are_alike(drawn, Counter(dict.fromkeys(range(POOL_LEN), 50_000 // POOL_LEN)))


@pytest.mark.parametrize("env_id", ["MiniGrid-Empty-Random-5x5-v0", "MiniGrid-DoorKey-5x5-v0"])
def test_first_observations_are_distributed_as_minigrids(env_id: str) -> None:
    env = GridEnv(env_id, POOL_LEN, seed=3)
    env.reset()
    levels = env._pool.levels
    drawn = Counter(zip(levels.position.tolist(), levels.direction.tolist(), strict=True))
    original = stock(env_id)
    expected: Counter[tuple[int, int]] = Counter()
    for seed in range(2000):
        original.reset(seed=seed)
        x, y = map(int, original.agent_pos)
        expected[env._geometry.flat(x, y), original.agent_dir] += 1
    assert are_alike(drawn, expected)
