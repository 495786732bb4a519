"""The command line of what has a core: its options are those of the kind that is asked for."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import Any, TypeVar

import tyro

from agents import ranks
from agents.cores.core import as_kind, check_options, option_names
from mtxl_rl.command import fill_help

Config = TypeVar("Config")
"""A dataclass with a field `core`."""
_CORE = "--core."


def of_kind(default: Config, arguments: Sequence[str]) -> Config:
    """Return `default` with a core of the kind that the arguments name, for tyro to read them with.

    Raises:
        ValueError: for a core that there is not, or an option that it does not have.
    """
    config: Any = default
    core = as_kind(config.core, given(arguments, "--core.kind") or config.core.kind)
    known = option_names(core.kind)
    names = [argument.removeprefix(_CORE).partition("=")[0].replace("-", "_")
             for argument in arguments if argument.startswith(_CORE)]  # fmt: skip
    positive = (name.removeprefix("no_") if name not in known else name for name in names)
    check_options(core.kind, positive)
    fill_help(type(core))
    return dataclasses.replace(config, core=core)


def read(default: Config, arguments: Sequence[str], **options: Any) -> Config:
    """Return `default` with what the arguments change; `options` are those of `tyro.cli`.

    Raises:
        ValueError: as `of_kind`.
    """
    default = of_kind(default, arguments)
    parse = partial(tyro.cli, type(default), default=default, args=arguments, **options)
    if not ranks.is_launched():
        return parse()
    said = io.StringIO()  # by each of several ranks
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return parse()
    except SystemExit:
        if ranks.is_first_to_say(said.getvalue()):
            print(said.getvalue(), file=sys.stderr, end="", flush=True)
        raise


def given(arguments: Sequence[str], option: str) -> str | None:
    """Return the value of an option, before the others can be read; None where it is not given."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else "".join(arguments[index + 1 : index + 2])
    return None
