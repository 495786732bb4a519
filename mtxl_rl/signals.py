"""Signals that ask a run to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType

from agents import ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

_STOPPING = b"stopping: the update in progress is finished and saved; a second one ends at once\n"


def heeded() -> list[signal.Signals]:
    """Return those of `SIGNALS` to listen to: SIGHUP stays ignored where nohup has said so."""
    is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if not (is_kept and number == signal.SIGHUP)]


class Stopped(Exception):  # noqa: N818
    """A signal has ended the run; `exit_code` says which, and `left` what there is of the run."""

    def __init__(self, signal_number: int, left: str = ""):
        super().__init__(signal_number, left)
        self.left = left
        self._name = signal.Signals(signal_number).name
        is_interrupt = signal_number == signal.SIGINT
        self.exit_code = 128 + (signal.SIGINT if is_interrupt else signal.SIGTERM)

    def __str__(self) -> str:
        return "; ".join(filter(None, (f"stopped by {self._name}", self.left)))


class StopSignals:
    """While it is entered, the first signal is remembered for `check`; a second exits at once.

    But not a second SIGHUP: a terminal that is closed sends one, and so does its shell. Nor one to
    one of several ranks, to which torchrun hands on what its group has got already; it kills them
    by itself.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # others cannot handle signals
            for number in heeded():
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # torchrun ends all ranks with the first that ends, and each has last words
        is_ending = kind is not None and ranks.size() > 1
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if is_ending else handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise Stopped if a signal has come, to any rank."""
        for received in ranks.gather_objects(self._received):
            if received is not None:
                raise Stopped(received)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            if ranks.is_first():
                with contextlib.suppress(OSError):  # print is not for handlers of signals
                    os.write(2, _STOPPING)
        elif number != signal.SIGHUP and ranks.size() == 1:
            os._exit(Stopped(number).exit_code)
