"""Imported first by what a user starts: `agents` and `envs` are those beside `mtxl_rl`.

Python looks for them in the folder it is started in first, where a user may have an `envs` of the
user's own. `experiments` runs this file by its path: it imports the standard library only.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("agents", "envs")


def _place(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def put_first() -> None:
    """Let Python look beside this package first, where it would find others of these names.

    Raises:
        ValueError: where another one has been imported before.
    """
    others = [name for name in NAMES if _place(name) != ROOT / name]
    for name in others:
        if name in sys.modules:
            raise ValueError(
                f"{name!r} is here the package {_place(name)}, which was imported before that of "
                "mtxl-rl; rename it, or use mtxl-rl in a program of its own"
            )
    if others:
        sys.path.insert(0, str(ROOT))
        importlib.invalidate_caches()


put_first()
