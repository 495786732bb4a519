"""The memory transformer in a PPO loop of one file, in CleanRL's manner: torch and Gymnasium.

python examples/ppo_in_one_file.py --num-updates 200

What the core takes in one's own code: its state is kept from one rollout to the next; training
starts from the very state that the rollout started from, and runs whole sequences of whole envs.
The task is a cue, blank steps, a question: the answer is the cue.

Shapes: T steps of a rollout, B envs, D width, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import torch
import torch.nn.functional as F
import tyro
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn
from torch.distributions import Categorical

import envs  # noqa: F401  (registers mtxl/Recall6-v0; any environment of choices will do)
from mtxl_rl import Acting, MemoryState, MemoryTransformerXL


@dataclass(frozen=True, kw_only=True)
class Config:
    """What there is to set."""

    env_id: str = "mtxl/Recall6-v0"
    num_envs: int = 64
    rollout_len: int = 32
    num_updates: int = 100
    num_epochs: int = 4
    num_minibatches: int = 2
    learning_rate: float = 1e-3
    gamma: float = 0.99
    gae_lambda: float = 0.9
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    dim: int = 64
    seed: int = 1


class Agent(nn.Module):
    """An embedding, the core, a policy and a value."""

    def __init__(self, num_observations: int, num_actions: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_observations, dim)
        # a step sees two to five steps back by itself: the rest must go through the slots
        self.core = MemoryTransformerXL(dim=dim, depth=2, seq_len=4, mem_len=2, lmem_len=4, heads=4)
        self.actor, self.critic = nn.Linear(dim, num_actions), nn.Linear(dim, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)
        nn.init.orthogonal_(self.critic.weight, 0.01)

    def heads(self, y: Tensor) -> tuple[Categorical, Tensor]:
        """Return policies and values of outputs (..., D)."""
        return Categorical(logits=self.actor(y)), self.critic(y).squeeze(-1)

    def forward(
        self, observation: Tensor, state: MemoryState, reset: Tensor
    ) -> tuple[Categorical, Tensor]:
        """Run sequences (B, T)."""
        y, _ = self.core(self.embedding(observation), state, reset)
        return self.heads(y)


def advantages_of(
    rewards: Tensor, values: Tensor, dones: Tensor, next_value: Tensor, config: Config
) -> Tensor:
    """Return generalised advantages (T, B), arXiv 1506.02438; dones[t] ends an episode after t."""
    advantages, last = torch.zeros_like(rewards), torch.zeros_like(next_value)
    for t in reversed(range(len(rewards))):
        goes_on = 1 - dones[t]
        delta = rewards[t] + config.gamma * next_value * goes_on - values[t]
        last = delta + config.gamma * config.gae_lambda * goes_on * last
        advantages[t], next_value = last, values[t]
    return advantages


def main(config: Config) -> float:
    """Train, and return the share of questions that were answered rightly at the end."""
    torch.manual_seed(config.seed)
    env = gymnasium.make_vec(config.env_id, num_envs=config.num_envs)
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP  # no step is lost at a reset
    observation_space, action_space = env.single_observation_space, env.single_action_space
    assert isinstance(observation_space, gymnasium.spaces.Discrete)
    assert isinstance(action_space, gymnasium.spaces.Discrete)
    agent = Agent(int(observation_space.n), int(action_space.n), config.dim)
    optimizer = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, eps=1e-5)

    shape = (config.rollout_len, config.num_envs)
    observations, actions = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
    resets = torch.zeros(shape, dtype=torch.bool)  # True where the observation starts an episode
    log_probs, rewards, dones, values = (torch.zeros(shape) for _ in range(4))

    observation = torch.as_tensor(env.reset(seed=config.seed)[0])
    reset = torch.ones(config.num_envs, dtype=torch.bool)
    state = agent.core.initial_state(config.num_envs)
    rate = 0.0
    for update in range(config.num_updates):
        # Act, from the state that the last rollout left; the weights have changed since.
        first_state = state
        acting = Acting(agent.core, state)
        for t in range(config.rollout_len):
            observations[t], resets[t] = observation, reset
            with torch.no_grad():
                y = acting.step(agent.embedding(observation), reset)
                policy, values[t] = agent.heads(y)
                actions[t] = policy.sample()
                log_probs[t] = policy.log_prob(actions[t])
            next_observation, reward, terminated, truncated, _ = env.step(actions[t].numpy())
            reset = torch.as_tensor(terminated | truncated)  # a time limit would need V(final)
            rewards[t], dones[t] = torch.as_tensor(reward), reset.float()
            observation = torch.as_tensor(next_observation)
        with torch.no_grad():
            next_value = agent.heads(acting.peek(agent.embedding(observation), reset))[1]
        state = acting.state
        advantages = advantages_of(rewards, values, dones, next_value, config)
        returns = advantages + values

        # Learn from whole envs, so that gradients flow through the segments and the slots.
        for _ in range(config.num_epochs):
            for rows in torch.randperm(config.num_envs).chunk(config.num_minibatches):
                policy, value = agent(observations[:, rows].T, first_state[rows], resets[:, rows].T)
                ratio = (policy.log_prob(actions[:, rows].T) - log_probs[:, rows].T).exp()
                advantage = advantages[:, rows].T
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
                policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
                value_loss = F.mse_loss(value, returns[:, rows].T)
                loss = policy_loss + config.vf_coef * value_loss
                loss = loss - config.ent_coef * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), config.max_grad_norm)
                optimizer.step()

        rate = float((rewards * dones).sum() / dones.sum().clamp(min=1))
        if update % 10 == 9:
            frames = (update + 1) * config.rollout_len * config.num_envs
            print(f"{frames:,} frames: {rate:.2f} of the answers are right")
    env.close()
    return rate


if __name__ == "__main__":
    main(tyro.cli(Config))
