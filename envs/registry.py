"""From an environment's id to a batch of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import gymnasium
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from envs import memory_gym, popgym
from envs.batched_env import BatchedEnv
from envs.construction import Wrap, check_kwargs, find_wraps, named, one_line_of, with_tuples
from envs.counter_random import seed_of_part
from envs.memory_tasks import endless_t_maze, junctions, memory, recall, t_maze
from envs.selection import has_tensor_env, tensor_env
from envs.specs import (
    Registered,
    TensorFactory,
    check_batch,
    factory_of,
    find_spec,
    known_module,
)
from envs.vector_env import TensorVectorEnv
from envs.vectorized.own_tensors import make_own
from envs.vectorized.vectorized_env import VectorizedEnv
from envs.wrapped.gymnasium_adapter import GymnasiumEnv, Vectorize
from envs.wrapped.own_numbers import OwnNumbers

Backend = Literal["auto", "tensor", "gymnasium", "vector"]

_JUNCTIONS = re.compile(r"mtxl/Junctions(?P<first>\d+)(?:to(?P<last>\d+))?(?:x(?P<number>\d+))?-v0")
_T_MAZE = re.compile(r"mtxl/TMaze(?P<first>\d+)(?:to(?P<last>\d+))?(?P<active>Active)?-v0")
_MEMORY = re.compile(
    r"mtxl/MemoryS(?P<size>\d+)(?:to(?P<last>\d+))?(?P<random>Random)?(?P<cue>Cue)?-v0"
)
_PATTERNS = (
    "mtxl/MemoryS65-v0, mtxl/MemoryS9to17RandomCue-v0, mtxl/TMaze100Active-v0, "
    "mtxl/Junctions20x4-v0, mtxl/Recall20x8-v0, mtxl/Recall10to160x3gap4shows4-v0, "
    "mtxl/EndlessTMaze10to40x16-v0"
)


def make(
    env_id: str,
    num_envs: int,
    device: torch.device | str = "cpu",
    seed: int | np.random.SeedSequence = 0,
    render_mode: str | None = None,
    backend: Backend = "auto",
    level_seeds: Sequence[int] | None = None,
    timeout: float | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    wrap: Sequence[str] = (),
    vectorize: Vectorize = "auto",
    part: tuple[int, int] = (0, 1),
) -> BatchedEnv:
    """Make `num_envs` copies of an environment as one batch.

    Args:
        env_id: any id registered with Gymnasium (MiniGrid's are) or by `register`, "module:id",
            "envpool:id", or one of ours: "mtxl/MemoryS65-v0" and so on, see `memory`, `t_maze`,
            `junctions`, `recall` and `endless_t_maze` in `envs.memory_tasks`.
        num_envs: number of copies.
        device: where the tensors live.
        seed: of the levels; copies have streams of their own.
        render_mode: "rgb_array" to render pictures; MiniGrid's tensors always can.
        backend: "tensor" keeps the environments on the device, "gymnasium" makes single ones,
            "vector" the vector environment that an id has itself; "auto" takes tensors for the ids
            that they are there for, and "vector" for those that have nothing else.
        level_seeds: play the levels of `reset(seed)` for these seeds: the k-th episode of env i
            has seed number i + k num_envs, from the start again after the last.
        timeout: seconds that one step or reset of one Gymnasium environment, or of a vector
            environment, may take; None: any.
        env_kwargs: arguments of the environment's constructor, over those of its id, and
            Gymnasium's max_episode_steps. A list becomes a tuple where the constructor asks for
            one.
        wrap: wrappers, the innermost first: classes of gymnasium.wrappers by their names, others,
            and functions from an environment to one, as "module:Wrapper". Only single ones have
            them.
        vectorize: "sync" steps single environments one after the other in this process, "async"
            each in a process of its own; "auto" takes processes where a step of the first takes
            `PROCESS_SECONDS` or more and there are two cores. To draw pictures it is "sync".
        part: (k, n) where n processes share the envs of a run: these are the k-th part of n times
            as many, k from 0. Its envs have the levels that they have in the whole; vector
            environments and batches of `register` have others, with a seed of their own.

    Raises:
        ValueError: for an unknown id, an environment that cannot be made, a space that cannot be
            taken, `num_envs` below 1, an id that the backend does not know, a device that is not
            there, or a render mode of environments that draw no such pictures.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r} must be one of {', '.join(get_args(Backend))}")
    if vectorize not in get_args(Vectorize):
        raise ValueError(f"vectorize={vectorize!r} must be one of {', '.join(get_args(Vectorize))}")
    check_batch(num_envs, device, level_seeds)
    chosen = choose(env_id, backend, env_kwargs or {}, wrap)
    if chosen.backend == "tensor":
        if factory := factory_of(chosen.spec):
            seed = seed_of_part(seed, part)
            return make_own(env_id, factory, num_envs, device, seed, level_seeds, chosen.env_kwargs)
        return tensor_env(
            env_id, num_envs, device, seed, level_seeds, chosen.env_kwargs, render_mode, part
        )
    others = (render_mode, level_seeds, timeout, chosen.env_kwargs)
    with OwnNumbers(0):  # to make and to try them must not change what the agent draws
        if chosen.backend == "vector":
            return VectorizedEnv(env_id, num_envs, device, seed_of_part(seed, part), *others)
        return GymnasiumEnv(env_id, num_envs, device, seed, *others, chosen.wraps, vectorize, part)


