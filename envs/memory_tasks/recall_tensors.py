"""Recall as tensors: `recall.RecallEnv` in thousands. Shapes: B envs, N cues, K items.

An episode is a few numbers, drawn when it starts: which cue is shown at which of N times, the
answers, and when the questions come. What a step shows follows from its time, so that a delay of a
million steps takes no more memory than one of six.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.batched_env import Observation
from envs.counter_random import CounterRandom, scaled
from envs.memory_tasks.recall import NUM_VALUES, RecallEnv
from envs.tensor_env import StepEnd, TensorEnv

OPTIONS = ("delays", "num_items", "max_gap", "num_shows")


class RecallTensorEnv(TensorEnv[RecallEnv]):
    """B environments of the recall task."""

    has_cue = True
    action_names = tuple(f"answer {value}" for value in range(NUM_VALUES))
    success_info = "is_success"

    def _make_prototype(self, env_class: Any, options: dict[str, Any]) -> RecallEnv:
        return env_class(**options)

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        env = self.prototype
        self._delays = torch.tensor(env.delays, device=self.device)
        self._shifts = torch.arange(env.num_items, device=self.device)
        # held, not made in a step: inductor cannot multiply indices by 64-bit constants
        self._branches = torch.arange(1 + 3 * env.num_cues, device=self.device)
        self._levels: dict[str, Tensor] = {}
        if level_seeds is not None:
            self._levels = _read([_reset(env, seed) for seed in level_seeds], self.device)
        empty = _read([_reset(env, 0)], self.device)
        self._buffers |= {
            name: value.repeat_interleave(self.num_envs, dim=0) for name, value in empty.items()
        }

    def load(self, gym_envs: Sequence[RecallEnv]) -> Observation:
        self._check_loadable(gym_envs)
        for env in gym_envs:
            for name in OPTIONS:
                theirs, ours = getattr(env, name), getattr(self.prototype, name)
                if theirs != ours:
                    raise ValueError(
                        f"load was given a RecallEnv with {name}={theirs}, but this batch has "
                        f"{name}={ours}; pass environments of the same id and options"
                    )
        for name, value in _read(gym_envs, self.device).items():
            self._buffers[name].copy_(value)
        self._has_episodes = True
        return self._observe()

    def render(self, index: int) -> np.ndarray:
        raise ValueError(
            f"index={index}: Recall draws no pictures; use an environment that does, such as "
            "mtxl/TMaze10-v0"
        )

    def _prepare_episodes(self) -> None:
        """Nothing is drawn ahead."""

    def _has_episode(self, env: RecallEnv) -> bool:
        return env.has_episode

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

    def _first_state(self, rows: Int64[Tensor, " n"]) -> dict[str, Tensor]:
        episode = self._buffers["episode"][rows]
        if self._levels:
            number = self._level_in_turn(rows, episode, len(self._levels["time"]))
            return {name: value.index_select(0, number) for name, value in self._levels.items()}
        random = CounterRandom(self._keys[rows].unsqueeze(1), episode.unsqueeze(1))
        return self._draw(random.split(self._branches).bits())

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


def _reset(env: RecallEnv, seed: int) -> RecallEnv:
    """Return a copy of an environment that is at the start of an episode."""
    env.reset(seed=int(seed))
    return copy(env)


def _read(gym_envs: Sequence[RecallEnv], device: torch.device) -> dict[str, Tensor]:
    """Return the episodes of Gymnasium environments as they are in the buffers."""
    episodes = [
        {
            "time": env.time,
            "cue_times": env.cue_times,
            "cue_symbols": env.cue_symbols,
            "questions_at": env.questions_at,
            "answers": env.answers_as_number,
            "is_success": env.is_success,
        }
        for env in gym_envs
    ]
    return {
        name: torch.tensor([episode[name] for episode in episodes], device=device)
        for name in episodes[0]
    }
