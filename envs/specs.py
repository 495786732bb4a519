"""What an id is registered with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator


def find_spec(env_id: str) -> EnvSpec:
    """Return the specification of an id, "module:id" included.

    Raises:
        ValueError: for a module that cannot be imported, or that does not register the id.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except ImportError as error:
        raise ValueError(
            f"env={env_id!r} names the module {module!r}, which cannot be imported ({error}); "
            "check its name, or install it"
        ) from error
    except gymnasium.error.Error as error:
        raise ValueError(
            f"env={env_id!r} is not there ({error}); register {name!r} in the module {module!r}"
        ) from error


def creator(spec: EnvSpec) -> Callable[..., Any] | None:
    """Return the class, or the function, that an id's environments are made with."""
    entry_point = spec.entry_point
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
