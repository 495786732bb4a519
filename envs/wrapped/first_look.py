"""A look at one Gymnasium environment before the first episode: what its spaces do not say."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from minigrid.minigrid_env import MiniGridEnv

from envs.observation_fields import minigrid_grids
from envs.wrapped.action_mask import ACTION_MASK, allowed_action, may_have_mask
from envs.wrapped.guarded_env import GuardedEnv
from envs.wrapped.watchdog import Watchdog

NUM_TIMED_STEPS = 2


class FirstLook(NamedTuple):
    """What was seen."""

    has_mask: bool = False
    """Its info holds a mask of actions that its observation does not."""
    grids: frozenset[str] = frozenset()
    """Names of the parts of its observation that are MiniGrid's grids."""
    step_seconds: float = 0.0
    """Of the fastest of a few steps, 0 where it was not asked for."""


def look(env: gymnasium.Env, watchdog: Watchdog, is_timed: bool) -> FirstLook:
    """Reset an environment once, where that tells anything, and see.

    What goes wrong is not said here: it will be with the number of the copy.

    Args:
        env: the environment.
        watchdog: whose time limit holds.
        is_timed: whether to take a few steps.
    """
    space = env.observation_space
    in_info = may_have_mask(env)
    is_minigrid = isinstance(env.unwrapped, MiniGridEnv)
    seen = FirstLook()
    if not (in_info or is_minigrid or is_timed):
        return seen
    kept = _KeepsInfo(env)
    guarded = GuardedEnv(kept, "", watchdog)
    with suppress(Exception), watchdog.handler():
        observation, _ = guarded.reset(seed=0)
        grids = minigrid_grids(space, observation) if is_minigrid else set()
        has_mask = in_info and ACTION_MASK in kept.info
        seen = FirstLook(has_mask, frozenset(grids))
        if is_timed:
            is_observed = not in_info and not isinstance(env.action_space, spaces.Box)
            mask = observation[ACTION_MASK] if is_observed else kept.info.get(ACTION_MASK)
            action = allowed_action(env.action_space, mask)
            seen = seen._replace(step_seconds=_fastest_step(guarded, action))
    return seen


def _fastest_step(env: gymnasium.Env, action: Any) -> float:
    fastest = np.inf
    for _ in range(NUM_TIMED_STEPS):
        started = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        fastest = min(fastest, time.perf_counter() - started)
        if terminated or truncated:
            break
    return fastest


class _KeepsInfo(gymnasium.Wrapper):
    """Keeps the info of the last reset, which `GuardedEnv` does not hand on."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, self.info = self.env.reset(**options)
        return observation, self.info
