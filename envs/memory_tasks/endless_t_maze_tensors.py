"""The endless T-maze as tensors: `endless_t_maze.EndlessTMazeEnv` in thousands.

Shapes: B envs, K corridors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from envs.batched_env import Observation
from envs.counter_random import scaled
from envs.memory_tasks.endless_t_maze import CORRIDOR, JUNCTION, NUM_CUES, EndlessTMazeEnv
from envs.memory_tasks.symbol_tensors import SymbolTensorEnv
from envs.tensor_env import StepEnd


class EndlessTMazeTensorEnv(SymbolTensorEnv[EndlessTMazeEnv]):
    """B environments of the endless T-maze."""

    action_names = tuple(f"turn {turn}" for turn in range(NUM_CUES))
    option_names = ("lengths", "num_corridors")

    def _num_draws(self) -> int:
        return 2 * self.prototype.num_corridors

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        self._lengths = torch.tensor(self.prototype.lengths, device=self.device)
        super()._set_up(level_seeds)

    def _advance_(self, actions: Int64[Tensor, " B"]) -> StepEnd:
        time, is_success = self._buffers["time"], self._buffers["is_success"]
        corridor, is_junction = self._place(time, self._buffers["junctions"])
        answer = self._buffers["answers"].gather(1, corridor.unsqueeze(1)).squeeze(1)
        is_right = actions == answer
        is_success &= is_right | ~is_junction
        terminated = time == self._buffers["junctions"][:, -1]
        time += 1
        return StepEnd(
            reward=(is_junction & is_right).float() * (1 / self.prototype.num_corridors),
            terminated=terminated,
            truncated=torch.zeros_like(terminated),
            success=terminated & is_success,
        )

    def _observe(self, rows: Int64[Tensor, " n"] | None = None) -> Observation:
        time, junctions, shown = (
            self._buffers[name] if rows is None else self._buffers[name][rows]
            for name in ("time", "junctions", "shown")
        )
        corridor, is_junction = self._place(time, junctions)
        number = corridor.unsqueeze(1)
        before = junctions.gather(1, (number - 1).clamp(min=0)).squeeze(1)
        is_start = torch.where(corridor > 0, time == before + 1, time == 0)
        cue = shown.gather(1, number).squeeze(1)
        is_over = time > junctions[:, -1]  # the junction is still seen
        symbol = torch.where(is_start, cue, CORRIDOR)
        return {"observation": torch.where(is_junction | is_over, JUNCTION, symbol)}

    def _place(self, time: Tensor, junctions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the corridor of a step, and whether it is at its junction."""
        corridor = torch.searchsorted(junctions, time.unsqueeze(1))
        corridor = corridor.clamp(max=self.prototype.num_corridors - 1)
        is_junction = junctions.gather(1, corridor).squeeze(1) == time
        return corridor.squeeze(1), is_junction

    def _draw(self, bits: Int64[Tensor, "n draws"]) -> dict[str, Tensor]:
        """Draw episodes: the first cue, and of each corridor its length and whether cues change."""
        lengths, changes = bits.chunk(2, dim=1)  # (n, K) each
        lengths = self._lengths[scaled(lengths, len(self._lengths))]
        changes = scaled(changes, NUM_CUES)  # of the first corridor the cue itself
        answers = changes.cumsum(1) % NUM_CUES
        is_shown = changes == 1
        is_shown[:, 0] = True
        time = torch.zeros_like(answers[:, 0])
        return {
            "time": time,
            "junctions": (lengths + 2).cumsum(1) - 1,
            "shown": torch.where(is_shown, answers, CORRIDOR),
            "answers": answers,
            "is_success": torch.ones_like(time, dtype=torch.bool),
        }

    def _numbers_of(self, env: EndlessTMazeEnv) -> Mapping[str, Any]:
        names = ("time", "junctions", "shown", "answers", "is_success")
        return {name: getattr(env, name) for name in names}
