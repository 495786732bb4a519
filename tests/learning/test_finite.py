"""What is not finite is found, not learned from, and forgotten."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recall_env import RecallEnv
from torch.testing import assert_close

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import CORES, CoreKind, core_config
from agents.learning.acceleration import CapturedTrainer, Trainer
from agents.learning.finite import describe, is_finite
from agents.learning.ppo import PPO, SKIPPED_TAG, PPOConfig
from agents.learning.rollout import Rollout, start
from envs import EnvStep

NUM_ENVS, NUM_STEPS = 6, 8


class PoisonedEnv(RecallEnv):
    """Gives a reward that is not finite, at one step of one env."""

    poison = float("nan")
    step_number = -1

    def step(self, actions: torch.Tensor) -> EnvStep:
        step = super().step(actions)
        self.step_number += 1
        if self.step_number == 3:
            step.reward[2] = self.poison
        return step


def make_trainer(env: Any, kind: CoreKind = "mtxl") -> Trainer:
    torch.manual_seed(0)
    memory: dict[str, Any] = {"heads": 2, "seq_len": 4, "mem_len": 5}
    core = core_config(kind=kind, dim=8, **(memory if kind in ("mtxl", "gtrxl") else {}))
    agent = ActorCritic(env.observation_space, env.action_space, core)
    ppo = PPO(agent, PPOConfig(rollout_len=NUM_STEPS, num_minibatches=2, num_epochs=2))
    return Trainer(agent, ppo, env, start(agent, env), NUM_STEPS)


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return copies of weights, buffers and moments."""
    moments = {
        f"{number}.{name}": tensor
        for number, state in trainer.ppo.optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }
    return {k: v.clone() for k, v in (dict(trainer.agent.state_dict()) | moments).items()}


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", list(CORES))
def test_a_reward_that_is_not_finite_changes_nothing_and_is_forgotten(
    kind: CoreKind, poison: float
) -> None:
    """The previous reward is an input: it would stay in the memory."""
    env = PoisonedEnv(NUM_ENVS, delay=2)
    env.poison = poison
    env.step_number = -1 - NUM_STEPS  # in the second rollout
    trainer = make_trainer(env, kind)
    assert trainer.update(trainer.collect(), 0.0)[SKIPPED_TAG] == 0
    before = everything(trainer)
    rollout = trainer.collect()
    assert describe(rollout) == f"reward is {poison} in env 2, from step 3 of the rollout on"
    assert trainer.update(rollout, 0.0)[SKIPPED_TAG] == 1
    assert_close(everything(trainer), before, atol=0, rtol=0)
    rollout = trainer.collect()
    assert is_finite(rollout)
    assert rollout.inputs.reset[0].all()
    assert trainer.update(rollout, 0.0)[SKIPPED_TAG] == 0
    assert not torch.equal(everything(trainer)["critic.weight"], before["critic.weight"])


def test_a_recorded_trainer_forgets_in_its_buffers() -> None:
    trainer = make_trainer(envs.make("MiniGrid-MemoryS7-v0", NUM_ENVS))
    captured = CapturedTrainer.of(trainer)
    captured.update(captured.collect(), 0.0)
    buffer = captured.carry.inputs.prev_reward
    buffer.fill_(torch.nan)
    assert captured.update(captured.collect(), 0.0)[SKIPPED_TAG] == 1
    assert captured.carry.inputs.prev_reward is buffer
    assert captured.update(captured.collect(), 0.0)[SKIPPED_TAG] == 0


def test_a_loss_that_is_not_finite_is_skipped_and_the_other_minibatches_are_not() -> None:
    trainer = make_trainer(RecallEnv(NUM_ENVS, delay=2))
    rollout = trainer.collect()
    rollout.log_prob[4, 1] = -1e4  # a probability ratio beyond float32
    rollout.reward[4, 1] = -1.0
    before = everything(trainer)["critic.weight"]
    scalars = trainer.update(rollout, 0.0)
    assert scalars[SKIPPED_TAG] == 0.5  # of each epoch the minibatch with env 1
    after = everything(trainer)
    assert not torch.equal(after["critic.weight"], before)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert describe(rollout) == ""


def test_statistics_of_observations_do_not_take_it_in() -> None:
    trainer = make_trainer(envs.make("CartPole-v1", NUM_ENVS))
    trainer.update(trainer.collect(), 0.0)
    before = everything(trainer)
    rollout = trainer.collect()
    (field,) = rollout.inputs.observation.values()
    field[1, 5, 2] = torch.inf
    name = next(iter(rollout.inputs.observation))
    assert describe(rollout) == (
        f"observation.{name} is inf in env 5, from step 1 of the rollout on"
    )
    trainer.update(rollout, 0.0)
    assert_close(everything(trainer), before, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["value", "log_prob", "final_value", "next_value"])
def test_each_field_that_an_update_reads_is_looked_at(name: str) -> None:
    trainer = make_trainer(RecallEnv(NUM_ENVS, delay=2))
    rollout: Rollout = trainer.collect()
    assert is_finite(rollout)
    getattr(rollout, name)[..., :] = torch.nan
    assert not is_finite(rollout)
    assert describe(rollout) == (
        f"{name} is nan in env 0, 1, 2, 3, 4 and 1 more, from step 0 of the rollout on"
    )
