"""Recall as tensors: `recall.RecallEnv` in thousands. Shapes: B envs, N cues, K items.

An episode is which cue is shown at which of N times, the answers, and when the questions come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from envs.batched_env import Observation
from envs.counter_random import scaled
from envs.memory_tasks.recall import NUM_VALUES, RecallEnv
from envs.memory_tasks.symbol_tensors import SymbolTensorEnv
from envs.tensor_env import StepEnd


class RecallTensorEnv(SymbolTensorEnv[RecallEnv]):
    """B environments of the recall task."""

    has_cue = True
    action_names = tuple(f"answer {value}" for value in range(NUM_VALUES))
    option_names = ("delays", "num_items", "max_gap", "num_shows")

    def _num_draws(self) -> int:
        return 1 + 3 * self.prototype.num_cues

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        self._delays = torch.tensor(self.prototype.delays, device=self.device)
        self._shifts = torch.arange(self.prototype.num_items, device=self.device)
        super()._set_up(level_seeds)

    def _advance_(self, actions: Int64[Tensor, " B"]) -> StepEnd:
        buffers, num_items = self._buffers, self.prototype.num_items
        time, is_success = buffers["time"], buffers["is_success"]
        item = time - buffers["questions_at"]
        is_question = item >= 0
        answer = buffers["answers"] >> item.clamp(min=0) & 1
        is_right = actions == answer
        is_success &= is_right | ~is_question
        time += 1
        terminated = item == num_items - 1
        return StepEnd(
            reward=(is_question & is_right).float() * (1 / num_items),
            terminated=terminated,
            truncated=torch.zeros_like(terminated),
            success=terminated & is_success,
        )

    def _cue_in_view(self) -> Int64[Tensor, " B"]:
        is_last = self._buffers["time"] == self._buffers["cue_times"][:, -1]
        return torch.where(is_last, self._buffers["answers"], -1)

    def _observe(self, rows: Int64[Tensor, " n"] | None = None) -> Observation:
        env = self.prototype

        def of(name: str) -> Tensor:
            return self._buffers[name] if rows is None else self._buffers[name][rows]

        time, cue_times = of("time"), of("cue_times")
        place = torch.searchsorted(cue_times, time.unsqueeze(1)).clamp(max=env.num_cues - 1)
        is_cue = (cue_times.gather(1, place) == time.unsqueeze(1)).squeeze(1)
        cue = of("cue_symbols").gather(1, place).squeeze(1)
        # below 0 there is no question: the symbol before the first one is blank
        item = (time - of("questions_at")).clamp(min=-1, max=env.num_items - 1)
        return {"observation": torch.where(is_cue, cue, env.blank + 1 + item)}

    def _draw(self, bits: Int64[Tensor, "n draws"]) -> dict[str, Tensor]:
        """Draw episodes: the delay, and of each cue its value, its gap and its place."""
        env = self.prototype
        delay = self._delays[scaled(bits[:, 0], len(env.delays))]
        values, gaps, ranks = bits[:, 1:].chunk(3, dim=1)  # (n, N) each
        values = scaled(values, NUM_VALUES)
        steps = 1 + scaled(gaps, env.max_gap + 1)  # from each cue to the next
        cue_times = steps.cumsum(1) - steps
        symbols = last_values = values
        if env.num_shows > 1:
            order = ranks.argsort(1)  # which cue each place shows
            kinds = order // env.num_shows
            symbols = NUM_VALUES * kinds + values
            places = order.argsort(1).unflatten(1, (env.num_items, env.num_shows))
            last_values = values.gather(1, places.amax(2))  # (n, K)
        return {
            "time": torch.zeros_like(delay),
            "cue_times": cue_times,
            "cue_symbols": symbols,
            "questions_at": cue_times[:, -1] + 1 + delay,
            "answers": (last_values << self._shifts).sum(1),
            "is_success": torch.ones_like(delay, dtype=torch.bool),
        }

    def _numbers_of(self, env: RecallEnv) -> Mapping[str, Any]:
        names = ("time", "cue_times", "cue_symbols", "questions_at", "is_success")
        return {name: getattr(env, name) for name in names} | {"answers": env.answers_as_number}
