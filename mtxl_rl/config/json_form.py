"""The JSON form of a configuration, and how two of them differ."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from agents.cores.core import check_options, find_core
from agents.cores.core_config import CoreConfig
from agents.learning.ppo import PPOConfig
from mtxl_rl.config.configs import TrainConfig
from mtxl_rl.config.earlier import core_of_today, is_idle, ppo_of_today
from mtxl_rl.config.option_types import from_plain


def to_json(config: TrainConfig) -> dict[str, Any]:
    """Return plain values."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, tuple):
            return list(value)
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_json(values: dict[str, Any]) -> TrainConfig:
    """Rebuild a configuration from `to_json`.

    Raises:
        ValueError: for a name that is not an option, or a value that an option rejects.
    """
    values = dict(values)
    core = _core_from_json(values.pop("core", {}))
    ppo = _known(PPOConfig, ppo_of_today(values.pop("ppo", {})), "ppo.")
    values = _known(TrainConfig, values, "")
    return TrainConfig(**values, core=core, ppo=PPOConfig(**ppo))


def _core_from_json(values: Any) -> CoreConfig:
    values = core_of_today(values)
    kind = values.get("kind", "mtxl") if isinstance(values, dict) else None
    if not isinstance(kind, str):
        raise ValueError(f"core={values!r} must be an object of options, and its kind a text")
    config_class = find_core(kind).Config
    values = {name: value for name, value in values.items() if not is_idle(kind, name, value)}
    check_options(kind, values)
    return config_class(**{"kind": kind, **_known(config_class, values, "core.")})


def _known(config_class: type, values: Any, prefix: str) -> dict[str, Any]:
    """Return the options of a configuration from their JSON form."""
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.')}={values!r} must be an object of options")
    names = [option.name for option in dataclasses.fields(config_class)]
    kinds = get_type_hints(config_class)
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ";"
            raise ValueError(f"{prefix}{name} is not an option{hint} allowed: {', '.join(names)}")
    return {
        name: from_plain(value, kinds[name], f"{prefix}{name}") for name, value in values.items()
    }


def flat(config: TrainConfig) -> dict[str, Any]:
    """Return {"core.dim": 64, ...}: every option by its dotted name.

    Arguments of the environment are among them where they are given: "env_kwargs.memory_length".
    """
    named: dict[str, Any] = {}
    for name, value in to_json(config).items():
        if isinstance(value, dict):
            named |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            named[name] = value
    return named


def differences(
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    there: str,
    here: str,
    is_compared: Callable[[str], bool],
    form: Callable[[Any], str] = str,
) -> str:
    """Return "dim is 32 there and 64 here; ..." of the options that differ, "" where none does.

    What one side does not have (an argument of an environment) is "left out" there.
    """
    missing = object()

    def shown(options: Mapping[str, Any], name: str) -> str:
        return form(options[name]) if name in options else "left out"

    return "; ".join(
        f"{name} is {shown(theirs, name)} {there} and {shown(ours, name)} {here}"
        for name in {**ours, **theirs}
        if is_compared(name) and ours.get(name, missing) != theirs.get(name, missing)
    )


def short_name(name: str) -> str:
    """Return "dim" of "core.dim"."""
    return name.rpartition(".")[2]
