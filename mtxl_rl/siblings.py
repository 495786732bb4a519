"""Imported first by each command: `agents`, `envs` and `experiments` are those beside `mtxl_rl`.

Python looks for them in the folder it is started in first, where a user may have an `envs` of the
user's own.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("agents", "envs", "experiments")


def _place(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def put_first() -> None:
    """Let Python look beside this package first, where it would find others of these names."""
    others = [name for name in NAMES if _place(name) != ROOT / name]
    if others:
        sys.path.insert(0, str(ROOT))
        importlib.invalidate_caches()


put_first()
