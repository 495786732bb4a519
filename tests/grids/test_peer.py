"""What sb3-contrib's RecurrentPPO is given to read, where it is not installed."""

from __future__ import annotations

import gymnasium
import minigrid  # noqa: F401
import numpy as np
import pytest
from gymnasium import spaces

import envs
from experiments.benchmarks.recurrent_ppo import PeerConfig, readable


@pytest.mark.parametrize("task", ["CountRecall", "Autoencode", "RepeatFirst"])
def test_symbols_are_one_hot_vectors_of_their_space(task: str) -> None:
    env_id = f"mtxl/popgym-{task}Easy-v0"
    envs.make(env_id, 1)  # registers it
    env = readable(gymnasium.make(env_id))
    inner = env.unwrapped.observation_space
    assert isinstance(env.observation_space, spaces.Box)
    assert all(type(size) is int for size in env.observation_space.shape)
    assert env.observation_space.shape == (spaces.flatdim(inner),)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float32
    assert env.observation_space.contains(observation)
    parts = 1 if isinstance(inner, spaces.Discrete) else len(inner)  # type: ignore[arg-type]
    assert observation.sum() == parts


def test_what_it_does_not_read_is_named() -> None:
    with pytest.raises(ValueError, match="reads no BabyAIMissionSpace, which observation 'missi"):
        readable(gymnasium.make("BabyAI-GoToRedBall-v0"))
    box = gymnasium.make("CartPole-v1")
    assert readable(box) is box
    with pytest.raises(ValueError, match="episodes=1 must be 2 or more"):
        PeerConfig(env="CartPole-v1", episodes=1)
