"""The progress of training: a live bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LINE_SECONDS = 10.0


class Progress:
    """Shows frames, frames/s, success rate, return and time left."""

    def __init__(self, total_frames: int):
        self._total_frames = total_frames
        self._console = Console()
        self._last_line = time.monotonic()
        self._bar = RichProgress(
            BarColumn(),
            TextColumn("{task.description}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=total_frames)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def end_at(self, total_frames: int) -> None:
        """Expect the end after `total_frames` from now on."""
        self._total_frames = total_frames
        self._bar.update(self._task, total=total_frames)

    def show(self, frames: int, speed: float, success_rate: float, mean_return: float) -> None:
        """Show where training is; nan is shown as a dash."""
        text = (
            f"{frames / 1e6:.2f}M of {self._total_frames / 1e6:.2f}M frames  {speed:,.0f} frames/s"
            f"  success {_number(success_rate)}  return {_number(mean_return)}"
        )
        self._bar.update(self._task, completed=frames, description=text)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= LINE_SECONDS:
            left = (self._total_frames - frames) / speed
            say(f"{text}  left {left / 60:.1f} min")
            self._last_line = time.monotonic()


def say(text: str) -> None:
    """Print a line; where it cannot be written, to a full disk or a closed pipe, it is lost."""
    with suppress(OSError):
        print(text, flush=True)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
