"""The contract of a batch of environments. Shapes: B envs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

RENDER_FPS = 10.0
"""Pictures a second where an environment does not say."""

Observation = dict[str, Shaped[Tensor, "B ..."]]


class EnvStep(NamedTuple):
    """What a step returns. An env whose episode ended has been reset (SAME_STEP autoreset)."""

    observation: Observation  # o_{t+1}; the first of the next episode where one ended
    reward: Float[Tensor, " B"]  # r_t, after action a_t
    terminated: Bool[Tensor, " B"]  # the episode ended in a terminal state
    truncated: Bool[Tensor, " B"]  # the episode was cut off, by its time limit
    success: Bool[Tensor, " B"] | Float[Tensor, " B"]
    """The episode ended, and in success; as floats where it may be unknown: nan is unknown."""
    final_observation: Observation | None
    """The last observation of the episode, in the rows where one was truncated; the other rows
    mean nothing. May be None when no row was."""
    cue: Int64[Tensor, " B"] | None = None
    """Which cue o_t showed, from 0; -1 for none. None where the task has no cue that is known."""


class BatchedEnv(ABC):
    """B environments of one kind, stepped together and reset one by one as they end.

    Attributes:
        num_envs: number of copies B.
        device: where observations, rewards and flags live.
        observation_space: of one env, a flat Dict of Discrete, MultiDiscrete (of shape (n,): a
            vector of categories, or, with more than 8,192 symbols over all places, a sequence of
            words, of which 0 is none; (rows, columns, channels): a grid of symbols) and Box (uint8
            of one axis: the bytes of a text, UTF-8 padded with 0; uint8 of more: a picture;
            float32: numbers, or a picture with its bounds).
        action_space: of one env: Discrete, MultiDiscrete or Box.
        has_success: whether success is known for this environment: at the start, or from when an
            episode's end has said so.
        has_time_limit: whether every episode is known to end by itself.
        reward_threshold: the mean return from which on it counts as solved, where it is registered
            with one.
        render_fps: pictures a second of a film.
        has_cue: whether steps say which cue is in view.
        backend: what runs the environments, "tensor", "gymnasium" or "vector".
        num_processes: how many processes of their own they have.
    """

    num_envs: int
    device: torch.device
    observation_space: spaces.Dict
    action_space: spaces.Space
    has_success: bool
    has_cue: bool = False
    has_time_limit: bool = True
    reward_threshold: float | None = None
    render_fps: float = RENDER_FPS
    backend: str
    num_processes: int = 0

    def bound_episodes(self, max_steps: int) -> None:
        """Cut episodes off (truncated) after so many steps; not where they are tensors."""
        raise NotImplementedError

    @abstractmethod
    def reset(self) -> Observation:
        """Start the next episode in every env and return the first observations."""

    @abstractmethod
    def step(self, actions: Shaped[Tensor, "B ..."]) -> EnvStep:
        """Take one action in every env: (B,) of Discrete, (B, n) of the other spaces."""

    @abstractmethod
    def render(self, index: int) -> np.ndarray:
        """Return a picture (rows, columns, 3) uint8 of one env."""

    @abstractmethod
    def close(self) -> None:
        """Free what the environments hold."""