def register(env_id: str, factory: TensorFactory) -> None:
    """Register batches of an environment of one's own that are tensors: see `TensorFactory`.

    Raises:
        ValueError: for an id that is taken, or that is none, and for what makes no batch.
    """
    if not callable(factory) or (isinstance(factory, type) and not issubclass(factory, BatchedEnv)):
        raise ValueError(
            f"env_id={env_id!r} has factory={factory!r}, which must be a class of envs.BatchedEnv, "
            "or a function that returns one"
        )
    if ":" in env_id:
        raise ValueError(
            f"env_id={env_id!r} cannot be registered: a colon stands behind a module's name; write "
            "it like MyEnv-v0"
        )
    if env_id in gymnasium.registry or _own_task(env_id) is not None:
        raise ValueError(f"env_id={env_id!r} is registered already; choose another id")
    try:
        gymnasium.register(env_id, vector_entry_point=Registered(env_id, factory))
    except gymnasium.error.Error as error:
        raise ValueError(
            f"env_id={env_id!r} cannot be registered ({one_line_of(str(error))}); write it like "
            "MyEnv-v0"
        ) from error


class Choice(NamedTuple):
    """What runs an environment, and with what."""

    backend: Backend
    """Any but auto."""
    spec: EnvSpec
    env_kwargs: dict[str, Any]
    wraps: list[tuple[str, Wrap]]


def choose(
    env_id: str, backend: Backend, env_kwargs: Mapping[str, Any], wrap: Sequence[str]
) -> Choice:
    """Return what runs an environment; nothing of it is made.

    Raises:
        ValueError: for an unknown id, names that can be no arguments, wrappers that are not there,
            a backend that it does not have, or batches that are to be wrapped.
    """
    check_id(env_id)
    check_kwargs(env_kwargs)
    wraps = find_wraps(wrap)
    spec = find_spec(env_id)
    is_own = factory_of(spec) is not None
    if backend == "auto":
        with named(env_id, env_kwargs):  # what makes it may not be importable
            on_tensors = is_own or (not wrap and has_tensor_env(spec, env_kwargs))
        has_singles = spec.entry_point is not None
        backend = "tensor" if on_tensors else "gymnasium" if has_singles else "vector"
    elif backend != "tensor" and is_own:
        raise ValueError(
            f"env={env_id!r} is tensors only; leave out backend={backend!r}, or use 'auto'"
        )
    if wrap and backend != "gymnasium":
        raise ValueError(
            f"wrap={', '.join(wrap)} is for single environments, and backend={backend!r} has none; "
            "leave it out, or use backend='auto' or 'gymnasium'"
        )
    if backend == "gymnasium" and spec.entry_point is None:
        raise ValueError(
            f"env={env_id!r} makes batches only (it has a vector_entry_point and no entry_point); "
            "use backend='auto' or 'vector'"
        )
    if backend == "vector" and spec.vector_entry_point is None:
        raise ValueError(
            f"env={env_id!r} has no vector_entry_point, which backend='vector' is for; use 'auto' "
            "or 'gymnasium'"
        )
    return Choice(backend, spec, with_tuples(env_id, env_kwargs), wraps)


