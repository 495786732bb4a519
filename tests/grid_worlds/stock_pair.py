"""Minigrid itself beside the tensors: the same states and actions, compared step by step."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from minigrid.core.world_object import Ball
from minigrid.envs.dynamicobstacles import DynamicObstaclesEnv
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv
from envs.minigrid.cells import EMPTY, pack
from envs.minigrid.tasks.dynamic_obstacles import DynamicObstacles

Policy = Callable[[MiniGridEnv], int]


def stock(env_id: str, **options: Any) -> MiniGridEnv:
    """Return a Minigrid environment; deprecated versions are made without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gymnasium.make(env_id, disable_env_checker=True, **options).unwrapped
    assert isinstance(env, MiniGridEnv)
    return env


def every_state(env_id: str) -> list[MiniGridEnv]:
    """Return Minigrid environments in every state: each level, reachable cell and direction."""
    env = stock(env_id)
    levels: dict[bytes, MiniGridEnv] = {}
    for seed in range(1500):
        env.reset(seed=seed)
        key = env.grid.encode().tobytes()
        if key not in levels:
            levels[key] = copy.copy(env)
    states = []
    for level in levels.values():
        cells = {tuple(map(int, level.agent_pos))}
        frontier = list(cells)
        for x, y in frontier:
            near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)}
            new = {cell for cell in near - cells if level.grid.get(*cell) is None}
            cells |= new
            frontier += new
        for cell in cells:
            for direction in range(4):
                state = copy.copy(level)
                state.agent_pos, state.agent_dir = (cell[0], cell[1]), direction
                states.append(state)
    return states


class Pair:
    """Minigrid environments and a batch that is loaded from them.

    Counts what was compared: "episodes", "successes", "truncations", "both" flags at once.
    """

    def __init__(self, env_id: str, num_envs: int, backend: type = GridEnv):
        self.stocks = [stock(env_id) for _ in range(num_envs)]
        self.env: GridEnv | TableEnv = backend(env_id, num_envs, level_seeds=[0])
        self.env.keeps_final = True
        self.counts: Counter[str] = Counter()
        if isinstance(self.stocks[0], DynamicObstaclesEnv):
            self.env._task = FollowedObstacles(self)  # type: ignore[union-attr]

    def reset(self, index: int, seed: int, max_steps: int | None = None) -> None:
        """Start an episode of one Minigrid environment; `load` brings it into the batch."""
        self.stocks[index].reset(seed=seed)
        if max_steps is not None:
            self.stocks[index].max_steps = max_steps

    def load(self) -> None:
        expected = [env.gen_obs() for env in self.stocks]
        self._compare(self.env.load(self.stocks), expected, range(len(self.stocks)))

    def step(self, actions: list[int]) -> np.ndarray:
        """Step both, compare everything, and return which episodes ended."""
        expected = [env.step(action) for env, action in zip(self.stocks, actions, strict=True)]
        step = self.env.step(torch.tensor(actions))
        seen, reward, terminated, truncated, _ = (
            np.array(c, object) for c in zip(*expected, strict=True)
        )
        np.testing.assert_array_equal(step.reward.numpy(), reward.astype(np.float32))
        np.testing.assert_array_equal(step.terminated.numpy(), terminated.astype(bool))
        np.testing.assert_array_equal(step.truncated.numpy(), truncated.astype(bool))
        done = (step.terminated | step.truncated).numpy()
        success = done & (reward.astype(float) > 0)
        np.testing.assert_array_equal(step.success.numpy(), success)
        self._compare(step.observation, seen, np.flatnonzero(~done))
        if done.any():
            assert step.final_observation is not None
            self._compare(step.final_observation, seen, np.flatnonzero(done))
        self.counts["episodes"] += int(done.sum())
        self.counts["successes"] += int(success.sum())
        self.counts["truncations"] += int(step.truncated.sum())
        self.counts["both"] += int((success & step.truncated.numpy()).sum())
        return done

    def _compare(self, observation: dict[str, Tensor], expected: Any, rows: Any) -> None:
        image, direction = observation["image"].numpy(), observation["direction"].numpy()
        for row in rows:
            np.testing.assert_array_equal(image[row], expected[row]["image"])
            assert direction[row] == expected[row]["direction"]


class FollowedObstacles(DynamicObstacles):
    """Moves the obstacles where Minigrid, which is stepped first, has moved its own."""

    def __init__(self, pair: Pair):
        super().__init__()
        self.pair = pair

    def move_obstacles_(self, mechanics: Any, state: Any, random: Any) -> Tensor:
        assert isinstance(self.pair.env, GridEnv)
        geometry = self.pair.env._geometry
        after = torch.tensor([self.registers(env, geometry) for env in self.pair.stocks])
        state.cells.scatter_(1, state.registers, EMPTY)
        state.cells.scatter_(1, after, pack(Ball()))
        return after


def compare_every_action(env_id: str) -> tuple[int, int]:
    """Compare a table with Minigrid by every action in every state; count how both end."""
    states = every_state(env_id)
    env = TableEnv(env_id, len(states))
    env.keeps_final = True
    assert len(states) == len(env._table.observation)
    first = env.load(states)
    for index, state in enumerate(states):
        assert (first["image"][index].numpy() == state.gen_obs()["image"]).all()
    loaded = env.state_dict()
    assert len(loaded["state"].unique()) == len(states)
    num_successes = num_failures = 0
    for action in range(7):
        env.load_state_dict(loaded)
        step = env.step(torch.full((len(states),), action))
        done = (step.terminated | step.truncated).tolist()
        for index, state in enumerate(states):
            after = copy.copy(state)
            seen, reward, terminated, truncated, _ = after.step(action)
            assert step.reward[index] == np.float32(reward)
            assert bool(step.terminated[index]) == terminated
            assert bool(step.truncated[index]) == truncated
            assert bool(step.success[index]) == (float(reward) > 0)
            observation = step.final_observation if done[index] else step.observation
            assert observation is not None
            assert (observation["image"][index].numpy() == seen["image"]).all()
            assert observation["direction"][index] == seen["direction"]
            num_successes += float(reward) > 0
            num_failures += terminated and reward == 0
    return num_successes, num_failures


def play(pair: Pair, policy: Policy, num_steps: int, rng: np.random.Generator) -> None:
    """Play with random time limits, resetting where an episode ends."""

    def reset(index: int) -> None:
        seed = int(rng.integers(2**31))
        limit = int(rng.integers(1, 40)) if rng.random() < 0.5 else None
        pair.reset(index, seed, limit)

    for index in range(len(pair.stocks)):
        reset(index)
    pair.load()
    for _ in range(num_steps):
        done = pair.step([policy(env) for env in pair.stocks])
        if done.any():
            for index in np.flatnonzero(done).tolist():
                reset(index)
            pair.load()
