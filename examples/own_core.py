"""A recurrent core of your own in the agent, and PPO's loop around it.

    python -m mtxl_rl.train --env mtxl/Recall6-v0 --core.kind examples.own_core:LeakyCore
    python examples/own_core.py                          # the same in a loop of your own

docs/your_own_core.md says what a core must have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import envs
from agents.actor_critic import ActorCritic
from agents.cores import BaselineCore, CoreConfig, TensorState, core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import start


@dataclass(frozen=True, kw_only=True)
class LeakyConfig(CoreConfig):
    """Options of `LeakyCore`, beside those that every core has."""

    max_time: int = 1000
    """Longest time constant, in steps."""


class LeakyCore(BaselineCore):
    """Averages of its input with fixed time constants of 1 step to `max_time`.

    A core gets x (B, T, D), its state and where episodes start, and returns (B, T, D) and the state
    after it. `BaselineCore` acts by calling it with T = 1.
    """

    Config = LeakyConfig
    decay: Tensor

    def __init__(self, config: LeakyConfig):
        super().__init__()
        self.output_dim = dim = config.dim
        self.input, self.output = nn.Linear(dim, dim), nn.Linear(2 * dim, dim)
        times = config.max_time ** torch.linspace(0, 1, dim)
        self.register_buffer("decay", torch.exp(-1 / times))

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
    core = core_config(f"{__name__}:LeakyCore", max_time=1000)
    agent = ActorCritic(env.observation_space, env.action_space, core)
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
