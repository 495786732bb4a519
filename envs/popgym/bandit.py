"""POPGym's MultiarmedBandit: arms that pay 1 or -1, each with a probability of its own.

What is seen is whether the last pull paid. POPGym's info holds the probabilities; ours does not.
Shapes: n envs, A arms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from jaxtyping import Int64
from torch import Tensor

from envs.rules.task import Outcome, State, Task, check_option, never, pick

MAX_ARMS, MAX_STEPS = 10_000, 1_000_000


@dataclass(frozen=True)
class MultiarmedBandit(Task):
    """Find the arms that pay best."""

    num_bandits: int = 10
    episode_length: int = 200

    def __post_init__(self) -> None:
        check_option("num_bandits", self.num_bandits, 1, MAX_ARMS)
        check_option("episode_length", self.episode_length, 1, MAX_STEPS)

    @property
    def num_draws(self) -> int:
        return self.num_bandits

    @property
    def num_steps(self) -> int:
        return self.episode_length

    @property
    def observation_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.num_bandits)

    @classmethod
    def of(cls, env: Any) -> MultiarmedBandit:
        return cls(env.num_bandits, env.max_episode_length)

    def start(self, bits: Int64[Tensor, "n A"]) -> State:
        # of 24 bits, as NumPy's float32
        return {
            "payouts": (bits >> 7).float() * 2**-24,
            "observation": bits.new_zeros(len(bits)),
        }

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        pays = self.draw(state).float() * 2**-31 < pick(state["payouts"], actions)
        state["observation"].copy_(pays)
        worth = 1 / self.episode_length
        return Outcome(
            reward=torch.where(pays, worth, -worth),
            terminated=never(state["time"]),
            truncated=state["time"] == self.num_steps,
        )

    def read(self, env: Any) -> dict[str, Any]:
        return {"time": env.num_steps, "payouts": env.bandits, "observation": 0}
