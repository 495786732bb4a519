"""Running statistics of returns and inputs: units and offsets of rewards change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recall_env import RecallEnv
from torch.testing import assert_close

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import Rollout, collect, start
from agents.running import (
    HALF_LIFE,
    MIN_ADVANTAGE,
    MIN_SCALE,
    AdvantageScale,
    ReturnScale,
    Standardised,
)
from envs import EnvStep

USABLE = torch.tensor(True)
CORE = core_config(dim=16, depth=1, heads=2, seq_len=5, mem_len=3)


def observed(*rollouts: torch.Tensor) -> ReturnScale:
    returns = ReturnScale()
    for return_ in rollouts:
        returns.observe_(return_, return_, USABLE)
    return returns


@pytest.mark.parametrize("unit", [1e4, 1e-4])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_normal_returns_have_scale_one_and_a_quarter(unit: float, offset: float) -> None:
    """E d^2 / E |d| of a normal distribution is sqrt(pi / 2) deviations."""
    torch.manual_seed(0)
    returns = observed(unit * (offset + torch.randn(64, 512)))
    assert_close(returns.scale, torch.tensor(1.2533 * unit), rtol=0.01, atol=0)
    assert_close(returns.mean, torch.tensor(offset * unit), rtol=0.01, atol=0.02 * unit)
    normalised = torch.linspace(-2, 2, 7)
    assert_close(returns(normalised), returns.mean + returns.scale * normalised)


@pytest.mark.parametrize("share", [0.5, 0.01, 0.001])
def test_rare_returns_have_half_their_size_as_scale(share: float) -> None:
    """However rare: E d^2 / E |d| = p (1 - p) r^2 / (2 p (1 - p) r)."""
    return_ = torch.zeros(100, 1000)
    return_[:, : int(share * 1000)] = 3.0
    assert_close(observed(return_).scale, torch.tensor(1.5), rtol=1e-3, atol=0)


def test_without_rewards_nothing_is_rescaled() -> None:
    returns = ReturnScale()
    returns.observe_(0.01 * torch.randn(8, 8), torch.zeros(8, 8), USABLE)
    assert (returns.mean, returns.scale, returns.num) == (0, 1, 0)


def test_rewards_that_stop_leave_a_least_scale() -> None:
    returns = observed(torch.randn(64, 128))
    for _ in range(200):
        returns.observe_(1e-6 * torch.randn(64, 128), torch.zeros(64, 128), USABLE)
    assert_close(returns.scale, MIN_SCALE * returns.peak)
    assert returns.peak > 3


def test_older_returns_count_half_after_a_half_life() -> None:
    size = (HALF_LIFE // 16, 16)
    returns = observed(torch.full(size, 4.0), torch.full(size, 1.0))
    assert_close(returns.mean, torch.tensor((0.5 * 4 + 1) / 1.5))


def with_advantages(*rollouts: torch.Tensor) -> AdvantageScale:
    advantages = AdvantageScale()
    for advantage in rollouts:
        advantages.observe_(advantage, torch.ones_like(advantage), USABLE)
    return advantages


ONE = torch.tensor(1.0)


def least(advantages: AdvantageScale) -> float:
    return float(advantages(0 * ONE, ONE))


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_the_unit_of_advantages_is_their_deviation_unless_they_were_larger(unit: float) -> None:
    """As a share of what they were, in any unit of the rewards."""
    torch.manual_seed(0)
    scale = torch.tensor(unit)
    advantages = with_advantages(unit * torch.randn(64, 512))
    assert advantages(ONE, scale) == ONE + 1e-8
    assert advantages(10 * ONE, scale) == 10 * ONE + 1e-8
    assert_close(advantages(0.01 * ONE, scale), MIN_ADVANTAGE * ONE, rtol=0.01, atol=0)


def test_advantages_have_no_unit_until_something_is_rewarded() -> None:
    advantages = AdvantageScale()
    advantages.observe_(torch.randn(8, 8), torch.zeros(8, 8), USABLE)
    assert advantages.num == 0
    assert advantages(1e-3 * ONE, ONE) == 1


def test_rollouts_without_a_reward_do_not_change_the_unit_of_advantages() -> None:
    advantages = with_advantages(torch.full((64, 64), 2.0))
    for _ in range(100):
        advantages.observe_(torch.full((64, 64), 1e-3), torch.zeros(64, 64), USABLE)
    assert least(advantages) == pytest.approx(2 * MIN_ADVANTAGE)


def test_older_advantages_count_half_after_a_half_life() -> None:
    """Also those that were a thousand times as large: ten half-lives later they are no more."""
    size = (HALF_LIFE // 16, 16)
    advantages = with_advantages(torch.full(size, 4.0), torch.full(size, -1.0))
    assert least(advantages) == pytest.approx(MIN_ADVANTAGE * (0.5 * 4 + 1) / 1.5)
    advantages = with_advantages(torch.full(size, 1e3), *[torch.full(size, 1.0)] * 12)
    assert least(advantages) == pytest.approx(MIN_ADVANTAGE, rel=0.2)


@pytest.mark.parametrize("is_usable", [True, False])
@pytest.mark.parametrize("observe", [observed, with_advantages])
def test_what_is_not_usable_or_too_large_changes_nothing(observe: Any, is_usable: bool) -> None:
    statistics = observe(torch.randn(4, 4))
    before = {name: buffer.clone() for name, buffer in statistics.named_buffers()}
    wrong = torch.full((4, 4), 1e30 if is_usable else torch.nan)
    statistics.observe_(wrong, wrong, torch.tensor(is_usable))
    assert_close(dict(statistics.named_buffers()), before, rtol=0, atol=0)


def test_parts_observed_one_after_the_other_are_the_whole() -> None:
    torch.manual_seed(0)
    x = 1e3 + torch.randn(40, 5, 3) * torch.tensor([1.0, 10.0, 100.0])
    standardise = Standardised((3,))
    assert_close(standardise(x), x)
    for part in x.split([7, 20, 13]):
        standardise.observe_(part)
    assert_close(standardise.mean, x.mean((0, 1)), rtol=1e-5, atol=0)
    assert_close(standardise.variance, x.var((0, 1), correction=0), rtol=1e-3, atol=0)
    assert_close(standardise(x).var((0, 1), correction=0), torch.ones(3), rtol=1e-3, atol=0)


def test_what_is_always_the_same_is_zero_and_a_change_of_it_finite() -> None:
    standardise = Standardised()
    standardise.observe_(torch.full((4, 4), 0.1))
    assert (standardise(torch.full((3,), 0.1)) == 0).all()
    assert standardise(torch.tensor(1e4)).isfinite()


class OtherUnits(RecallEnv):
    """Recall whose rewards have another unit and offset."""

    unit, offset = 1.0, 0.0

    def step(self, actions: torch.Tensor) -> EnvStep:
        step = super().step(actions)
        return step._replace(reward=self.offset + self.unit * step.reward)


def updated(unit: float) -> tuple[ActorCritic, Rollout]:
    """Return an agent after four updates, and a rollout of it."""
    torch.manual_seed(0)
    env = OtherUnits(8, delay=2)
    env.unit = unit
    agent = ActorCritic(env.observation_space, env.action_space, CORE)
    torch.nn.init.zeros_(agent.critic.weight)  # the first values are in no unit
    ppo = PPO(agent, PPOConfig(num_minibatches=2, learning_rate=3e-3))
    rollout, carry = collect(agent, env, start(agent, env), 20)
    for _ in range(4):
        assert ppo.update(rollout, 0.0)["losses/first_ratio_error"] < 1e-4
        rollout, carry = collect(agent, env, carry, 20)
    return agent, rollout


@pytest.mark.parametrize("unit", [2.0**13, 2.0**-13])
def test_training_is_the_same_in_any_unit_of_rewards(unit: float) -> None:
    """With a power of two it is so to rounding: the same actions, and values in their unit."""
    agent, rollout = updated(1.0)
    other, other_rollout = updated(unit)
    assert torch.equal(rollout.action, other_rollout.action)
    assert_close(other_rollout.value, unit * rollout.value, rtol=1e-2, atol=1e-3 * unit)
    assert_close(other_rollout.reward, unit * rollout.reward)
    assert_close(other_rollout.episode_return, unit * rollout.episode_return)
    assert_close(other.actor.policy.weight, agent.actor.policy.weight, rtol=1e-2, atol=1e-3)


def test_the_previous_reward_is_hidden_at_a_start_and_seen_in_its_own_unit() -> None:
    env = RecallEnv(3, delay=2)
    agent = ActorCritic(env.observation_space, env.action_space, CORE)
    agent.observe_({}, torch.tensor([[1000.0, 1010.0]]))
    inputs = agent.first_inputs({"symbol": torch.ones(3, dtype=torch.int64)}, 3)
    same = inputs._replace(prev_reward=torch.tensor([1000.0, 1010.0, 0.0]))
    assert_close(agent.encode(same), agent.encode(inputs))
    seen = agent.encode(same._replace(reset=torch.zeros(3, dtype=torch.bool)))
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)


def test_observations_are_standardised_after_an_update_and_not_in_it() -> None:
    torch.manual_seed(0)
    env = envs.make("CartPole-v1", 4)
    agent = ActorCritic(
        env.observation_space, env.action_space, core_config(dim=8, heads=2, norm_observations=True)
    )
    ppo, carry = PPO(agent, PPOConfig(num_minibatches=2)), start(agent, env)
    for _ in range(3):
        rollout, carry = collect(agent, env, carry, 20)
        assert ppo.update(rollout, 0.0)["losses/first_ratio_error"] < 1e-5
    (standardise,) = agent.observations
    assert standardise.num == 3 * 20 * 4
    assert "observations.0.variance" in agent.state_dict()


def test_to_standardise_nothing_is_an_error() -> None:
    env = RecallEnv(1, delay=2)
    with pytest.raises(ValueError, match=r"no effect on \['symbol'\], none of which is a vector"):
        ActorCritic(env.observation_space, env.action_space, core_config(norm_observations=True))
