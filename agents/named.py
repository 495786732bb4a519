"""What a user names as module:Name."""

from __future__ import annotations

import difflib
import importlib
from typing import Any


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
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
        raise ValueError(
            f"{option}={name!r} names the module {module!r}, which cannot be imported ({said}); "
            "start from the folder it is in, install it, or mend it"
        ) from error
    if not hasattr(source, attribute):
        near = difflib.get_close_matches(attribute, list(vars(source)), n=1)
        hint = f"; did you mean {module}:{near[0]}?" if near else "; check the name"
        raise ValueError(f"{option}={name!r} is not in the module {module!r}{hint}")
    return getattr(source, attribute)
