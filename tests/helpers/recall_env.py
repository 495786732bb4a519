"""A task that cannot be solved without memory: name, at the end, the cue of the first step."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs import BatchedEnv, EnvStep
from envs.batched_env import Observation
from envs.memory_tasks.recall import NUM_VALUES

BLANK, QUESTION = NUM_VALUES, NUM_VALUES + 1


class RecallEnv(BatchedEnv):
    """Cue, `delay` blank steps, question; the last action must be the cue.

    Without memory the success rate is 0.5.

    Args:
        num_envs: number of envs.
        delay: blank steps between cue and question.
        seed: of the cues.
        is_staggered: whether the first episodes wait for different times before their cue, so that
            a batch holds every phase of the episode from then on.
    """

    def __init__(self, num_envs: int, delay: int, seed: int = 0, is_staggered: bool = True):
        self.num_envs = num_envs
        self.device = torch.device("cpu")
        self.observation_space = spaces.Dict({"symbol": spaces.Discrete(NUM_VALUES + 2)})
        self.action_space = spaces.Discrete(NUM_VALUES)
        self.has_success = True
        self.has_cue = True
        self.length = delay + 2
        self.is_staggered = is_staggered
        self._generator = torch.Generator().manual_seed(seed)

    def reset(self) -> Observation:
        self._cue = self._draw_cues()
        self._time = torch.zeros(self.num_envs, dtype=torch.int64)
        self._start_delay = torch.arange(self.num_envs) % self.length * self.is_staggered
        return self._observe()

    def step(self, actions: Tensor) -> EnvStep:
        cue = torch.where(self._shows_cue(), self._cue, -1)
        waiting = self._start_delay > 0  # first episodes are longer, by a wait before the cue
        self._start_delay -= waiting.long()
        self._time += (~waiting).long()
        done = self._time == self.length
        success = done & (actions == self._cue)
        self._cue = torch.where(done, self._draw_cues(), self._cue)
        self._time[done] = 0
        never = torch.zeros_like(done)
        return EnvStep(self._observe(), success.float(), done, never, success, None, cue)

    def render(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def _draw_cues(self) -> Tensor:
        return torch.randint(NUM_VALUES, (self.num_envs,), generator=self._generator)

    def _observe(self) -> Observation:
        symbol = torch.full((self.num_envs,), BLANK)
        symbol = torch.where(self._time == self.length - 1, QUESTION, symbol)
        return {"symbol": torch.where(self._shows_cue(), self._cue, symbol)}

    def _shows_cue(self) -> Tensor:
        return (self._time == 0) & (self._start_delay == 0)
