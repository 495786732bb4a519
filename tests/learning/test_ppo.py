"""PPO: the loss by hand, the ratio check, schedules, minibatches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from recall_env import RecallEnv
from torch.testing import assert_close

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import CORES, CoreKind, core_config
from agents.encoders.parts import GridEncoder
from agents.learning.ppo import (
    PPO,
    Minibatch,
    PPOConfig,
    RatioError,
    check_minibatches,
    ppo_loss,
    take_envs,
)
from agents.learning.rollout import Rollout, collect, start

NUM_ENVS, NUM_STEPS = 6, 7


def make(kind: CoreKind = "mtxl", **options: Any) -> tuple[PPO, Rollout]:
    torch.manual_seed(0)
    env = RecallEnv(NUM_ENVS, delay=2)
    memory: dict[str, Any] = {"heads": 2, "seq_len": 3, "mem_len": 4}
    core = core_config(kind=kind, dim=8, **(memory if kind in ("mtxl", "gtrxl") else {}))
    agent = ActorCritic(env.observation_space, env.action_space, core)
    defaults: dict[str, Any] = {"rollout_len": NUM_STEPS, "num_minibatches": 2}
    ppo = PPO(agent, PPOConfig(**(defaults | options)))
    rollout, _ = collect(agent, env, start(agent, env), NUM_STEPS)
    return ppo, rollout


def minibatch(rollout: Rollout) -> Minibatch:
    return take_envs(rollout, torch.randn(NUM_STEPS, NUM_ENVS), torch.arange(NUM_ENVS))


@pytest.mark.parametrize("kind", list(CORES))
def test_first_ratio_is_one_to_rounding(kind: CoreKind) -> None:
    ppo, rollout = make(kind)
    assert ppo.update(rollout, progress=0.0)["losses/first_ratio_error"] < 1e-5


def test_observes_after_the_update_and_not_before() -> None:
    """Statistics of observations change between rollouts only: the ratio stays 1."""
    torch.manual_seed(0)
    env = envs.make("MiniGrid-MemoryS7-v0", num_envs=4)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(dim=8, heads=2))
    ppo = PPO(agent, PPOConfig(num_minibatches=2))
    carry = start(agent, env)
    means = []
    for _ in range(3):
        rollout, carry = collect(agent, env, carry, 20)
        assert ppo.update(rollout, progress=0.0)["losses/first_ratio_error"] < 1e-5
        (grid_encoder,) = (m for m in agent.modules() if isinstance(m, GridEncoder))
        means.append(grid_encoder.mean.clone())
    assert not torch.equal(means[0], means[1])
    assert not torch.equal(means[1], means[2])


def test_a_memory_that_differs_in_training_is_an_error() -> None:
    ppo, rollout = make()
    with torch.no_grad():
        for parameter in ppo.agent.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    with pytest.raises(RatioError, match="first minibatch's probability ratio is off by"):
        ppo.update(rollout, progress=0.0)


@pytest.mark.parametrize("deviation", [1.0, 0.37, 0.02])
def test_bfloat16_with_numbers_as_actions_passes_however_sure_the_policy(deviation: float) -> None:
    """What is rounded moves the ratio by 1 / deviation: .3 of it is healthy with .02."""
    torch.manual_seed(0)
    env = envs.make("Pendulum-v1", 8)
    core = core_config(dim=16, heads=2, seq_len=8, mem_len=8)
    agent = ActorCritic(env.observation_space, env.action_space, core)
    agent.precision = torch.bfloat16
    with torch.no_grad():
        agent.actor.policy.weight.mul_(30)
        agent.actor.log_std.fill_(math.log(deviation))
    ppo = PPO(agent, PPOConfig(num_minibatches=2))
    rollout, _ = collect(agent, env, start(agent, env), 24)
    tolerance = float(ppo.ratio_tolerance())
    error = ppo.update(rollout, 0.0)["losses/first_mean_ratio_error"]
    assert 1e-6 < error < tolerance
    assert (error > 0.01) == (deviation == 0.02)  # where the bound for choices would be too low
    # and a memory that differs is found all the same
    rollout, _ = collect(agent, env, start(agent, env), 24)
    with torch.no_grad():
        for parameter in agent.core.parameters():  # type: ignore[attr-defined]
            parameter.add_(0.3 * torch.randn_like(parameter))
    with pytest.raises(RatioError, match="in bfloat16 at most"):
        ppo.update(rollout, 0.0)


def test_loss_of_the_acting_policy_by_hand() -> None:
    """With ratio 1, the policy loss is minus the mean normalised advantage, that is 0."""
    ppo, rollout = make()
    batch = minibatch(rollout)
    loss, statistics = ppo_loss(ppo.agent, batch, ppo.config, ent_coef=0.1)
    assert_close(statistics["policy_loss"], torch.tensor(0.0), atol=1e-6, rtol=0)
    value_loss = 0.5 * (rollout.value.T - batch.return_).square().mean()
    assert_close(statistics["value_loss"], value_loss)
    assert_close(loss.detach(), 0.5 * value_loss - 0.1 * statistics["entropy"])
    assert_close(statistics["approx_kl"], torch.tensor(0.0), atol=1e-6, rtol=0)
    assert statistics["clipfrac"] == 0


def test_ratio_is_clipped_where_it_would_gain() -> None:
    ppo, rollout = make(norm_adv=False)
    batch = minibatch(rollout)
    shifted = replace(batch, log_prob=batch.log_prob - 1.0)  # ratio e everywhere
    _, statistics = ppo_loss(ppo.agent, shifted, ppo.config, ent_coef=0.0)
    e = torch.tensor(1.0).exp()
    expected = -torch.where(batch.advantage > 0, 1.2 * batch.advantage, e * batch.advantage).mean()
    assert_close(statistics["policy_loss"], expected)
    assert statistics["clipfrac"] == 1
    assert_close(statistics["approx_kl"], e - 2)


def test_advantages_of_nothing_do_not_move_the_policy_as_far_as_those_of_rewards() -> None:
    """Before the first reward, and after one: by the gradient of the policy's loss."""

    def push(size: float) -> float:
        """Return how far advantages of this size would move the policy."""
        ppo.optimizer.zero_grad()
        batch = minibatch(rollout)
        ppo_loss(ppo.agent, replace(batch, advantage=size * noise), ppo.config, 0.0)[0].backward()
        gradient = ppo.agent.actor.policy.weight.grad
        assert gradient is not None
        return float(gradient.norm())

    def update(reward: torch.Tensor) -> None:
        env = RecallEnv(NUM_ENVS, delay=2)
        rollout, _ = collect(ppo.agent, env, start(ppo.agent, env), NUM_STEPS)
        ppo.update(rollout._replace(reward=reward), progress=0.0)

    ppo, rollout = make(vf_coef=0.0)
    noise = torch.randn(NUM_ENVS, NUM_STEPS)
    nothing = torch.zeros_like(rollout.reward)
    update(nothing)
    assert ppo.agent.advantages.num == 0
    assert push(1e-3) == pytest.approx(1e-3 * push(1.0), rel=0.01)
    update(torch.randn_like(nothing))
    assert ppo.agent.advantages.num == nothing.numel()
    full = push(10.0)
    assert push(1.0) == pytest.approx(full, rel=0.05)  # as large as they were, or larger: the same
    assert push(1e-3) < 0.02 * full
    for _ in range(3):
        update(nothing)
    assert push(1e-3) < 0.02 * full


