"""What is measured: episodes that ended, evaluations, and their way into TensorBoard."""

from __future__ import annotations

import json
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch.utils.tensorboard.writer import SummaryWriter

from agents.rollout import Rollout
from mtxl_rl.config import TrainConfig, flat, to_json

WINDOW = 1000
"""Episodes over which the progress display and --stop-at-success average."""


@dataclass(frozen=True)
class Episodes:
    """Episodes that ended, one entry each."""

    success: np.ndarray  # 1.0 or 0.0; nan where the environment does not define it
    return_: np.ndarray  # sum of rewards
    length: np.ndarray  # steps


def ended_episodes(rollout: Rollout, has_success: bool) -> Episodes:
    """Return the episodes that ended within a rollout, in the order of time."""
    done = rollout.terminated | rollout.truncated
    columns = torch.stack(
        (rollout.success.float(), rollout.episode_return, rollout.episode_length.float()), dim=-1
    )
    success, return_, length = columns[done].double().cpu().numpy().T
    return Episodes(success if has_success else np.full_like(success, np.nan), return_, length)


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation; success is None where the environment does not define it."""

    episodes: int
    success_rate: float | None
    success_interval: tuple[float, float] | None  # Wilson's, 95 %
    mean_return: float
    mean_length: float

    @classmethod
    def of(cls, episodes: Episodes) -> Evaluation:
        """Summarise episodes."""
        num_episodes = len(episodes.success)
        rate = interval = None
        if num_episodes and not np.isnan(episodes.success).any():
            num_successes = int(episodes.success.sum())
            bounds = binomtest(num_successes, num_episodes).proportion_ci(method="wilson")
            rate = num_successes / num_episodes
            interval = (round(float(bounds.low), 4), round(float(bounds.high), 4))
        return cls(
            episodes=num_episodes,
            success_rate=rate,
            success_interval=interval,
            mean_return=float(episodes.return_.mean()),
            mean_length=float(episodes.length.mean()),
        )

    def describe_success(self) -> str:
        """Return the success rate with its interval, for people."""
        if self.success_rate is None or self.success_interval is None:
            return "not defined by this environment"
        low, high = self.success_interval
        return f"{self.success_rate:.3f}  (95 % interval {low:.3f} to {high:.3f})"


class EpisodeWindow:
    """The last episodes that ended."""

    def __init__(self, size: int = WINDOW):
        self._rows: deque[tuple[float, float]] = deque(maxlen=size)

    def add(self, episodes: Episodes) -> None:
        """Append episodes."""
        self._rows.extend(zip(episodes.success, episodes.return_, strict=True))

    @property
    def is_full(self) -> bool:
        """Whether the window holds as many episodes as it can."""
        return len(self._rows) == self._rows.maxlen

    @property
    def success_rate(self) -> float:
        """Mean success; nan without episodes or where it is not defined."""
        return self._mean(0)

    @property
    def mean_return(self) -> float:
        """Mean return; nan without episodes."""
        return self._mean(1)

    def _mean(self, column: int) -> float:
        return float(np.mean([row[column] for row in self._rows])) if self._rows else math.nan


class RunLogger:
    """Writes TensorBoard events into a run directory."""

    def __init__(self, run_dir: Path, config: TrainConfig):
        self._config = config
        self._writer = SummaryWriter(str(run_dir))
        text = json.dumps(to_json(config), indent=2)
        self._writer.add_text("config", f"```json\n{text}\n```")

    def log(self, scalars: dict[str, float], frames: int) -> None:
        """Write scalars by tag; values that are not finite are left out."""
        for tag, value in scalars.items():
            if math.isfinite(value):
                self._writer.add_scalar(tag, value, frames)

    def log_episodes(self, episodes: Episodes, frames: int) -> None:
        """Write the means of the episodes that ended."""
        if len(episodes.length):
            scalars = {
                "charts/success_rate": float(episodes.success.mean()),
                "charts/episodic_return": float(episodes.return_.mean()),
                "charts/episodic_length": float(episodes.length.mean()),
            }
            self.log(scalars, frames)

    def close(self, evaluation: Evaluation | None, frames: int) -> None:
        """Write the evaluation beside the hyperparameters, and close."""
        if evaluation is not None:
            results: dict[str, Any] = {
                "eval/success_rate": evaluation.success_rate,
                "eval/mean_return": evaluation.mean_return,
                "eval/mean_length": evaluation.mean_length,
            }
            results = {tag: value for tag, value in results.items() if value is not None}
            options = {
                name: value if isinstance(value, bool | int | float | str) else str(value)
                for name, value in flat(self._config).items()
            }
            self._writer.add_hparams(options, results, run_name=".", global_step=frames)
        self._writer.close()
