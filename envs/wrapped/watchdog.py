"""A clock for what may hang: first an exception, and where that does not help, the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_SECONDS = 5.0
"""From the exception to the end of the process."""


class TookTooLong(Exception):  # noqa: N818
    """What was watched has not ended in time."""


class Watchdog:
    """Watches calls of the main thread: `with watchdog.handler(): ... begin(); call(); end()`.

    A call that takes longer than `seconds` is interrupted by TookTooLong. One that cannot be, in a
    library that never returns to Python, ends the process with exit code 1 after `GRACE_SECONDS`
    more, if it lets other threads run. Time in which the whole process was stopped does not count.

    Args:
        seconds: how long a call may take; None: as long as it likes.
        ends_process: whether to end the process where an exception does not help. Left out where
            another process does.
    """

    def __init__(self, seconds: float | None, ends_process: bool = True):
        self.seconds = seconds
        self.ends_process = ends_process
        self.what = ""  # the call, for people
        self.clock = 0.0  # seconds, as the watching thread counts them
        self._began: float | None = None
        self._close = threading.Event()
        is_main = threading.current_thread() is threading.main_thread()  # others get no signals
        self.is_on = seconds is not None and is_main and hasattr(signal, "SIGALRM")
        if self.is_on:
            arguments = (weakref.ref(self), self._close)
            threading.Thread(target=_watch, args=arguments, daemon=True).start()

    @contextmanager
    def handler(self) -> Iterator[None]:
        """Let the calls within be interrupted."""
        if not self.is_on:
            yield
            return
        before = self.listen()
        try:
            yield
        finally:
            self._began = None
            signal.signal(signal.SIGALRM, before)

    def listen(self) -> Any:
        """Let calls be interrupted from now on; return the handler of before."""
        return signal.signal(signal.SIGALRM, self._interrupt) if self.is_on else None

    def begin(self) -> None:
        """A call begins."""
        self._began = self.clock

    def end(self) -> None:
        """It has ended."""
        self._began = None

    def close(self) -> None:
        """Watch no more."""
        self._close.set()

    @property
    def overdue_seconds(self) -> float:
        """How long the call in progress has taken beyond what it may."""
        began = self._began
        if began is None or self.seconds is None:
            return -1.0
        return self.clock - began - self.seconds

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        if self.overdue_seconds > 0:
            raise TookTooLong(f"it has not ended after {self.seconds:g} s")


def _watch(watched: weakref.ref[Watchdog], closed: threading.Event) -> None:
    """Look at the clock until `closed`, or until there is nothing to watch any more."""
    is_interrupted = False
    looked = time.monotonic()
    while (watchdog := watched()) is not None and not closed.is_set():
        assert watchdog.seconds is not None
        interval = min(1.0, watchdog.seconds / 4)
        now = time.monotonic()
        watchdog.clock += min(now - looked, 2 * interval)  # longer: the process was stopped
        looked = now
        overdue = watchdog.overdue_seconds
        if overdue > GRACE_SECONDS and watchdog.ends_process:
            print(f"error: {watchdog.what} has not ended after {watchdog.seconds:g} s and cannot "
                  "be interrupted: the process ends. The run's last checkpoint is kept",
                  file=sys.stderr, flush=True)  # fmt: skip
            os._exit(1)
        if overdue > 0 and not is_interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        is_interrupted = overdue > 0
        del watchdog
        closed.wait(interval)
