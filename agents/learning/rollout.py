"""Acting in a batch of environments and recording what training needs.

Rollouts are time-major: (T, B, ...). Shapes: T steps, B envs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from agents import ranks
from agents.actor_critic import ActorCritic, AgentInput, Player
from agents.learning.episodes import EpisodeCounts, clear, count, no_counts
from agents.trees import map_tensors


@runtime_checkable
class Step(Protocol):
    """What an environment's step returns: see `Env.step`."""

    @property
    def observation(self) -> dict[str, Tensor]: ...
    @property
    def reward(self) -> Tensor: ...
    @property
    def terminated(self) -> Tensor: ...
    @property
    def truncated(self) -> Tensor: ...
    @property
    def success(self) -> Tensor: ...
    @property
    def final_observation(self) -> dict[str, Tensor] | None: ...
    @property
    def cue(self) -> Tensor | None: ...


@runtime_checkable
class Env(Protocol):
    """A batch of environments, as the agent uses them."""

    num_envs: int

    def reset(self) -> dict[str, Tensor]:
        """Return the first observations, (B, ...) each."""
        ...

    def step(self, actions: Tensor, /) -> Step:
        """Take one action in every env.

        Where an episode ends, the env is reset in the same step: `observation` is the first of
        the next episode. `reward`, `terminated`, `truncated` and `success` are (B,);
        `final_observation` holds the last observation of truncated episodes in their rows, and
        may be None when no episode was truncated. `cue` says which cue the observation before the
        step showed, -1 for none; None where that is not known.
        """
        ...


@runtime_checkable
class SplitEnv(Env, Protocol):
    """An env whose step is a part of the host, which needs no actions, and one of the device."""

    def host_step(self) -> None: ...

    def device_step(self, actions: Tensor, /) -> Step: ...


@dataclass(frozen=True)
class Carry(EpisodeCounts):
    """What goes on from one rollout to the next, with the counts of the episodes in progress."""

    inputs: AgentInput  # of the next step
    state: Any  # of the core, before it


class Rollout(NamedTuple):
    """T steps of B envs."""

    inputs: AgentInput  # what the agent saw at t
    initial_state: Any  # the core's state before t = 0
    action: Shaped[Tensor, "T B ..."]  # a_t
    log_prob: Float[Tensor, "T B"]  # log pi(a_t)
    value: Float[Tensor, "T B"]  # V(o_t)
    reward: Float[Tensor, "T B"]  # r_t, after action a_t
    terminated: Bool[Tensor, "T B"]  # the episode ended in a terminal state with step t
    truncated: Bool[Tensor, "T B"]  # the episode was cut off with step t
    success: Bool[Tensor, "T B"]  # the episode ended with step t, in success
    final_value: Float[Tensor, "T B"]  # V of the final observation where truncated, else 0
    next_value: Float[Tensor, " B"]  # V(o_T)
    episode_return: Float[Tensor, "T B"]  # return of the episode up to and with step t
    episode_length: Int64[Tensor, "T B"]  # its steps up to and with step t
    cue_age: Int64[Tensor, "T B"]  # steps from the last o of the episode with its cue to o_t, or -1


def start(agent: ActorCritic, env: Env) -> Carry:
    """Reset every env and return the carry of the first rollout."""
    observation = agent.see(env.reset())
    return Carry(
        **vars(no_counts(env.num_envs, agent.device)),
        inputs=agent.first_inputs(observation, env.num_envs),
        state=agent.initial_state(env.num_envs),
    )


@torch.no_grad()
def act(
    player: Player,
    env_step: Callable[[Tensor], Step],
    carry: Carry,
    is_greedy: bool = False,
    share: ranks.Share = ranks.ALONE,
) -> tuple[Carry, dict[str, Any]]:
    """Act once in every env, by `Env.step` or its like.

    Returns the next carry, but for its state, which is the player's, and what `Rollout` records of
    the step, by its field names.

    Args:
        player: who acts.
        env_step: of these envs.
        carry: before the step.
        is_greedy: whether the most probable action is taken.
        share: of all envs, which these are.
    """
    agent = player.agent
    policy, value = player.step(carry.inputs)
    action = policy.mode if is_greedy else policy.sample(share=share)
    step = env_step(action)
    done = step.terminated | step.truncated
    counted = count(carry, step)
    inputs = agent.next_inputs(agent.see(step.observation), action, step.reward, done)
    record = {
        "inputs": carry.inputs,
        "action": action,
        "log_prob": policy.log_prob(action),
        "value": value,
        "reward": step.reward,
        "terminated": step.terminated,
        "truncated": step.truncated,
        "success": step.success,
        "final_value": _final_value(player, step, action),
        "episode_return": counted.episode_return,
        "episode_length": counted.episode_length,
        "cue_age": counted.cue_age,
    }
    return replace(clear(counted, done), inputs=inputs), record


def collect(agent: ActorCritic, env: Env, carry: Carry, num_steps: int) -> tuple[Rollout, Carry]:
    """Act for `num_steps` steps; memories go on from `carry` and into the next rollout.

    The host's part of all steps comes first, as it must where the rest is recorded.
    """
    if isinstance(env, SplitEnv):
        for _ in range(num_steps):
            env.host_step()
        return collect_on_device(agent, env.device_step, carry, num_steps)
    return collect_on_device(agent, env.step, carry, num_steps)


@torch.no_grad()
def collect_on_device(
    agent: ActorCritic, env_step: Callable[[Tensor], Step], carry: Carry, num_steps: int
) -> tuple[Rollout, Carry]:
    """Do what `collect` does without the host's part: on a GPU nothing here synchronises."""
    player = agent.player(carry.state)
    initial_state = carry.state
    records: list[dict[str, Any]] = []
    for _ in range(num_steps):
        carry, record = act(player, env_step, carry, share=ranks.share())
        records.append(record)
    next_value = player.peek(carry.inputs)
    stacked = map_tensors(lambda *steps: torch.stack(steps), *records)
    rollout = Rollout(**stacked, initial_state=initial_state, next_value=next_value)
    return rollout, replace(carry, state=player.state)


def _final_value(player: Player, step: Step, action: Tensor) -> Tensor:
    """Return V of the final observations, seen with the memory of the episodes that they end."""
    if step.final_observation is None:
        return torch.zeros_like(step.reward)
    is_cut_off = step.truncated & ~step.terminated
    inputs = AgentInput(
        observation=player.agent.see(step.final_observation),
        prev_action=action,
        prev_reward=step.reward,
        reset=torch.zeros_like(is_cut_off),
    )
    if _may_look(step.reward) and not is_cut_off.any():
        return torch.zeros_like(step.reward)
    return torch.where(is_cut_off, player.peek(inputs), 0.0)


def _may_look(tensor: Tensor) -> bool:
    """Return whether reading a tensor is free: on a GPU it is a synchronisation."""
    return tensor.device.type == "cpu"
