"""What an id is registered with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import torch
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


def source_of(env_id: str, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
    """Return the class of a registered id, and its options with `options` over them."""
    spec = find_spec(env_id)
    return creator(spec), spec.kwargs | (options or {})


def check_batch(
    num_envs: int, device: torch.device | str, level_seeds: Sequence[int] | None
) -> None:
    """Raise ValueError unless a batch can have this size, device and levels."""
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs} must be 1 or more; set --num-envs")
    if level_seeds is not None and not len(level_seeds):
        raise ValueError("level_seeds is empty; name one seed or more, or leave it out")
    try:
        torch.empty(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={str(device)!r} cannot be used ({reason}); use 'cpu', or 'cuda' where there "
            "is a GPU and a torch built for it"
        ) from error
