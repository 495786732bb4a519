"""Programs that tests run in a process of their own: without jaxtyping's checks, to be killed.

Each is a module with a `main`; `output_of("name")` runs it to its end, `started("name")` while the
test goes on, `started_module` a command of ours. All run at the root, with the modules of
`tests/helpers` importable.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).parents[1]
ROOT = HELPERS.parents[1]


def output_of(program: str, *arguments: Any) -> str:
    """Return what a program prints; it must succeed."""
    process = started(program, *arguments, stderr=subprocess.PIPE)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def started(program: str, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Start a program, by default with stdout as a pipe; `options` are Popen's."""
    return started_module(f"programs.{program}", *arguments, **options)


def started_module(module: str, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Start `python -m module` as `started` does."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        **{"cwd": ROOT, "text": True, "stdout": subprocess.PIPE,
           "env": os.environ | {"PYTHONPATH": str(HELPERS), "PYTHONUNBUFFERED": "1"}} | options,
    )  # fmt: skip
