"""A way around compiled functions, for shapes that nothing was compiled for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run what was compiled as it was written; a context, or a decorator."""
    if "torch._dynamo" not in sys.modules:  # nothing was; to ask takes a second, for its import
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
