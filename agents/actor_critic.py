"""The actor-critic: encoder, recurrent core, policy and value heads.

Shapes: B envs, T steps.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from agents.actions import ACTION_MASK, ActionDistribution, ActionHead, has_mask
from agents.cores.core import make_core, state_size
from agents.cores.core_config import CoreConfig
from agents.encoders.encoder import Encoder
from agents.running import AdvantageScale, ReturnScale, Standardised


class AgentInput(NamedTuple):
    """What the agent sees at a step: tensors (B, ...), or (B, T, ...) of a sequence."""

    observation: dict[str, Shaped[Tensor, "B ..."]]  # o_t, as `ActorCritic.see` returns it
    prev_action: Shaped[Tensor, "B ..."]  # a_{t-1}; the head's `none` at an episode's start
    prev_reward: Float[Tensor, "B ..."]  # r_{t-1}; 0 at an episode's start
    reset: Bool[Tensor, "B ..."]  # True where o_t is the first of an episode


class ActorCritic(nn.Module):
    """A policy and a value over one recurrent core.

    Args:
        observation_space: of one env: a flat Dict of Box, Discrete and MultiDiscrete. Where it has
            `ACTION_MASK`, only the actions that it allows are taken.
        action_space: of one env: Discrete, MultiDiscrete or Box.
        config: of the core.

    Raises:
        ValueError: for a space or a configuration that cannot be used.
    """

    def __init__(
        self, observation_space: spaces.Dict, action_space: spaces.Space, config: CoreConfig
    ):
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.own = [name.rpartition("=")[2] for name in (config.kind, *config.encoder)
                    if ":" in name]  # fmt: skip
        """The core and the encoders that are a user's, by module:Class."""
        self.core = make_core(config)
        self.sees_past = config.past_action and self.core.has_memory
        """Whether the previous action and reward are seen: a core without memory must not have
        them, because an agent can write what it must remember into its own actions."""
        self.has_mask = has_mask(observation_space, action_space)
        self.encoder = Encoder(observation_space, config.dim, config.image_size, config.encoder)
        self.norm_names = _vectors(observation_space) if config.norm_observations else []
        """Parts of the observation that are standardised."""
        self.observations = nn.ModuleList(
            Standardised(observation_space[name].shape or ()) for name in self.norm_names
        )
        self.norm = nn.LayerNorm(self.core.output_dim)
        self.actor = ActionHead(action_space, self.core.output_dim, embed_dim=config.dim)
        self.critic = nn.Linear(self.core.output_dim, 1)
        self.returns, self.rewards = ReturnScale(), Standardised()
        self.advantages = AdvantageScale()
        # Values start at 0: where rewards are positive, a value that starts above the returns
        # teaches the policy to put off the end of its episodes.
        nn.init.orthogonal_(self.critic.weight, gain=0.01)
        nn.init.zeros_(self.critic.bias)
        self.precision = torch.float32
        """Of the matrix products of encoder and core; weights, heads and losses are float32."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.critic.weight.device

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of weights, and of floats that the core carries for each env."""
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        return {"parameters": num_parameters, "state_floats": state_size(self.core)}

    def initial_state(self, batch_size: int) -> Any:
        """Return the core's state of `batch_size` envs that have seen nothing."""
        return self.core.initial_state(batch_size)

    def forward(
        self, inputs: AgentInput, state: Any
    ) -> tuple[ActionDistribution, Float[Tensor, "B T"], Any]:
        """Run a sequence (B, T, ...): policies, values, and the state after it."""
        with self.autocast():
            y, state = self.core(self.encode(inputs), state, inputs.reset)
        return *self.heads(y, inputs), state

    def player(self, state: Any) -> Player:
        """Return what acts one step after the other, from the core's `state`."""
        return Player(self, state)

    def encode(self, inputs: AgentInput) -> Float[Tensor, "B ..."]:
        """Return the core's input."""
        if not self.sees_past:
            inputs = self.without_past(inputs)
        prev_action = self.actor.embed(inputs.prev_action)
        prev_reward = self.rewards(inputs.prev_reward).masked_fill(inputs.reset, 0.0)
        observation = dict(inputs.observation)
        for name, standardise in zip(self.norm_names, self.observations, strict=True):
            observation[name] = standardise(observation[name])
        return self.encoder(observation, prev_action, prev_reward).float()

    def observe_(self, observation: dict[str, Tensor], reward: Float[Tensor, "T B"]) -> None:
        """Take what was seen into the running statistics of the inputs.

        The agent is another function then: do it between an update and the next rollout.
        """
        self.encoder.observe_(observation)
        self.rewards.observe_(reward)
        for name, standardise in zip(self.norm_names, self.observations, strict=True):
            standardise.observe_(observation[name])  # type: ignore[operator]

    @torch.no_grad()
    def sensitivity(self) -> Float[Tensor, ""]:
        """Return how much more than features log-probabilities are off: see `ActionHead`."""
        return self.actor.sensitivity(self.norm.weight)

    def see(self, observation: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return an environment's observation as the agent keeps it: pictures made smaller."""
        return self.encoder.see(observation)

    def first_inputs(self, observation: dict[str, Tensor], *shape: int) -> AgentInput:
        """Return inputs (*shape, ...) of which each is the first of an episode."""
        none = self.actor.none(math.prod(shape))
        return AgentInput(
            observation=observation,
            prev_action=none.view(*shape, *none.shape[1:]),
            prev_reward=torch.zeros(shape, device=none.device),
            reset=torch.ones(shape, dtype=torch.bool, device=none.device),
        )

    def next_inputs(
        self,
        observation: dict[str, Tensor],
        action: Shaped[Tensor, "*M"],
        reward: Float[Tensor, "*N"],
        reset: Bool[Tensor, "*N"],
    ) -> AgentInput:
        """Return inputs after a step; where they start an episode, nothing of what was before.

        Args:
            observation: as `see` returns it.
            action: taken last.
            reward: for it.
            reset: True where the observation is the first of an episode.
        """
        is_first = reset.view(*reset.shape, *[1] * (action.dim() - reset.dim()))
        return AgentInput(
            observation=observation,
            prev_action=torch.where(is_first, self.actor.none(1)[0], action),
            prev_reward=torch.where(reset, 0.0, reward),
            reset=reset,
        )

    def without_past(self, inputs: AgentInput) -> AgentInput:
        """Return inputs as if every step were the first of an episode."""
        return self.first_inputs(inputs.observation, *inputs.reset.shape)

    def autocast(self) -> torch.autocast:
        """Return the context in which encoder and core run."""
        # without a cache: it would keep weights from before an update, and add up the gradients of
        # a weight's uses in low precision
        return torch.autocast(
            self.device.type,
            dtype=self.precision if self.precision != torch.float32 else torch.bfloat16,
            enabled=self.precision != torch.float32,
            cache_enabled=False,
        )

    def heads(self, y: Tensor, inputs: AgentInput) -> tuple[ActionDistribution, Tensor]:
        """Return policies and values."""
        features = self.norm(y.float())
        mask = inputs.observation[ACTION_MASK].flatten(y.dim() - 1) > 0 if self.has_mask else None
        return self.actor(features, mask), self.returns(self.critic(features).squeeze(-1))


class Player:
    """An agent in the middle of acting, without gradients; a change of its weights ends it.

    Args:
        agent: who acts.
        state: of the core, which is left as it is.
    """

    def __init__(self, agent: ActorCritic, state: Any):
        self.agent = agent
        self.state = state

    @property
    def state(self) -> Any:
        """The core's state after the last step; to set it starts from another one."""
        return self.acting.state

    @state.setter
    def state(self, state: Any) -> None:
        with self.agent.autocast():
            self.acting = self.agent.core.acting(state)

    def step(self, inputs: AgentInput) -> tuple[ActionDistribution, Float[Tensor, " B"]]:
        """Take one step (B, ...)."""
        with torch.no_grad():
            with self.agent.autocast():
                y = self.acting.step(self.agent.encode(inputs), inputs.reset)
            return self.agent.heads(y, inputs)

    def peek(self, inputs: AgentInput) -> Float[Tensor, " B"]:
        """Return the values of a step (B, ...) that is not taken."""
        with torch.no_grad():
            with self.agent.autocast():
                y = self.acting.peek(self.agent.encode(inputs), inputs.reset)
            return self.agent.heads(y, inputs)[1]


def _vectors(space: spaces.Dict) -> list[str]:
    """Return the parts of an observation that are numbers, and no pictures or masks.

    Raises:
        ValueError: where there are none.
    """
    names = [
        name
        for name, part in space.spaces.items()
        if isinstance(part, spaces.Box) and part.dtype == np.float32 and len(part.shape) < 3
        if name != ACTION_MASK
    ]
    if not names:
        raise ValueError(
            f"norm_observations=True has no effect on {list(space.spaces)}, none of which is a "
            "vector of numbers; leave out --core.norm-observations"
        )
    return names
