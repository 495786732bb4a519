"""Environments with a fault at their third step, for tests in other processes too."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

FAULTY_STEP = 3


class FaultyEnv(gymnasium.Env):
    """An env that goes wrong.

    Args:
        fault: "raises", "hangs", "hangs in C", "is killed", "exits", or what the step returns in
            place of what it should: a dict of "vector", "symbol", "reward", "observation" or
            "result".
    """

    observation_space = spaces.Dict(
        {"vector": spaces.Box(-1, 1, (2,)), "symbol": spaces.Discrete(3)}
    )
    action_space = spaces.Discrete(2)

    def __init__(self, fault: Any = None, **_: Any):
        self.fault = fault

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        if self.time == FAULTY_STEP:
            return self._go_wrong()
        return self._observe(), 1.0, False, self.time == 10, {}

    def _observe(self) -> dict[str, Any]:
        return {"vector": np.full(2, self.time / 10, np.float32), "symbol": self.time % 3}

    def _go_wrong(self) -> Any:
        if self.fault == "raises":
            raise RuntimeError("the simulator crashed")
        if self.fault == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exits":
            os._exit(3)
        while self.fault == "hangs":
            time.sleep(0.01)
        if self.fault == "hangs in C":
            library = ctypes.CDLL(None)
            mutex = ctypes.create_string_buffer(256)
            library.pthread_mutex_init(mutex, None)
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_lock(mutex)
        wrong = self.fault if isinstance(self.fault, dict) else {}
        observation = self._observe() | {k: v for k, v in wrong.items() if k in self._observe()}
        result = wrong.get("observation", observation), wrong.get("reward", 1.0), False, False, {}
        return wrong.get("result", result)


class FaultySeedEnv(FaultyEnv):
    """The fault is in episodes of seed 1 alone."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.is_faulty = seed == 1
        return super().reset(seed=seed)

    def _go_wrong(self) -> Any:
        return super()._go_wrong() if self.is_faulty else (self._observe(), 1.0, False, False, {})


gymnasium.register("FaultySeed-v0", FaultySeedEnv)
for name in ("raises", "hangs", "hangs in C"):
    gymnasium.register(f"Faulty-{name.replace(' ', '-')}-v0", FaultyEnv, kwargs={"fault": name})
