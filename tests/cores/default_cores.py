"""Cores whose one option has a default that is, or is not, of its type."""

import math
from dataclasses import dataclass
from typing import Literal

from agents.cores import BaselineCore, CoreConfig


def made(kind, value):
    body = {"__annotations__": {"size": kind}, "size": value}
    config = dataclass(frozen=True, kw_only=True)(type("Config", (CoreConfig,), body))
    return type("Core", (BaselineCore,), {"Config": config})


NoInt = made(int, None)
Text = made(int, "seven")
Half = made(int, 0.5)
True_ = made(int, True)
NoChoice = made(Literal["a", "b"], "c")
Share = made(Literal[0.5, 3], 3)
Pair = made(tuple[int, int], (1, 2, 3))
Texts = made(tuple[int, ...], ("1",))
Nan = made(float, math.nan)
Other = made(float | None, math)
Whole = made(float, 1)
Endless = made(float, math.inf)
Choice = made(Literal["a", "b"] | None, None)
Three = made(tuple[int | str, ...], (1, "a"))
Nested = made(tuple[tuple[int, int], ...], ((1, 2),))
Large = made(int, 2**70)
