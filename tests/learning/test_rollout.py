"""Rollouts record what happened, with the memory of the right episode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from recall_env import RecallEnv
from torch import Tensor
from torch.testing import assert_close

from agents.actor_critic import ActorCritic
from agents.cores.core import CORES, CoreKind, core_config
from agents.learning.ppo import take_envs
from agents.learning.rollout import Rollout, collect, start
from envs import BatchedEnv, EnvStep
from envs.batched_env import Observation

KINDS = list(CORES)


class CountingEnv(BatchedEnv):
    """Observes the time since its episode began; ends episodes by a script.

    Args:
        ends: {(env, step): "terminated" | "truncated" | "both"}, steps counted from the reset.
    """

    def __init__(self, num_envs: int, ends: dict[tuple[int, int], str]):
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self.observation_space = spaces.Dict({"time": spaces.Box(0, np.inf, (1,))})
        self.action_space = spaces.Discrete(3)
        self.has_success = True
        self.ends = ends

    def reset(self) -> Observation:
        self.step_count = 0
        self.time = torch.zeros(self.num_envs, 1)
        return {"time": self.time.clone()}

    def step(self, actions: Tensor) -> EnvStep:
        kinds = [self.ends.get((env, self.step_count), "") for env in range(self.num_envs)]
        terminated = torch.tensor([kind in ("terminated", "both") for kind in kinds])
        truncated = torch.tensor([kind in ("truncated", "both") for kind in kinds])
        self.step_count += 1
        final = self.time + 1
        self.time = torch.where((terminated | truncated)[:, None], 0.0, final)
        reward = 1.0 + torch.arange(self.num_envs)
        observation = {"time": self.time.clone()}
        final_observation = {"time": final} if truncated.any() else None
        return EnvStep(observation, reward, terminated, truncated, terminated, final_observation)

    def render(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_the_age_of_the_cue_counts_from_its_last_sight() -> None:
    env = RecallEnv(num_envs=2, delay=2)  # the second env waits a step before its first cue
    agent = make_agent(env)
    rollout, carry = collect(agent, env, start(agent, env), 6)
    assert rollout.cue_age.T.tolist() == [[0, 1, 2, 3, 0, 1], [-1, 0, 1, 2, 3, 0]]
    assert carry.cue_age.tolist() == [1, 0]
    assert carry.cue.tolist() == env._cue.tolist()


def test_past_actions_can_be_hidden() -> None:
    env = RecallEnv(num_envs=3, delay=2)
    for is_seen in (True, False):
        config = core_config(kind="gru", dim=8, past_action=is_seen)
        agent = ActorCritic(env.observation_space, env.action_space, config)
        inputs = agent.first_inputs(env.reset(), 3)
        acted = inputs._replace(prev_action=torch.tensor([0, 1, 0]), prev_reward=torch.ones(3))
        assert torch.equal(agent.encode(acted), agent.encode(inputs)) != is_seen


def test_without_a_cue_it_has_no_age() -> None:
    env = CountingEnv(2, {})
    agent = make_agent(env)
    rollout, _ = collect(agent, env, start(agent, env), 3)
    assert (rollout.cue_age == -1).all()


def make_agent(env: BatchedEnv, kind: CoreKind = "mtxl") -> ActorCritic:
    torch.manual_seed(0)
    memory: dict[str, Any] = {"heads": 2, "seq_len": 3, "mem_len": 4}
    options = memory if kind in ("mtxl", "gtrxl") else {}
    agent = ActorCritic(
        env.observation_space, env.action_space, core_config(kind=kind, dim=8, **options)
    )
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return agent


def recompute(agent: ActorCritic, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Return log-probs and values (T, B) as training computes them."""
    num_envs = rollout.reward.shape[1]
    batch = take_envs(rollout, rollout.reward, torch.arange(num_envs))
    policy, value, _ = agent(batch.inputs, batch.initial_state)
    return policy.log_prob(batch.action).T, value.T


@pytest.mark.parametrize("kind", KINDS)
def test_acting_and_training_are_one_function_across_rollouts(kind: CoreKind) -> None:
    env = RecallEnv(5, delay=4)
    agent = make_agent(env, kind)
    carry = start(agent, env)
    for num_steps in (7, 5, 8):
        rollout, carry = collect(agent, env, carry, num_steps)
        log_prob, value = recompute(agent, rollout)
        assert_close(log_prob, rollout.log_prob, atol=1e-5, rtol=1e-5)
        assert_close(value, rollout.value, atol=1e-5, rtol=1e-5)
        with torch.no_grad():  # an update between rollouts must not leave anything stale
            for parameter in agent.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))