def test_schedules_are_linear() -> None:
    ppo, rollout = make(learning_rate=1.0e-3, learning_rate_end=0.0, ent_coef=0.1, ent_coef_end=0.0)
    scalars = ppo.update(rollout, progress=0.25)
    assert scalars["charts/learning_rate"] == pytest.approx(7.5e-4)
    assert scalars["charts/ent_coef"] == pytest.approx(0.075)
    assert ppo.optimizer.param_groups[0]["lr"] == pytest.approx(7.5e-4)


def test_target_kl_ends_the_epochs() -> None:
    def num_steps(target_kl: float | None) -> int:
        ppo, rollout = make(num_epochs=5, learning_rate=1e-2, target_kl=target_kl)
        ppo.update(rollout, progress=0.0)
        return int(ppo.optimizer.state[next(ppo.agent.parameters())]["step"])

    assert num_steps(None) == 10
    assert num_steps(1e-9) == 2


@pytest.mark.parametrize(
    ("error", "share"), [(0.0, 1.0), (0.5, 0.75), (3.0, -8.0), (math.nan, math.nan)]
)
def test_explained_variance_is_what_values_have_of_the_returns(error: float, share: float) -> None:
    ppo, rollout = make()
    returns = torch.randn(NUM_STEPS, NUM_ENVS)
    returns = (returns - returns.mean()) / returns.std(correction=0)
    # episodes of a step each: a return is a reward
    rollout = rollout._replace(
        reward=returns,
        value=(1 - error) * returns,
        terminated=torch.ones_like(rollout.terminated),
    )
    scalars = ppo.update(rollout, progress=0.0)
    assert scalars["losses/explained_variance"] == pytest.approx(share, abs=1e-3, nan_ok=True)


