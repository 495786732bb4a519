"""An environment that fails at its first step."""

from __future__ import annotations

from typing import Any

import gymnasium

from envs.memory_tasks.recall import RecallEnv


class BrokenEnv(RecallEnv):
    def step(self, action: Any) -> Any:
        raise RuntimeError("the simulator crashed")


gymnasium.register("Broken-v0", entry_point=lambda **_: BrokenEnv())
