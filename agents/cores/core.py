"""The table of cores, and the way from a name and options to a core."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import MISSING, fields
from types import UnionType
from typing import (
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
import torch
from torch import nn

from agents.cores.baseline_cores import FeedForwardCore
from agents.cores.core_config import CoreConfig
from agents.cores.delta_net import DeltaNetCore
from agents.cores.interface import Core
from agents.cores.memory_core import GTrXLCore, MemoryCore
from agents.cores.min_gru import MinGRUCore
from agents.cores.rnn_cores import GRUCore, LSTMCore
from agents.cores.trial import check_runs
from agents.named import find_named, made_by
from agents.trees import named_tensors

CoreKind = Literal["mtxl", "gtrxl", "gru", "lstm", "mingru", "deltanet", "feedforward"]
CORES: dict[CoreKind, type[Any]] = {
    "mtxl": MemoryCore,
    "gtrxl": GTrXLCore,
    "gru": GRUCore,
    "lstm": LSTMCore,
    "mingru": MinGRUCore,
    "deltanet": DeltaNetCore,
    "feedforward": FeedForwardCore,
}


def find_core(kind: str) -> type[Any]:
    """Return the class of a core: one of `CORES` by its name, any other as "module:Class".

    Raises:
        ValueError: for what is not there, or is no core.
    """
    if kind in CORES:
        return CORES[kind]
    if ":" not in kind:
        near = difflib.get_close_matches(kind, list(CORES), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"core.kind={kind!r} is no core; it must be {', '.join(CORES)}, or module:Class "
            f"for one of your own{hint}"
        )
    found = find_named(kind, "core.kind")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(
            f"core.kind={kind!r} is {found!r}; name a class of torch.nn.Module, such as a subclass "
            "of agents.cores.BaselineCore"
        )
    _check_config(kind, getattr(found, "Config", None))
    return found


def _check_config(kind: str, config: Any) -> None:
    is_config = isinstance(config, type) and issubclass(config, CoreConfig)
    if not is_config or "__dataclass_fields__" not in vars(config):
        raise ValueError(
            f"core.kind={kind!r} has Config={config!r}, which must be a dataclass of its options, "
            "a subclass of agents.cores.CoreConfig under @dataclass(frozen=True, kw_only=True)"
        )
    with made_by(kind, "core.kind"):  # a type may not be there
        types = get_type_hints(config)
    for option in fields(config):
        if option.default is MISSING:
            raise ValueError(
                f"core.kind={kind!r} has the option {option.name} without a default; give it one"
            )
        if not _is_plain(types[option.name]):
            raise ValueError(
                f"core.kind={kind!r} has the option {option.name} of {types[option.name]}, which "
                "config.json does not hold; use bool, int, float, str, Literal, a tuple of one of "
                "them, or None beside it"
            )
        if said := _unreadable(option.default, types[option.name]):
            raise ValueError(
                f"core.kind={kind!r} has the option {option.name} with the default "
                f"{option.default!r}, which is not read back from config.json ({said}); give it "
                "a default of its type, or write None beside the type"
            )


def _unreadable(value: Any, kind: Any) -> str:
    """Return why an option is not read back from config.json as it was, "" where it is."""
    try:
        read = msgspec.convert(json.loads(json.dumps(value)), kind)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        return str(error)
    return "" if read == value else f"{read!r} is read, which is not equal to it"


def _is_plain(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return True
    if get_origin(kind) in (tuple, Union, UnionType):
        return all(_is_plain(part) for part in get_args(kind) if part is not Ellipsis)
    return kind in (bool, int, float, str, type(None))


def core_config(kind: str = "mtxl", **options: Any) -> CoreConfig:
    """Return the configuration of a core of some kind: see `find_core`.

    Raises:
        ValueError: for a core that there is not, an option that it does not have, or a value that
            it rejects.
    """
    config_class = find_core(kind).Config
    check_options(kind, options)
    with made_by(kind, "core.kind"):
        return config_class(kind=kind, **options)


def as_kind(core: CoreConfig, kind: str) -> CoreConfig:
    """Return the configuration of another kind, with those options of `core` that it has, too."""
    if core.kind == kind:
        return core
    names = option_names(kind)
    given = {option.name: getattr(core, option.name) for option in fields(core)
             if option.name in names and getattr(core, option.name) != option.default}  # fmt: skip
    return core_config(**(given | {"kind": kind}))


def option_names(kind: str) -> list[str]:
    """Return the names of a core's options."""
    return [option.name for option in fields(find_core(kind).Config)]


def check_options(kind: str, names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no option of the core, saying which cores have it."""
    known = option_names(kind)
    for name in names:
        if name in known:
            continue
        *others, last = ["", *(other for other in CORES if name in option_names(other))]
        if last:
            kinds = " or ".join(filter(None, (", ".join(others[1:]), last)))
            raise ValueError(
                f"core.{name} has no effect on the core {kind}; leave it out, or set --core.kind "
                f"{kinds}"
            )
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean core.{near[0]}?" if near else ""
        raise ValueError(
            f"core.{name} is not an option of the core {kind}; allowed are {', '.join(known)}{hint}"
        )


def make_core(config: CoreConfig) -> Core:
    """Build the core; its input has width `config.dim`.

    Raises:
        ValueError: for a configuration that cannot be built, or a class that is no core or does
            not hold to what `Core` says.
    """
    core_class = find_core(config.kind)
    if type(config) is not core_class.Config:
        raise ValueError(
            f"core.kind={config.kind!r} has options of {core_class.Config.__name__}, and these are "
            f"of {type(config).__name__}; make them by agents.cores.core_config"
        )
    wanted = [name for name in {**vars(Core), **Core.__annotations__} if name[0] != "_"]
    with made_by(config.kind, "core.kind"):
        core = core_class(config)
        missing = [name for name in wanted if not hasattr(core, name)]
    if missing:
        raise ValueError(
            f"core.kind={config.kind!r} has no {', '.join(missing)}; add what is missing "
            "(agents/cores/interface.py says what it is), or make it a subclass of "
            "agents.cores.BaselineCore"
        )
    if config.kind not in CORES and torch.get_default_device().type != "meta":
        check_runs(core, config.kind, config.dim)
    return core


def state_size(core: Core) -> int:
    """Return how many floats a core carries for each env: no masks, nothing that is derived."""
    tensors = named_tensors(core.initial_state(1), "state").values()
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
