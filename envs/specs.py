"""What an id is registered with."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import gymnasium
import torch
from gymnasium.envs.registration import EnvSpec, load_env_creator

from envs.batched_env import BatchedEnv

_MODULES = {"ALE/": "ale_py", "popgym-": "popgym"}
"""What registers ids that begin so, of packages that many have."""
_PIP_NAMES = {"ale_py": "ale-py", "popgym": '"popgym[navigation]"'}
ENVPOOL = "envpool"
"""The module of EnvPool (Weng et al. 2022, arXiv 2206.10558)."""


TensorFactory = Callable[..., BatchedEnv]
"""A class of `BatchedEnv`, or a function that returns one: `factory(num_envs, device, seed,
**env_kwargs)`, with the torch.device on which its tensors live, and a seed from 0 to 2^63 - 1 on
which, with the actions, alone depends what happens."""


@dataclass(frozen=True)
class Registered:
    """What an id of `envs.register` has in place of a vector environment."""

    env_id: str
    factory: TensorFactory

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(f"env={self.env_id!r} is tensors; make it by envs.make")


def factory_of(spec: EnvSpec) -> TensorFactory | None:
    """Return what makes the tensors of an id of `envs.register`; None for others."""
    entry = spec.vector_entry_point
    return entry.factory if isinstance(entry, Registered) else None


def find_spec(env_id: str) -> EnvSpec:
    """Return the specification of an id, "module:id" included.

    Raises:
        ValueError: for a module that cannot be imported, or an id that it does not register.
    """
    module, colon, name = env_id.rpartition(":")
    if not name or (colon and not module):
        raise ValueError(f"env={env_id!r} must be an id, or module:id; write my_module:MyEnv-v0")
    if module:
        _import(env_id, module)
    if module == ENVPOOL:
        return _envpool_spec(env_id, name)
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise ValueError(_no_such_id(env_id, module, name, error)) from error


def _envpool_spec(env_id: str, name: str) -> EnvSpec:
    """Return what makes an id of EnvPool's, which registers none with Gymnasium."""
    envpool = importlib.import_module(ENVPOOL)
    if name not in (known := envpool.list_all_envs()):
        near = difflib.get_close_matches(name, known, n=3, cutoff=0)
        named = ", ".join(f"{ENVPOOL}:{each}" for each in near)
        raise ValueError(f"env={env_id!r} is not among EnvPool's; did you mean {named}?")
    make = partial(envpool.make, name, env_type="gymnasium")
    return EnvSpec(name, vector_entry_point=make)


def known_module(env_id: str) -> str | None:
    """Return the module that registers an id, where its name tells."""
    return next((m for start, m in _MODULES.items() if env_id.startswith(start)), None)


def own_name(module: str) -> str:
    """Return the remedy where a user's package has the name of one of ours, else ""."""
    package = module.partition(".")[0]
    if package not in ("agents", "envs", "experiments", "mtxl_rl"):
        return ""
    return f"{package!r} is here the package of mtxl-rl itself: rename your folder of that name"


def _import(env_id: str, module: str) -> None:
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        remedy = "mend it" if missing is None else f"install what it needs: {missing}"
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            pip = _PIP_NAMES.get(missing)
            remedy = f"pip install {pip}" if pip else "check its name, or install it"
            remedy = own_name(module) or remedy
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
        raise ValueError(
            f"env={env_id!r} names the module {module!r}, which cannot be imported ({said}); "
            f"{remedy}"
        ) from error


def _no_such_id(env_id: str, module: str, name: str, error: Exception) -> str:
    """Return the words for an id that is not there, with the nearest ones of its module."""
    package = module.partition(".")[0]
    theirs = [spec.id for spec in gymnasium.registry.values() if _package(spec) == package]
    near = difflib.get_close_matches(name, theirs, n=3, cutoff=0)
    if module and near:
        named = ", ".join(f"{module}:{each}" for each in near)
        return f"env={env_id!r} is not registered by the module {module!r}; did you mean {named}?"
    said = " ".join(str(error).split()).rstrip(".")
    where = f"in the module {module!r}" if module else "in a module, and name it: module:id"
    return f"env={env_id!r} is not there ({said}); register {name!r} {where}"


def _package(spec: EnvSpec) -> str:
    """Return the package that an id's environments come from."""
    made_by = factory_of(spec) or spec.entry_point or spec.vector_entry_point
    is_path = isinstance(made_by, str)
    module = made_by if is_path else getattr(made_by, "__module__", "")
    return re.split("[.:]", module)[0]


def creator(spec: EnvSpec) -> Callable[..., Any] | None:
    """Return the class, or the function, that an id's environments, or batches, are made with."""
    return factory_of(spec) or load(spec.entry_point or spec.vector_entry_point)


def load(entry_point: Any) -> Any:
    """Return what an entry point names; one that is no name is it itself."""
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