def test_every_env_is_in_one_minibatch_of_an_epoch() -> None:
    ppo, rollout = make()
    marks = torch.arange(NUM_ENVS).float().expand(NUM_STEPS, -1)
    marked = rollout._replace(value=torch.zeros_like(marks))
    batches = [take_envs(marked, marks, envs) for envs in ppo._minibatches(NUM_ENVS)]
    assert [batch.return_.shape for batch in batches] == [(3, NUM_STEPS)] * 2
    assert sorted(torch.cat([b.return_[:, 0] for b in batches]).tolist()) == list(range(NUM_ENVS))


def test_every_parameter_gets_a_gradient() -> None:
    ppo, rollout = make()
    ppo_loss(ppo.agent, minibatch(rollout), ppo.config, 0.01)[0].backward()
    for name, parameter in ppo.agent.named_parameters():
        if not parameter.numel():  # there are no persistent slots here
            continue
        assert parameter.grad is not None, name
        # there is no reward before the last step
        if name != "encoder.reward.weight":
            assert (parameter.grad != 0).any(), name


def test_gradient_reaches_the_cue_through_the_long_memory_alone() -> None:
    """Backpropagation goes through the segments of a rollout."""
    env = RecallEnv(4, delay=2)
    core = core_config(dim=8, heads=2, seq_len=2, mem_len=0)
    agent = ActorCritic(env.observation_space, env.action_space, core)
    rollout, _ = collect(agent, env, start(agent, env), 8)
    batch = take_envs(rollout, rollout.reward, torch.arange(4))
    assert agent.core.transformer.long_memory is not None  # type: ignore[attr-defined]
    _, value, _ = agent(batch.inputs._replace(reset=torch.zeros_like(batch.inputs.reset)),
                        batch.initial_state)  # fmt: skip
    slot = agent.core.transformer.long_memory.initial_slot  # type: ignore[attr-defined]
    (grad,) = torch.autograd.grad(value[:, -1].sum(), slot)
    assert (grad != 0).any()


def test_minibatches_must_divide_envs() -> None:
    with pytest.raises(ValueError, match="num_envs=30 must be divisible by num_minibatches=4"):
        check_minibatches(30, 4)
    check_minibatches(32, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollout_len": 0}, "rollout_len=0 must be 1 or more"),
        ({"gamma": 1.5}, "gamma=1.5 must lie between 0 and 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
    ],
)
def test_rejects_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**options)
