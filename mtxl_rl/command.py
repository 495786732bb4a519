"""How a command ends: bad input is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mtxl_rl.signals import Stopped


@contextmanager
def fail_with_one_line() -> Iterator[None]:
    """Turn a ValueError into one line, and an interruption into exit code 130."""
    try:
        yield
    except ValueError as error:
        if os.environ.get("MTXL_RL_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(f"{stopped}; what was trained is in the run's last checkpoint", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        print("interrupted; what was trained is in the run's last checkpoint", file=sys.stderr)
        sys.exit(130)
