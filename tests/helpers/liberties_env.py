"""Environments that do what environments may, for tests in other processes too."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

LENGTH = 5


class ReusingEnv(gymnasium.Env):
    """Writes all that it returns into the same arrays, lists and info; its steps count.

    Args:
        kind: "array", "dict", "tuple" or "list".
    """

    action_space = spaces.Discrete(2)

    def __init__(self, kind: str = "array"):
        self.kind = kind
        box = spaces.Box(-10, 10, (2,))
        self.observation_space = {
            "dict": spaces.Dict({"count": box, "number": spaces.Discrete(9)}),
            "tuple": spaces.Tuple((box, spaces.Discrete(9))),
        }.get(kind, box)
        self.array = np.zeros(2, np.float32)
        self.listed = [0.0, 0.0]
        self.seen: dict[str, Any] = {"count": self.array, "lock": threading.Lock()}
        self.info = {"action_mask": np.ones(2, np.int8)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._observe(0), self.info

    def step(self, action: Any) -> Any:
        count = int(self.array[0]) + 1
        self.info["action_mask"][:] = [1, count % 2]
        return self._observe(count), 1.0, False, count == LENGTH, self.info

    def _observe(self, count: int) -> Any:
        self.array[:] = count
        self.listed[:] = [float(count)] * 2
        self.seen["number"] = count
        forms = {"dict": self.seen, "tuple": (self.array, count), "list": self.listed}
        return forms.get(self.kind, self.array)


class TalkingEnv(gymnasium.Env):
    """Says texts with letters and lengths that its space does not have."""

    observation_space = spaces.Dict({"says": spaces.Text(6), "box": spaces.Box(-1, 1, (1,))})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._observe(), 1.0, False, self.time == LENGTH, {}

    def _observe(self) -> Any:
        words = " ".join(["go left", "stop!", ""][self.time % 3 :])
        return {"says": words, "box": np.zeros(1, np.float32)}


class TorchEnv(gymnasium.Env):
    """Uses torch as if it were alone.

    Args:
        changes: "seed" seeds its generator at each reset, "dtype" sets the default at the second
            step, "folder" goes to another folder when it is made.
        folder: to go to.
        high: of its actions.
    """

    observation_space = spaces.Box(0, 1, (2,))

    def __init__(self, changes: str = "", folder: str = "", high: float = 1.0):
        self.changes = changes
        self.action_space = spaces.Box(-high, high, (1,))
        if changes == "folder":
            os.chdir(folder)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self.changes == "seed":
            torch.manual_seed(0)
        self.time = 0
        return torch.rand(2).numpy(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        if self.changes == "dtype" and self.time == 2:
            torch.set_default_dtype(torch.float64)
        return torch.rand(2).float().numpy(), 1.0, False, self.time == LENGTH, {}


class OwnProcessEnv(TalkingEnv):
    """Has a process of its own, and slow steps."""

    observation_space = spaces.Box(-1, 1, (1,))

    def __init__(self) -> None:
        process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(0,))
        process.start()
        process.join()

    def step(self, action: Any) -> Any:
        time.sleep(0.003)
        return super().step(action)

    def _observe(self) -> Any:
        return np.zeros(1, np.float32)


gymnasium.register("Reusing-v0", f"{__name__}:ReusingEnv")
gymnasium.register("Talking-v0", f"{__name__}:TalkingEnv")
gymnasium.register("OwnProcess-v0", f"{__name__}:OwnProcessEnv")
gymnasium.register("Torch-v0", f"{__name__}:TorchEnv")
