"""An environment that waits in the middle of a run until a test lets it go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

GATE_STEP = 20
"""In which it waits, counted over its episodes."""


class GatedEnv(gymnasium.Env):
    """Episodes of four steps, half of which succeed.

    Args:
        gate: a file for which it waits.
    """

    observation_space = spaces.Discrete(4)
    action_space = spaces.Discrete(2)

    def __init__(self, gate: str, **_: Any):
        self.gate, self.num_steps = Path(gate), 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.time = 0
        return self.time, {}

    def step(self, action: Any) -> Any:
        self.time += 1
        self.num_steps += 1
        end = time.monotonic() + 600  # where a test has failed
        while self.num_steps == GATE_STEP and not self.gate.exists() and time.monotonic() < end:
            time.sleep(0.05)
        is_done = self.time == 4
        return self.time % 4, float(is_done and action == 0), is_done, False, {"is_success": True}


gymnasium.register("Gated-v0", entry_point=GatedEnv)
