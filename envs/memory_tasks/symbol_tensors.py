"""Tasks of symbols as tensors, whose episodes are a few numbers that are drawn when they start.

What a step shows follows from its time, so that a million steps take no more memory than six.
Shapes: B envs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, TypeVar

import gymnasium
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.batched_env import Observation
from envs.counter_random import CounterRandom
from envs.tensor_env import TensorEnv

Single = TypeVar("Single", bound=gymnasium.Env)


class SymbolTensorEnv(TensorEnv[Single]):
    """B environments of a task of symbols.

    Attributes:
        option_names: attributes of the single environment in which all of a batch agree.
    """

    option_names: ClassVar[tuple[str, ...]]
    success_info = "is_success"

    @abstractmethod
    def _num_draws(self) -> int:
        """Return how many random numbers an episode takes."""

    @abstractmethod
    def _draw(self, bits: Int64[Tensor, "n draws"]) -> dict[str, Tensor]:
        """Draw episodes: what buffers hold of them at their start."""

    @abstractmethod
    def _numbers_of(self, env: Single) -> Mapping[str, Any]:
        """Return the episode of a single environment as it is in the buffers."""

    def _make_prototype(self, env_class: Any, options: dict[str, Any]) -> Single:
        return env_class(**options)

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        # held, not made in a step: inductor cannot multiply indices by 64-bit constants
        self._branches = torch.arange(self._num_draws(), device=self.device)
        self._levels: dict[str, Tensor] = {}
        if level_seeds is not None:
            self._levels = self._read([_reset(self.prototype, seed) for seed in level_seeds])
        empty = self._read([_reset(self.prototype, 0)])
        self._buffers |= {
            name: value.repeat_interleave(self.num_envs, dim=0) for name, value in empty.items()
        }

    def load(self, gym_envs: Sequence[Single]) -> Observation:
        self._check_loadable(gym_envs)
        for env in gym_envs:
            for name in self.option_names:
                theirs, ours = getattr(env, name), getattr(self.prototype, name)
                if theirs != ours:
                    raise ValueError(
                        f"load was given a {type(env).__name__} with {name}={theirs}, but this "
                        f"batch has {name}={ours}; pass environments of the same id and options"
                    )
        for name, value in self._read(gym_envs).items():
            self._buffers[name].copy_(value)
        self._has_episodes = True
        return self._observe()

    def _prepare_episodes(self) -> None:
        """Nothing is drawn ahead."""

    def _has_episode(self, env: Any) -> bool:
        return env.has_episode

    def _first_state(self, rows: Int64[Tensor, " n"]) -> dict[str, Tensor]:
        episode = self._buffers["episode"][rows]
        if self._levels:
            number = self._level_in_turn(rows, episode, len(self._levels["time"]))
            return {name: value.index_select(0, number) for name, value in self._levels.items()}
        random = CounterRandom(self._keys[rows].unsqueeze(1), episode.unsqueeze(1))
        return self._draw(random.split(self._branches).bits())

    def _read(self, gym_envs: Sequence[Single]) -> dict[str, Tensor]:
        episodes = [self._numbers_of(env) for env in gym_envs]
        return {
            name: torch.tensor([episode[name] for episode in episodes], device=self.device)
            for name in episodes[0]
        }


def _reset(env: Single, seed: int) -> Single:
    """Return a copy of an environment that is at the start of an episode."""
    env.reset(seed=int(seed))
    return copy(env)
