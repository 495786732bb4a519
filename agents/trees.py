"""Tensors in nested tuples, dicts and dataclasses, taken one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def map_tensors(fn: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Apply `fn` to each tensor of `first` and those at the same place of `others`.

    What is no tensor (numbers, None) is kept from `first`.
    """
    if isinstance(first, Tensor):
        return fn(first, *others)
    if isinstance(first, dict):
        return {name: map_tensors(fn, first[name], *(o[name] for o in others)) for name in first}
    if isinstance(first, tuple):
        parts = [map_tensors(fn, *places) for places in zip(first, *others, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if is_dataclass(first) and not isinstance(first, type):
        changed = {
            name: map_tensors(fn, getattr(first, name), *(getattr(o, name) for o in others))
            for name in (field.name for field in fields(first))
        }
        return replace(first, **changed)
    return first
