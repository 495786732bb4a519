"""What a run writes for TensorBoard."""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard.writer import SummaryWriter

from mtxl_rl.config import Memory, TrainConfig, flat, to_json
from mtxl_rl.metrics import RETURN_TAG, SUCCESS_TAG, Episodes, Evaluation


class RunLogger:
    """Writes TensorBoard events into a run directory.

    Where that fails there is one warning, and nothing more is written.

    Args:
        run_dir: where.
        config: of the run.
        go_on_from: frames from which a resumed run goes on; points after that are not shown.
    """

    def __init__(self, run_dir: Path, config: TrainConfig, go_on_from: int | None = None):
        self._config = config
        self._run_dir = run_dir
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook
        threading.excepthook = self._pass_over_writers
        with self._one_warning():
            purge_step = None if go_on_from is None else go_on_from + 1
            self._writer = SummaryWriter(str(run_dir), purge_step=purge_step)
            text = json.dumps(to_json(config), indent=2)
            self._writer.add_text("config", f"```json\n{text}\n```")

    def log(self, scalars: dict[str, float], frames: int) -> None:
        """Write scalars by tag; values that are not finite are left out."""
        with self._one_warning():
            for tag, value in scalars.items():
                if self._writer is not None and math.isfinite(value):
                    self._writer.add_scalar(tag, value, frames)

    def log_episodes(self, episodes: Episodes, frames: int) -> None:
        """Write the means of the episodes that ended."""
        if len(episodes.length):
            scalars = {
                SUCCESS_TAG: _or_nan(episodes.success_rate),
                RETURN_TAG: float(episodes.return_.mean()),
                "charts/episodic_length": float(episodes.length.mean()),
            }
            saw_cue = episodes.saw_cue
            if not np.isnan(episodes.cue_age).any():
                scalars["cue/seen_rate"] = len(saw_cue.length) / len(episodes.length)
            if len(saw_cue.length):
                scalars["cue/success_rate_if_seen"] = _or_nan(saw_cue.success_rate)
                scalars["cue/steps_since_seen"] = float(saw_cue.cue_age.mean())
            self.log(scalars, frames)

    def flush(self) -> None:
        """Let the disk have what was logged."""
        with self._one_warning():
            if self._writer is not None:
                self._writer.flush()

    def close(
        self,
        evaluation: Evaluation | None = None,
        intervened: Mapping[Memory, Evaluation] | None = None,
        frames: int = 0,
    ) -> None:
        """Write the evaluations beside the hyperparameters, and close; again: do nothing."""
        if evaluation is not None and self._writer is not None:
            results: dict[str, Any] = {
                "eval/success_rate": evaluation.success_rate,
                "eval/mean_return": evaluation.mean_return,
                "eval/mean_length": evaluation.mean_length,
                "eval/cue_seen_rate": evaluation.cue_seen_rate,
                "eval/success_rate_cue_seen": evaluation.success_rate_cue_seen,
                "eval/mean_cue_age": evaluation.mean_cue_age,
            }
            for memory, each in (intervened or {}).items():
                results[f"eval_intervened/success_rate_{memory}"] = each.success_rate
                results[f"eval_intervened/mean_return_{memory}"] = each.mean_return
            results = {tag: value for tag, value in results.items() if value is not None}
            options = {
                name: value if isinstance(value, bool | int | float | str) else str(value)
                for name, value in flat(self._config).items()
            }
            with self._one_warning():
                self._writer.add_hparams(options, results, run_name=".", global_step=frames)
        writer, self._writer = self._writer, None
        with self._one_warning():
            if writer is not None:
                writer.close()
        threading.excepthook = self._hook

    @contextmanager
    def _one_warning(self) -> Iterator[None]:
        """Stop writing where it fails, and say so."""
        try:
            yield
        except OSError as error:
            self._writer = None
            warnings.warn(
                f"no curves from now on: TensorBoard's events cannot be written into "
                f"{self._run_dir}: {error}. Training goes on",
                RuntimeWarning,
                stacklevel=4,
            )

    def _pass_over_writers(self, failed: threading.ExceptHookArgs) -> None:
        """Leave to `_one_warning` what TensorBoard's thread fails of: it raises that again."""
        is_writer = isinstance(failed.thread, _AsyncWriterThread)
        if not (is_writer and issubclass(failed.exc_type, OSError)):
            self._hook(failed)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
