"""What MiniGrid's environments that are tensors have in common. Shapes: B envs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from minigrid.core.actions import Actions
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.levels.level_maker import LevelMaker
from envs.minigrid.tasks.task import Outcome
from envs.tensor_env import StepEnd, TensorEnv


class MiniGridTensorEnv(TensorEnv[MiniGridEnv]):
    """B MiniGrid environments as tensors on a device.

    `host_step` synchronises when levels are renewed: once in `level_pool.RENEW_EVERY` steps.
    """

    action_names = tuple(action.name for action in Actions)
    draws_pictures = True

    def _make_prototype(self, env_class: Any, options: dict[str, Any]) -> MiniGridEnv:
        self._maker = LevelMaker(env_class, options)
        return self._maker.env

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        self._buffers |= {
            name: torch.zeros_like(self._every_row) for name in ("step_count", "max_steps")
        }

    @abstractmethod
    def missions(self, rows: Sequence[int]) -> list[str]:
        """Return the texts of the missions of some envs."""

    @abstractmethod
    def restore_prototype(self, index: int) -> None:
        """Bring `prototype` into the state of one env, as far as it is drawn."""

    @abstractmethod
    def _move_(self, actions: Int64[Tensor, " B"]) -> Outcome:
        """Take the actions, and say how the step ended, but for the time limit."""

    def render(self, index: int) -> np.ndarray:
        if not 0 <= index < self.num_envs:
            raise ValueError(f"index={index} must be from 0 to {self.num_envs - 1}")
        self.restore_prototype(index)
        picture = self.prototype.get_frame(tile_size=self.prototype.tile_size)
        assert isinstance(picture, np.ndarray)
        return picture

    def _advance_(self, actions: Int64[Tensor, " B"]) -> StepEnd:
        outcome = self._move_(actions)
        return StepEnd(
            reward=self._reward(outcome),
            terminated=outcome.terminated,
            truncated=self._buffers["step_count"] >= self._buffers["max_steps"],
            success=outcome.success,
        )

    def _reward(self, outcome: Outcome) -> Float[Tensor, " B"]:
        """Return MiniGrid's reward: computed in float64, which Apple's GPU lacks, and cast once."""
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        elapsed = self._buffers["step_count"].to(wide) / self._buffers["max_steps"]
        reward = torch.where(outcome.success, 1 - 0.9 * elapsed, 0.0)
        if outcome.penalty is not None:
            reward = torch.where(outcome.penalty, -1.0, reward)
        return reward.float()

    def _has_episode(self, env: MiniGridEnv) -> bool:
        return env.agent_pos is not None and env.agent_dir is not None and bool(env.agent_dir >= 0)
