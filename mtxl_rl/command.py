"""How a command ends: bad input is one line on stderr and exit code 2, what fails later is 1."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from envs.guarded_env import EnvError
from mtxl_rl.signals import Stopped


class RunFailed(Exception):  # noqa: N818
    """A run has failed after it began; the message says what is left of it."""


@contextmanager
def fail_with_one_line() -> Iterator[None]:
    """Turn errors that are the user's, the environment's or the disk's into one line."""
    try:
        yield
    except (ValueError, RunFailed, EnvError, OSError) as error:
        if os.environ.get("MTXL_RL_TRACEBACK"):
            raise
        # spaces, and what others raise, have lines of their own
        print("error:", *map(str.strip, str(error).splitlines()), file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError) else 1)
    except Stopped as stopped:
        print(f"{stopped}; what was trained is in the run's last checkpoint", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        print("interrupted; what was trained is in the run's last checkpoint", file=sys.stderr)
        sys.exit(130)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send to stderr what is printed to stdout within, by Python or by a library in C."""
    _flush_stdout()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush_stdout()
        os.dup2(saved, 1)
        os.close(saved)


def _flush_stdout() -> None:
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
