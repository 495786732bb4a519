"""Vector environments for tests, of each autoreset mode, and with one fault each."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

FAULTY_STEP = 3


class EpisodeEnv(gymnasium.Env):
    """Episodes of 2, 3, 4, 5, 2, ... steps, by turns truncated and terminated, which succeed."""

    observation_space = spaces.Dict(
        {"time": spaces.Box(0, 9, (1,)), "number": spaces.Discrete(4, start=1)}
    )
    action_space = spaces.Discrete(2, start=3)

    def __init__(self, **_: Any):
        self.number = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.number = seed % 4
        self.number = (self.number + 1) % 4
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.time += 1
        is_over = self.time == self.number + 2
        terminated = bool(is_over and self.number % 2)
        info = {"is_success": terminated} if is_over else {}
        return self._observe(), float(self.time), terminated, is_over and not terminated, info

    def _observe(self) -> dict[str, Any]:
        return {"time": np.full(1, self.time, np.float32), "number": self.number + 1}


def by_gymnasium(kind: Any, mode: AutoresetMode, num_envs: int, **_: Any) -> VectorEnv:
    return kind([EpisodeEnv] * num_envs, autoreset_mode=mode)


class PlainEnv(VectorWrapper):
    """Resets all envs whatever its options say, so that a reset of one takes a step."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed)


class PoolEnv(VectorEnv):
    """As EnvPool's are: seeds at the construction, resets of some envs, success in all infos."""

    def __init__(self, num_envs: int, seed: int = 0, max_episode_steps: int = 50):
        self.inner = SyncVectorEnv([EpisodeEnv] * num_envs, autoreset_mode=AutoresetMode.DISABLED)
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.config = {"max_episode_steps": max_episode_steps, "reward_threshold": 3.5}
        self.single_observation_space = EpisodeEnv.observation_space
        self.observation_space = EpisodeEnv.observation_space
        self.single_action_space = self.action_space = EpisodeEnv.action_space
        self._seed: int | None = seed

    def reset(self, env_id: Any = None, *, seed: Any = None, options: Any = None) -> Any:
        if env_id is None:
            observation, _ = self.inner.reset(seed=self._seed)
            self._seed = None
            return observation, {"env_id": np.arange(self.num_envs)}
        mask = np.isin(np.arange(self.num_envs), env_id)
        observation, _ = self.inner.reset(options={"reset_mask": mask})
        return {name: values[env_id] for name, values in observation.items()}, {"env_id": env_id}

    def step(self, actions: Any) -> Any:
        *result, info = self.inner.step(actions)
        success = info.get("is_success", np.zeros(self.num_envs, bool))
        return *result, {"success": success, "env_id": np.arange(self.num_envs)}


class FaultyVectorEnv(VectorEnv):
    """Has one fault at its third step, or from the start.

    Args:
        num_envs: B.
        fault: "raises", "hangs", or the values that it returns in place of what it should, by name.
        mode: of its autoreset.
        made: how many environments it makes; None: as many as it is asked for.
        info: of its resets.
    """

    single_observation_space = spaces.Box(-1, 1, (2,))
    single_action_space = spaces.Discrete(2)

    def __init__(
        self, num_envs: int, fault: Any = None, mode: Any = "SameStep", made: int | None = None,
        info: Any = None, **_: Any,
    ):  # fmt: skip
        self.num_envs = made or num_envs
        self.metadata = {"autoreset_mode": mode}
        self.fault, self.info, self.num_steps = fault, info or {}, 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((self.num_envs, 2), np.float32), self.info

    def step(self, actions: Any) -> Any:
        self.num_steps += 1
        result: dict[str, Any] = {
            "observation": np.zeros((self.num_envs, 2), np.float32),
            "reward": np.ones(self.num_envs),
            "terminated": np.zeros(self.num_envs, bool),
            "truncated": np.zeros(self.num_envs, bool),
            "info": {},
        }
        if self.num_steps == FAULTY_STEP:
            if self.fault == "raises":
                raise RuntimeError("the simulator crashed")
            while self.fault == "hangs":
                time.sleep(0.01)
            result |= self.fault or {}
        return tuple(result.values())


for name, make in {
    "SyncSame": partial(by_gymnasium, SyncVectorEnv, AutoresetMode.SAME_STEP),
    "SyncDisabled": partial(by_gymnasium, SyncVectorEnv, AutoresetMode.DISABLED),
    "SyncNext": partial(by_gymnasium, SyncVectorEnv, AutoresetMode.NEXT_STEP),
    "AsyncNext": partial(by_gymnasium, AsyncVectorEnv, AutoresetMode.NEXT_STEP),
    "Plain": lambda num_envs, **_: PlainEnv(
        by_gymnasium(SyncVectorEnv, AutoresetMode.NEXT_STEP, num_envs)
    ),
    "Pool": PoolEnv,
    "Faulty": FaultyVectorEnv,
    "NoVector": lambda num_envs, **_: 7,
}.items():
    gymnasium.register(f"Vector-{name}-v0", vector_entry_point=make)
gymnasium.register("Vector-Single-v0", EpisodeEnv)
