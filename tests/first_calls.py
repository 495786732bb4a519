"""Check types and shapes in the first calls of each function in each test.

A run calls the same few functions tens of thousands of times, and the checks take half of its time.
jaxtyping's pytest plugin takes `check` as its type checker (pyproject.toml), and tests/conftest.py
begins anew before each test.
"""

from __future__ import annotations

import functools
import inspect
import random
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from beartype import beartype

NUM_CHECKED = 30
"""Calls of a function in a test."""

_checks: Counter[tuple[str, str]] = Counter()
_resting: list[Any] = []


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return jaxtyping's stand-in for a function, with checks, and an end to them."""
    checked = beartype(function)
    name = (function.__module__, function.__qualname__)

    @functools.wraps(checked)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _checks[name] += 1
        if _checks[name] == 2 * NUM_CHECKED:  # the arguments, and then again with what is returned
            _rest(*name)
        drawn = random.getstate()  # of lists beartype checks an item that it draws
        try:
            return checked(*args, **kwargs)
        finally:
            random.setstate(drawn)

    return counted


def begin_anew() -> None:
    """Check again what has been checked often enough."""
    _checks.clear()
    while _resting:
        del _resting.pop().__no_type_check__


def _rest(module: str, qualname: str) -> None:
    """Let a function be called as it is."""
    found: Any = sys.modules[module]
    for part in qualname.split("."):
        found = inspect.getattr_static(found, part, None)  # nothing within a function is found
    if isinstance(found, property):
        found = found.fget
    found = getattr(found, "__func__", found)  # of a class method
    if inspect.isfunction(found):
        found.__no_type_check__ = True  # type: ignore[attr-defined]
        _resting.append(found)
