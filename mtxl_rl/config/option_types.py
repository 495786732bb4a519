"""What options may be: JSON objects, counts and paths, which tyro alone does not read; types."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import numpy as np
import tyro

Wrap = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
LARGEST_COUNT = 10**18
_UNITS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}


def read_kwargs(text: str) -> dict[str, Any]:
    """Return the arguments that the text of a JSON object names.

    Raises:
        ValueError: for any other text.
    """

    def refuse(number: str) -> None:
        raise ValueError(f"{number} is no number of JSON")

    try:
        values = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise ValueError(
            f"env_kwargs={text!r} is not JSON ({error}); write it like "
            "--env-kwargs '{\"memory_length\": 10}'"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"env_kwargs={text!r} must be an object; write it like "
            "--env-kwargs '{\"memory_length\": 10}'"
        )
    return values


def read_count(text: str) -> int:
    """Return a whole number as one types it: 1000000, 1_000_000, 1e6, 1M or 500k.

    Raises:
        ValueError: for any other text.
    """
    what = "no whole number"
    with suppress(ArithmeticError):
        value = Decimal(text[:-1]) * _UNITS[text[-1:]] if text[-1:] in _UNITS else Decimal(text)
        if value.is_finite() and value == value.to_integral_value():
            if abs(value) < LARGEST_COUNT:
                return int(value)
            what = "too large a number"
    raise ValueError(f"{text!r} is {what}; write it like 1000000, 1e6, 1M or 500k")


def read_place(text: str) -> Path:
    """Return a path, its ~ read as the shell does where it stands alone: --run-dir=~/runs/x."""
    return Path(os.path.expanduser(text))


def from_plain(value: Any, kind: Any, name: str) -> Any:
    """Return a value of JSON, or one that a person wrote in Python, as one of `kind`.

    Raises:
        ValueError: for one that is no such thing, naming the option.
    """
    if dataclasses.is_dataclass(kind):
        if isinstance(value, cast(type, kind)):
            return value
        raise ValueError(f"{name}={value!r} must be a {cast(type, kind).__name__}; pass one")
    if isinstance(value, np.generic):  # one number or text of NumPy's
        value = value.item()
    try:
        return msgspec.convert(value, kind, dec_hook=lambda other, plain: other(plain))
    except (msgspec.ValidationError, TypeError) as error:
        words = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        raise ValueError(f"{name}={value!r} must be {words}: {error}") from None


def _one(
    metavar: str,
    read: Callable[[str], Any],
    is_instance: Callable[[Any], bool],
    write: Callable[[Any], str] = str,
) -> tyro.constructors.PrimitiveConstructorSpec:
    """Return how tyro reads one text, and writes it."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: read(texts[0]),
        is_instance=is_instance,
        str_from_instance=lambda value: [write(value)],
    )


Kwargs = Annotated[
    dict, _one("JSON", read_kwargs, lambda value: isinstance(value, dict), json.dumps)
]
Count = Annotated[int, _one("INT", read_count, lambda value: type(value) is int)]
Place = Annotated[Path, _one("PATH", read_place, lambda value: isinstance(value, Path))]
