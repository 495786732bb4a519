"""One Gymnasium environment of a batch, with all that is put around it, in any process."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import FilterObservation

from envs.construction import find_wraps, make_single
from envs.wrapped.action_mask import MaskInObservation, WithoutMask, may_have_mask
from envs.wrapped.guarded_env import GuardedEnv
from envs.wrapped.watchdog import Watchdog


@dataclass(frozen=True, kw_only=True)
class SinglePlan:
    """How the environments of a batch are made.

    Attributes:
        spec: what the id is registered with, for processes that do not import its module.
        num_envs: B.
        has_mask: whether the info holds a mask of actions.
        has_text: whether the observation holds a text.
        kept: top-level keys of the observation to keep; () for all.
        level_seeds: see `envs.make`.
        timeout: seconds for one step or reset.
    """

    env_id: str
    spec: EnvSpec | None
    num_envs: int
    env_kwargs: Mapping[str, Any]
    wrap: Sequence[str]
    has_mask: bool
    has_text: bool
    kept: Sequence[Any]
    level_seeds: Sequence[int] | None
    timeout: float | None

    def guarded(self, env: gymnasium.Env, index: int, watchdog: Watchdog) -> GuardedEnv:
        """Return environment number `index`, from what `make_single` has made."""
        if self.has_mask:
            env = MaskInObservation(env)
        elif may_have_mask(env):
            env = WithoutMask(env)
        if self.level_seeds is not None:
            env = SeededEpisodes(env, self.level_seeds, first=index, step=self.num_envs)
        if self.kept:
            env = FilterObservation(env, self.kept)
        return GuardedEnv(env, f"{self.env_id}, env {index} of {self.num_envs}", watchdog)


def make_in_process(plan: SinglePlan, index: int, seed: int, parent: int) -> GuardedEnv:
    """Make environment number `index` in a process of its own.

    Args:
        plan: of the batch.
        index: its number.
        seed: of the generators of NumPy and Python that a process has one of.
        parent: the process that is not its own: there it is made too, for its spaces.
    """
    watchdog = Watchdog(None)
    if os.getpid() != parent:
        if plan.spec is not None:
            gymnasium.registry.setdefault(plan.spec.id, plan.spec)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        watchdog = Watchdog(plan.timeout, ends_process=False)
        watchdog.listen()
    env = make_single(plan.env_id, plan.env_kwargs, find_wraps(plan.wrap))
    return plan.guarded(env, index, watchdog)


class SeededEpisodes(gymnasium.Wrapper):
    """Seeds every episode: number first, first + step, ... of the seeds, round and round."""

    def __init__(self, env: gymnasium.Env, seeds: Sequence[int], first: int, step: int):
        super().__init__(env)
        self._seeds, self._next, self._step = seeds, first, step

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        seed = int(self._seeds[self._next % len(self._seeds)])
        self._next += self._step
        return self.env.reset(seed=seed, options=options)