@pytest.mark.parametrize("kind", KINDS)
def test_next_value_is_the_first_value_of_the_next_rollout(kind: CoreKind) -> None:
    env = CountingEnv(3, {(1, 2): "terminated", (2, 3): "truncated"})
    agent = make_agent(env, kind)
    first, carry = collect(agent, env, start(agent, env), 4)
    second, _ = collect(agent, env, carry, 2)
    assert_close(first.next_value, second.value[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("step", range(1, 8))
def test_final_value_sees_the_memory_of_the_episode_that_ends(step: int) -> None:
    """At any place in a segment, V of the final observation is what going on would have shown."""
    going_on = CountingEnv(2, {})
    agent = make_agent(going_on)
    torch.manual_seed(1)
    expected, _ = collect(agent, going_on, start(agent, going_on), 9)
    env = CountingEnv(2, {(1, step): "truncated"})
    torch.manual_seed(1)
    rollout, _ = collect(agent, env, start(agent, env), 9)
    assert torch.equal(rollout.action[: step + 1], expected.action[: step + 1])
    assert_close(rollout.final_value[step, 1], expected.value[step + 1, 1], atol=1e-5, rtol=1e-5)
    assert rollout.final_value.count_nonzero() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_final_value_is_the_same_without_looking(
    kind: CoreKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the value of every env is found, and used where an episode was cut off."""
    ends = {(0, 2): "terminated", (1, 2): "truncated", (1, 5): "both", (0, 5): "truncated"}

    def rollout() -> Rollout:
        env = CountingEnv(2, ends)
        agent = make_agent(env, kind)
        return collect(agent, env, start(agent, env), 9)[0]

    expected = rollout()
    monkeypatch.setattr("agents.learning.rollout._may_look", lambda _: False)
    assert expected.final_value.count_nonzero() == 2
    assert torch.equal(rollout().final_value, expected.final_value)


def test_final_value_is_zero_where_an_episode_terminates() -> None:
    env = CountingEnv(2, {(0, 2): "terminated", (1, 2): "both"})
    agent = make_agent(env)
    rollout, _ = collect(agent, env, start(agent, env), 5)
    assert (rollout.final_value == 0).all()
    assert rollout.truncated[2].tolist() == [False, True]


def test_inputs_tell_where_an_episode_starts() -> None:
    env = CountingEnv(2, {(1, 2): "terminated"})
    agent = make_agent(env)
    rollout, carry = collect(agent, env, start(agent, env), 6)
    inputs = rollout.inputs
    assert inputs.reset.T.tolist() == [
        [True, False, False, False, False, False],
        [True, False, False, True, False, False],
    ]
    assert inputs.observation["time"][:, 1, 0].tolist() == [0, 1, 2, 0, 1, 2]
    none = int(agent.actor.none(1)[0])
    actions = rollout.action[:, 1].tolist()
    assert inputs.prev_action[:, 1].tolist() == [none, *actions[:2], none, *actions[3:5]]
    assert inputs.prev_reward[:, 1].tolist() == [0, 2, 2, 0, 2, 2]
    assert rollout.episode_return[:, 1].tolist() == [2, 4, 6, 2, 4, 6]
    assert rollout.episode_length[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert carry.episode_return.tolist() == [6, 6]


def test_a_new_episode_does_not_depend_on_the_one_before() -> None:
    """Envs whose episodes start together agree from there, whatever came before."""
    env = CountingEnv(2, {(0, 3): "terminated", (1, 3): "truncated"})
    agent = make_agent(env)
    carry = start(agent, env)
    rollout, _ = collect(agent, env, carry, 5)
    assert not torch.allclose(rollout.value[2, 0], rollout.value[2, 1])  # rewards differ
    assert_close(rollout.value[4, 0], rollout.value[4, 1])


def test_initial_state_is_not_written_to() -> None:
    env = CountingEnv(2, {})
    agent = make_agent(env)
    first, carry = collect(agent, env, start(agent, env), 4)
    before = first.initial_state.clone()
    second, carry = collect(agent, env, carry, 5)
    between = second.initial_state.clone()
    collect(agent, env, carry, 5)
    assert_close(first.initial_state.to_dict(), before.to_dict(), atol=0, rtol=0)
    assert_close(second.initial_state.to_dict(), between.to_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("kind", ["mtxl", "feedforward"])
def test_only_an_agent_with_memory_sees_its_previous_action(kind: CoreKind) -> None:
    """Else it could write what it must remember into its actions."""
    torch.manual_seed(0)
    env = RecallEnv(num_envs=4, delay=2)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(kind=kind, dim=8))
    inputs = start(agent, env).inputs._replace(reset=torch.zeros(4, dtype=torch.bool))
    acted = inputs._replace(prev_action=torch.ones(4, dtype=torch.int64))
    rewarded = inputs._replace(prev_reward=torch.ones(4))
    for other in (acted, rewarded):
        is_seen = not torch.equal(agent.encode(inputs), agent.encode(other))
        assert is_seen == (kind == "mtxl")
        assert torch.equal(
            agent.encode(agent.without_past(inputs)), agent.encode(agent.without_past(other))
        )
    assert agent.without_past(inputs).reset.all()
