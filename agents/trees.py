"""Tensors in nested tuples, dicts and dataclasses, taken one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
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


def named_tensors(tree: Any, name: str) -> dict[str, Tensor]:
    """Return the tensors of `tree`, and its whole numbers as tensors, by the path to them."""
    if isinstance(tree, Tensor):
        return {name: tree}
    if isinstance(tree, int):
        return {name: torch.tensor(tree)}
    named: dict[str, Tensor] = {}
    for key, part in _parts(tree):
        named |= named_tensors(part, f"{name}.{key}")
    return named


def with_tensors(tree: Any, named: Mapping[str, Tensor], name: str) -> Any:
    """Return `tree` with the tensors that `named_tensors` has named.

    Raises:
        ValueError: for one that is missing or has another shape or dtype than that of `tree`.
    """
    if isinstance(tree, Tensor | int):
        old = torch.as_tensor(tree)
        new = named.get(name)
        if new is None or new.shape != old.shape or new.dtype != old.dtype:
            found = "missing" if new is None else f"{tuple(new.shape)} {new.dtype}"
            raise ValueError(f"{name} is {found}, not {tuple(old.shape)} {old.dtype}")
        return new.clone() if isinstance(tree, Tensor) else int(new)
    changed = {key: with_tensors(part, named, f"{name}.{key}") for key, part in _parts(tree)}
    if isinstance(tree, dict):
        return changed
    if isinstance(tree, tuple):
        values = changed.values()
        return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)
    return replace(tree, **changed) if changed else tree


def _parts(tree: Any) -> list[tuple[str, Any]]:
    """Return what a dict, tuple or dataclass holds, by name or place; of anything else nothing."""
    if isinstance(tree, dict):
        return list(tree.items())
    if isinstance(tree, tuple):
        names = getattr(tree, "_fields", range(len(tree)))
        return [(str(name), part) for name, part in zip(names, tree, strict=True)]
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in fields(tree)]
    return []
