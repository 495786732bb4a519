"""Masks of actions, from the info or the observation, in acting, training and evaluation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import start
from envs.wrapped.guarded_env import EnvError
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.evaluations.evaluation import evaluate_agent

NUM_ENVS = 5


class MaskedEnv(gymnasium.Env):
    """Raises at an action that its mask forbids. Episodes of four steps; any other is cut off.

    Args:
        is_multi: whether an action has two parts.
        where: "info", "tuple" (of the info), "observation", or "late": no mask after two steps.
        nothing: the step from which on nothing is allowed.
    """

    def __init__(self, is_multi: bool, where: str, nothing: int = 9, **_: Any):
        self.action_space = (
            spaces.MultiDiscrete([3, 2]) if is_multi else spaces.Discrete(5, start=2)
        )
        self._is_multi, self._where, self._nothing = is_multi, where, nothing
        number = spaces.Box(-1, 1, (2,))
        if where == "observation":
            mask = spaces.Box(0, 1, (5,), np.int8)
            self.observation_space = spaces.Dict({"number": number, "action_mask": mask})
        else:
            self.observation_space = number
        self._episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._time = 0
        self._episode += 1
        return self._look()

    def step(self, action: Any) -> Any:
        chosen = np.array([action[0], action[1] + 3]) if self._is_multi else action - 2
        if not self._mask[chosen].all():
            raise RuntimeError(f"{action} is forbidden")
        self._time += 1
        ends = self._time == 4
        is_cut = ends and self._episode % 2 == 0
        observation, info = self._look()
        return observation, 1.0, ends and not is_cut, is_cut, info

    def _look(self) -> tuple[Any, dict[str, Any]]:
        self._mask = np.zeros(5, bool)
        if self._time < min(self._nothing, 4):  # nothing is left to do at the end
            self._mask[self.np_random.integers(3)] = True
            self._mask[3 + self.np_random.integers(2)] = True
        number = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if self._where == "observation":
            return {"number": number, "action_mask": self._mask.astype(np.int8)}, {}
        mask: Any = (self._mask[:3], self._mask[3:]) if self._where == "tuple" else self._mask
        has_mask = self._where != "late" or self._time < 2
        return number, {"action_mask": mask} if has_mask else {}


KINDS = {
    "Masked-v0": {"is_multi": False, "where": "info"},
    "MaskedObserved-v0": {"is_multi": False, "where": "observation"},
    "MaskedMulti-v0": {"is_multi": True, "where": "tuple"},
    "MaskedMultiObserved-v0": {"is_multi": True, "where": "observation"},
}
BROKEN = {
    "MaskedLate-v0": (
        {"is_multi": False, "where": "late"},
        r"env 0 of 2: step 2 failed: ValueError: info\['action_mask'\] holds 0 numbers, but every",
    ),
    "MaskedNone-v0": (
        {"is_multi": False, "where": "info", "nothing": 3},
        "MaskedNone-v0, env 0: action_mask allows no action; allow one",
    ),
    "MaskedNoPart-v0": (
        {"is_multi": True, "where": "observation", "nothing": 1},
        "env 0: action_mask allows no action for part 0; allow one",
    ),
}
for name, options in (KINDS | {name: options for name, (options, _) in BROKEN.items()}).items():
    gymnasium.register(name, MaskedEnv, kwargs=options)


@pytest.mark.parametrize("env_id", KINDS)
def test_no_masked_action_is_taken_in_training_or_evaluation(env_id: str) -> None:
    """The environment raises at one; training's ratio is 1, so it has the same mask."""
    torch.manual_seed(0)
    env = envs.make(env_id, NUM_ENVS, seed=3)
    core = core_config(dim=16, depth=1, heads=2, seq_len=4, mem_len=3)
    agent = ActorCritic(env.observation_space, env.action_space, core)
    assert agent.has_mask
    with torch.no_grad():
        agent.actor.policy.weight.normal_()  # would choose wrongly
    config = PPOConfig(rollout_len=12, num_minibatches=1, learning_rate=1e-2)
    trainer = Trainer(agent, PPO(agent, config), env, start(agent, env), config.rollout_len)
    for _ in range(3):
        scalars = trainer.update(trainer.collect(), 0.0)
        assert scalars["losses/first_ratio_error"] < 1e-4
        assert scalars["losses/skipped"] == 0
    env.close()
    for greedy in (False, True):
        options = EvaluateConfig(episodes=8, num_envs=4, greedy=greedy, device="cpu")
        evaluation = evaluate_agent(agent, env_id, options)
        assert evaluation.mean_length == 4


def test_a_mask_of_the_info_is_observed_as_that_of_the_observation() -> None:
    of_info, observed = (envs.make(env_id, 3, seed=1) for env_id in list(KINDS)[:2])
    first, second = of_info.reset(), observed.reset()
    for _ in range(9):
        assert_close(first["action_mask"].float(), second["action_mask"].float())
        assert_close(first["observation"], second["number"])
        actions = first["action_mask"].float().argmax(dim=-1)
        first, second = of_info.step(actions).observation, observed.step(actions).observation


@pytest.mark.parametrize("env_id", BROKEN)
def test_a_mask_that_cannot_be_is_named(env_id: str) -> None:
    with pytest.raises(EnvError, match=BROKEN[env_id][1]):
        play_allowed(env_id)


def play_allowed(env_id: str) -> None:
    env = envs.make(env_id, 2)
    mask = env.reset()["action_mask"]
    for _ in range(4):
        first = mask[:, :3].argmax(dim=-1)
        is_multi = isinstance(env.action_space, spaces.MultiDiscrete)
        actions = torch.stack((first, mask[:, 3:].argmax(dim=-1)), dim=-1) if is_multi else first
        mask = env.step(actions).observation["action_mask"]
