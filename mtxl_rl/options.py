"""The command line of what has a core: its options are those of the kind that is asked for."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from itertools import pairwise, takewhile
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
    check_options(core.kind, [_name(argument, core.kind) for argument in _of_cores(arguments)])
    fill_help(type(core))
    # where tyro would add to what there is
    if given(arguments, "--core.encoder", "--encoder") is not None:
        core = dataclasses.replace(core, encoder=())
    if given(arguments, "--wrap") is not None and hasattr(config, "wrap"):
        config = dataclasses.replace(config, wrap=())
    return dataclasses.replace(config, core=core)


def split(arguments: Sequence[str], kind: str) -> tuple[list[str], list[str]]:
    """Part the options of cores that are none of this kind, with their values, from all others."""
    known = option_names(kind)
    parts: tuple[list[str], list[str]] = ([], [])
    is_other = False
    for argument in arguments:
        if argument.startswith("--"):
            is_other = bool(_of_cores([argument])) and _name(argument, kind) not in known
        parts[is_other].append(argument)
    return parts


def split_kinds(arguments: Sequence[str], kind: str) -> tuple[list[str], list[str]]:
    """Part the options of cores that those which a grid is over have, and its base does not.

    Args:
        arguments: of a grid.
        kind: of the base's core, where they do not say.
    """
    rest, unknown = split(arguments, given(arguments, "--core.kind") or kind)
    of_others: list[str] = []
    for place, pair in enumerate(pairwise(arguments)):
        if pair == ("--over", "core.kind"):
            for other in takewhile(lambda text: not text.startswith("--"), arguments[place + 2 :]):
                known, unknown = split(unknown, other)
                of_others += known
    return rest + unknown, of_others


def _of_cores(arguments: Sequence[str]) -> list[str]:
    return [argument for argument in arguments if argument.startswith(_CORE)]


def _name(argument: str, kind: str) -> str:
    """Return the name of a core's option, the one of --core.no-NAME, too."""
    name = argument.removeprefix(_CORE).partition("=")[0].replace("-", "_")
    return name if name in option_names(kind) else name.removeprefix("no_")


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


def given(arguments: Sequence[str], *names: str) -> str | None:
    """Return the last value of an option, before the others can be read; None where it has none."""
    for index, argument in reversed([*enumerate(arguments)]):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else "".join(arguments[index + 1 : index + 2])
    return None
