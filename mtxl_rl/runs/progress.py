"""The progress of training: a live bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import math
import sys
import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from agents import ranks

LINE_SECONDS = 10.0


class Progress:
    """Shows frames, frames/s, success rate, return and time left, whole in 80 columns."""

    def __init__(self, total_frames: int):
        self._total_frames = total_frames
        self._console = Console(quiet=not ranks.is_first())
        self._last_line = time.monotonic()
        self._bar = RichProgress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),  # what the text leaves
            console=self._console,
            disable=not self._console.is_terminal or self._console.quiet,
            expand=True,
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
            f"{count(frames)} of {count(self._total_frames)} frames  {speed:,.0f}/s  "
            f"success {_number(success_rate)}  return {_number(mean_return)}  "
            f"left {clock((self._total_frames - frames) / speed)}"
        )
        self._bar.update(self._task, completed=frames, description=text)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= LINE_SECONDS:
            say(text)
            self._last_line = time.monotonic()


class Ticker:
    """A line on stderr every ten seconds, of work whose end nobody knows."""

    def __init__(self):
        self.what = ""
        self._last_line = time.monotonic()

    def show(self, step: int) -> None:
        """Show at which step of `what` it is."""
        if time.monotonic() - self._last_line >= LINE_SECONDS:
            print(f"{self.what}, step {step:,}", file=sys.stderr, flush=True)
            self._last_line = time.monotonic()


def say(text: str) -> None:
    """Print a line; where it cannot be written, to a full disk or a closed pipe, it is lost.

    The first rank speaks for all.
    """
    if ranks.is_first():
        with suppress(OSError):
            print(text, flush=True)


def count(number: int) -> str:
    """Return a number of frames in three digits or so: 512, 2k, 131k, 1.31M, 10M, 2.5G."""
    if number < 1000:
        return str(number)
    if number < 999_500:
        return f"{number / 1e3:.0f}k"
    size, unit = (10**6, "M") if number < 999_500_000 else (10**9, "G")
    return f"{number / size:.2f}".rstrip("0").rstrip(".") + unit


def clock(seconds: float) -> str:
    """Return a time as 03:04, 02:03:04 or, from a day on, 1d 02h."""
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}h"
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}".removeprefix("00:")


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.2e}"
