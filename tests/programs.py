"""Programs that tests run in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def output_of(program: str) -> str:
    """Run a program from the root, without jaxtyping's checks; return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
