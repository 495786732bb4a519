"""The tensor environments as a Gymnasium VectorEnv: NumPy in and out, for anybody's agent.

gymnasium.make_vec("mtxl/MiniGrid-MemoryS13-v0", num_envs=1024)     after `import envs`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from envs.batched_env import Observation
from envs.grids.minigrid_tensor_env import MiniGridTensorEnv
from envs.selection import tensor_env
from envs.specs import check_batch

Batch = dict[str, Any] | tuple[np.ndarray, ...] | np.ndarray


class TensorVectorEnv(VectorEnv):
    """B tensor environments with the spaces and infos of SyncVectorEnv in SAME_STEP mode.

    Rewards are float64, as Gymnasium's, of numbers rounded to float32.

    Args:
        env_id: registered with Gymnasium, of a kind that the tensor backend knows.
        num_envs: B.
        device: where the environments live.
        render_mode: "rgb_array" to use `render`, where the environment draws pictures.
        level_seeds: play the levels of the Gymnasium form's `reset(seed)` for these seeds: the k-th
            episode of env i has seed number i + k num_envs, from the start again after the last.
        **options: of the environment, such as size=65 of MiniGrid's Memory.

    Raises:
        ValueError: for another render mode, or an id that the tensor backend does not know.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int = 1,
        device: str = "cpu",
        render_mode: str | None = None,
        level_seeds: Sequence[int] | None = None,
        **options: Any,
    ):
        check_batch(num_envs, device, level_seeds)
        self.env = tensor_env(env_id, num_envs, device, None, level_seeds, options, render_mode)
        self.env.keeps_final = True
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = self.env.prototype.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = self.env.prototype.observation_space
        self.single_action_space = self.env.prototype.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._missions = [""] * num_envs

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Batch, dict[str, Any]]:
        """Start an episode in every env.

        Args:
            seed: begin again with it. Left out: go on.
            options: none is supported.

        Raises:
            ValueError: for options.
        """
        if options:
            raise ValueError(f"options={options} are not supported; leave them out")
        if seed is not None:
            self.env.seed(np.random.SeedSequence(seed))
        observation = self.env.reset()
        self._read_missions(range(self.num_envs))
        return self._batch(observation), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one action in every env; where an episode ends, the next one starts.

        The info holds `final_obs` and `final_info` of the episodes that ended, as SyncVectorEnv's.
        """
        step = self.env.step(torch.as_tensor(actions, device=self.env.device))
        terminated, truncated = step.terminated.cpu().numpy(), step.truncated.cpu().numpy()
        done = terminated | truncated
        info: dict[str, Any] = {}
        if done.any():
            assert step.final_observation is not None
            success = step.success.cpu().numpy()
            info = self._final_info(self._batch(step.final_observation), done, success)
            self._read_missions(np.flatnonzero(done).tolist())
        reward = step.reward.cpu().numpy().astype(np.float64)
        return self._batch(step.observation), reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture of every env."""
        if self.render_mode is None:
            return None
        return tuple(self.env.render(index) for index in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        self.env.close()

    def _read_missions(self, rows: Sequence[int]) -> None:
        if isinstance(self.env, MiniGridTensorEnv):
            for row, mission in zip(rows, self.env.missions(rows), strict=True):
                self._missions[row] = mission

    def _batch(self, observation: Observation) -> Batch:
        def array(tensor: Tensor) -> np.ndarray:
            return np.ascontiguousarray(tensor.cpu().numpy())

        if isinstance(self.single_observation_space, spaces.Tuple):
            return tuple(array(part) for part in observation.values())
        if not isinstance(self.single_observation_space, spaces.Dict):
            return array(observation["observation"])
        return {
            "direction": array(observation["direction"]),
            "image": array(observation["image"]),
            "mission": tuple(self._missions),
        }

    def _final_info(self, batch: Batch, done: np.ndarray, success: np.ndarray) -> dict[str, Any]:
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(done):
            if isinstance(batch, dict):
                final_obs[row] = {name: values[row] for name, values in batch.items()}
            elif isinstance(batch, tuple):
                final_obs[row] = tuple(part[row] for part in batch)
            else:
                final_obs[row] = batch[row]
        final_info: dict[str, Any] = {}
        if self.env.success_info is not None:
            final_info = {self.env.success_info: success, f"_{self.env.success_info}": done.copy()}
        return {
            "final_obs": final_obs,
            "_final_obs": done.copy(),
            "final_info": final_info,
            "_final_info": done.copy(),
        }