def check_id(env_id: str) -> None:
    """Raise ValueError, naming the nearest ids, unless `env_id` is known; register one of ours."""
    if ":" in env_id or env_id in gymnasium.registry:
        return
    entry = _own_task(env_id)
    if entry is not None:
        _register(env_id, *entry)
        return
    if module := known_module(env_id):
        raise ValueError(
            f"env={env_id!r} is registered by the module {module!r}, which has to be named: "
            f"--env {module}:{env_id}"
        )
    near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=3, cutoff=0.5)
    nearest = f"; did you mean {', '.join(near)}?" if near else f" (ours are like {_PATTERNS})."
    raise ValueError(
        f"env={env_id!r} is not registered with Gymnasium{nearest} To use an environment of your "
        "own, name the module that registers it: --env my_module:MyEnv-v0"
    )


def _own_task(env_id: str) -> tuple[str, dict[str, Any]] | None:
    """Return entry point and options of an id of ours.

    Raises:
        ValueError: for a size that the task does not have.
    """
    if match := _MEMORY.fullmatch(env_id):
        first, last = int(match["size"]), int(match["last"] or match["size"])
        for size in (first, last):
            memory.check_size(size)
        t_maze.check_order(env_id, first, last)
        options = {
            "sizes": tuple(range(first, last + 1, 2)),
            "random_length": match["random"] is not None,
            "starts_at_cue": match["cue"] is not None,
        }
        return "envs.memory_tasks.memory:MemoryEnv", options
    if match := _T_MAZE.fullmatch(env_id):
        first, last = int(match["first"]), int(match["last"] or match["first"])
        for length in (first, last):
            t_maze.check_length(length)
        t_maze.check_order(env_id, first, last)
        options = {"lengths": t_maze.doubled(first, last), "is_active": match["active"] is not None}
        return "envs.memory_tasks.t_maze:TMazeEnv", options
    if match := _JUNCTIONS.fullmatch(env_id):
        first, last = int(match["first"]), int(match["last"] or match["first"])
        number = int(match["number"] or 1)
        for delay in (first, last):
            junctions.check_sizes(delay, number)
        t_maze.check_order(env_id, first, last)
        options = {"delays": t_maze.doubled(first, last), "num_junctions": number}
        return "envs.memory_tasks.junctions:JunctionsEnv", options
    if options := endless_t_maze.endless_options(env_id):
        return "envs.memory_tasks.endless_t_maze:EndlessTMazeEnv", dict(options)
    options = recall.recall_options(env_id)
    return None if options is None else ("envs.memory_tasks.recall:RecallEnv", dict(options))


def _register(env_id: str, entry_point: Any, options: dict[str, Any]) -> None:
    gymnasium.register(
        env_id,
        entry_point,
        kwargs=options,
        vector_entry_point=partial(TensorVectorEnv, env_id),
    )


def register_all() -> None:
    """Register ours with Gymnasium, and MiniGrid's again as mtxl/... with a vector environment."""
    sizes = range(memory.MIN_SIZE, memory.MAX_SIZE + 1, 2)
    own = [f"mtxl/MemoryS{n}{v}-v0" for n in sizes for v in ("", "Random", "Cue", "RandomCue")]
    own += [f"mtxl/TMaze{length}{v}-v0" for length in t_maze.LENGTHS for v in ("", "Active")]
    own += [f"mtxl/Junctions{n}{x}-v0" for n in junctions.DELAYS for x in ("", "x2", "x4", "x8")]
    own += [f"mtxl/Recall{delay}-v0" for delay in recall.DELAYS]
    for env_id in own:
        check_id(env_id)
    for env_id, options in popgym.registrations().items():
        _register(env_id, "envs.popgym.popgym_env:PopgymEnv", options)
    for env_id, options in memory_gym.registrations().items():
        _register(env_id, "envs.memory_gym.memory_gym_env:MemoryGymEnv", options)
    for spec in list(gymnasium.registry.values()):
        env_id = f"mtxl/{spec.id}"
        is_new = spec.namespace is None and env_id not in gymnasium.registry
        if is_new and spec.id.startswith("MiniGrid-") and has_tensor_env(spec):
            _register(env_id, spec.entry_point, spec.kwargs)


register_all()
