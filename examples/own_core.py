"""A recurrent core of your own in the agent, and PPO's loop around it.

python examples/own_core.py
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import envs
from agents.acceleration import Trainer
from agents.actor_critic import ActorCritic
from agents.cores.baseline_cores import BaselineCore, TensorState
from agents.cores.core import CoreConfig
from agents.ppo import PPO, PPOConfig
from agents.rollout import start


class LeakyCore(BaselineCore):
    """Averages of its input with fixed time constants of 1 to 1,000 steps.

    A core gets x (B, T, D), its state and where episodes start, and returns (B, T, D) and the state
    after it. `BaselineCore` acts by calling it with T = 1.
    """

    decay: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.output_dim = dim
        self.input, self.output = nn.Linear(dim, dim), nn.Linear(2 * dim, dim)
        self.register_buffer("decay", torch.exp(-1 / torch.logspace(0, 3, dim)))

    def initial_state(self, batch_size: int) -> TensorState:
        """Return what envs carry that have seen nothing; with an axis of layers."""
        return TensorState((self.decay.new_zeros(batch_size, 1, self.output_dim),))

    def forward(
        self, x: Float[Tensor, "B T D"], state: TensorState, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], TensorState]:
        """Run a sequence."""
        average, outputs = state.tensors[0][:, 0], []
        for new, is_first in zip(self.input(x).unbind(1), reset.unbind(1), strict=True):
            average = torch.where(is_first[:, None], 0.0, average)  # a reset clears that env only
            average = self.decay * average + (1 - self.decay) * new
            outputs.append(average)
        y = self.output(torch.cat((x, torch.stack(outputs, dim=1)), dim=-1))
        return x + torch.relu(y), TensorState((average[:, None],))


def main(num_updates: int = 60, num_envs: int = 64) -> float:
    """Train on Recall and return the success rate of the last update's episodes."""
    torch.manual_seed(1)
    env = envs.make("mtxl/Recall6-v0", num_envs, seed=1)
    agent = ActorCritic(env.observation_space, env.action_space, CoreConfig(kind="gru", dim=64))
    agent.core = LeakyCore(64)  # of the same width
    config = PPOConfig(rollout_len=32)
    trainer = Trainer(agent, PPO(agent, config), env, start(agent, env), config.rollout_len)
    rate = 0.0
    for update in range(num_updates):
        rollout = trainer.collect()
        trainer.update(rollout, progress=update / num_updates)
        rate = float(rollout.success.sum() / (rollout.terminated | rollout.truncated).sum())
        if update % 10 == 9:
            print(f"{(update + 1) * num_envs * config.rollout_len:,} frames: success {rate:.2f}")
    return rate


if __name__ == "__main__":
    main()
