"""What a user names as module:Name."""

from __future__ import annotations

import difflib
import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class OwnError(ValueError):
    """What a user's class has raised, under its name."""


@contextmanager
def made_by(name: str, option: str) -> Iterator[None]:
    """Turn whatever a user's "module:Name" raises within into an `OwnError`; not what is ours."""
    if ":" not in name:
        yield
        return
    try:
        yield
    except OwnError:
        raise
    except (Exception, SystemExit) as error:
        raise OwnError(
            f"{option}={name!r} cannot be made: {words_of(error)}; mend it, or change its options"
        ) from error


def words_of(error: BaseException) -> str:
    """Return what was raised in one line; of an assertion that says nothing, its own."""
    frames = traceback.extract_tb(error.__traceback__)
    said = str(error) or (frames[-1].line if frames else "")
    return " ".join(f"{type(error).__name__}: {said or ''}".split()).rstrip(":")


def find_named(name: str, option: str) -> Any:
    """Import a module and return what it holds.

    Args:
        name: "module:Name".
        option: by which it was given, for messages.

    Raises:
        ValueError: for a module that cannot be imported, or a name that it does not have.
    """
    module, _, attribute = name.rpartition(":")
    if not module or not attribute:
        raise ValueError(f"{option}={name!r} must be module:Name; write my_module:MyClass")
    try:
        source = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{option}={name!r} names the module {module!r}, which cannot be imported "
            f"({words_of(error)}); start from the folder it is in, install it, or mend it"
        ) from error
    if not hasattr(source, attribute):
        near = difflib.get_close_matches(attribute, list(vars(source)), n=1)
        hint = f"; did you mean {module}:{near[0]}?" if near else "; check the name"
        raise ValueError(f"{option}={name!r} is not in the module {module!r}{hint}")
    return getattr(source, attribute)
