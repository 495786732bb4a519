"""What a run writes for TensorBoard."""

from __future__ import annotations

import json
import math
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import numpy as np

from agents import ranks
from agents.cores.core import CORES, core_config
from mtxl_rl.config import Memory, TrainConfig
from mtxl_rl.config.json_form import to_json
from mtxl_rl.runs.metrics import RETURN_TAG, SUCCESS_TAG, Episodes, Evaluation
from mtxl_rl.runs.tags import COMPARED, TAGS

if TYPE_CHECKING:  # a second of imports
    from torch.utils.tensorboard.writer import SummaryWriter

_EVENTS = "events.out.tfevents"


class RunLogger:
    """Writes TensorBoard events into a run directory.

    Where that fails there is one warning, and nothing more is written; by ranks but the first
    nothing is.

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
        if not ranks.is_first():
            return
        from torch.utils.tensorboard.summary import hparams
        from torch.utils.tensorboard.writer import SummaryWriter

        # the first start is written, too: readers take a second one only as that of a resumed run
        purge_step = 0 if go_on_from is None else go_on_from + 1
        with self._one_warning():
            _put_before_now(run_dir)
            self._writer = SummaryWriter(str(run_dir), purge_step=purge_step)
            text = json.dumps(to_json(config), indent=2)
            self._writer.add_text("config", f"```json\n{text}\n```")
            *start, self._end = hparams(_columns(config), dict.fromkeys(COMPARED))
            for summary in start:
                self._writer._get_file_writer().add_summary(summary)

    def log(self, scalars: dict[str, float], frames: int) -> None:
        """Write scalars by tag, with what each is; values that are not finite are left out."""
        from torch.utils.tensorboard.summary import scalar

        with self._one_warning():
            for tag, value in scalars.items():
                if self._writer is None or not math.isfinite(value):
                    continue
                summary = scalar(tag, value, new_style=True)  # the old one has no description
                summary.value[0].metadata.summary_description = TAGS.get(tag, "")
                self._writer._get_file_writer().add_summary(summary, frames)

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
            results = {
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
            self.log({tag: _or_nan(value) for tag, value in results.items()}, frames)
            with self._one_warning():
                if self._writer is not None:
                    self._writer._get_file_writer().add_summary(self._end)
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
        from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread

        is_writer = isinstance(failed.thread, _AsyncWriterThread)
        if not (is_writer and issubclass(failed.exc_type, OSError)):
            self._hook(failed)


def _put_before_now(run_dir: Path) -> None:
    """Let the events of before sort before those to come where the clock has gone back.

    Readers take a run's files in the order of their names, which begin with a time in seconds.
    """
    parts = [path.name.split(".", 4) for path in sorted(run_dir.glob(f"{_EVENTS}.*.*"))]
    now = int(time.time())
    if any(int(stamp) >= now for *_, stamp, _ in parts if stamp.isdecimal()):
        for number, (*_, stamp, rest) in enumerate(parts):
            new = f"{_EVENTS}.{now - len(parts) + number:010d}.{rest}"
            (run_dir / f"{_EVENTS}.{stamp}.{rest}").rename(run_dir / new)


def _columns(config: TrainConfig) -> dict[str, bool | int | float | str]:
    """Return the options as columns of HPARAMS: the same of every run, each of one type."""
    columns: dict[str, bool | int | float | str] = {}
    # what a core does not have is as another core has it left out
    cores = [("core.", core_config(kind)) for kind in CORES]
    for prefix, part in (("", config), *cores, ("core.", config.core), ("ppo.", config.ppo)):
        for name, kind in get_type_hints(type(part)).items():
            value = getattr(part, name)
            if not is_dataclass(value):
                columns[prefix + name] = value if kind in (bool, int, float) else str(value)
    return columns


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
