"""Batches of an environment that are tensors, from outside of this package: `envs.register`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.utils._pytree import tree_map_only

from envs.batched_env import BatchedEnv, EnvStep, Observation
from envs.construction import named, one_line_of, words_of
from envs.counter_random import sequence_of
from envs.specs import TensorFactory
from envs.vectorized.categories import Categories, is_look_due
from envs.wrapped.guarded_env import EnvError, shown
from envs.wrapped.gymnasium_form import check_action_space

WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_DTYPES = {
    "reward": (torch.float32,),
    "terminated": (torch.bool,),
    "truncated": (torch.bool,),
    "success": (torch.bool, torch.float32),
}


def make_own(
    env_id: str,
    factory: TensorFactory,
    num_envs: int,
    device: torch.device | str,
    seed: int | np.random.SeedSequence,
    level_seeds: Sequence[int] | None,
    env_kwargs: dict[str, Any],
) -> BatchedEnv:
    """Make a batch, and watch what it gives.

    Args:
        env_id: for people.
        factory: of the batch.
        num_envs: B.
        device: where it lives.
        seed: of the levels.
        level_seeds: where they are given its seed is drawn from them.
        env_kwargs: of the factory.

    Raises:
        ValueError: for what the factory raises, and for a batch that is not as `BatchedEnv` says.
    """
    seeds = sequence_of(seed, level_seeds)
    number = int(seeds.generate_state(1, np.uint64)[0] >> 1)
    with named(env_id, env_kwargs):
        env = factory(num_envs, torch.device(device), number, **env_kwargs)
    _check_batch(env_id, env, num_envs, torch.device(device))
    env.backend, env.device = "tensor", torch.device(env.device)
    _watch(env_id, env)
    return env


def _check_batch(env_id: str, env: Any, num_envs: int, device: torch.device) -> None:
    if not isinstance(env, BatchedEnv):
        raise ValueError(
            f"env={env_id!r}: its factory made {type(env).__name__}, not an envs.BatchedEnv; "
            "derive the class from it"
        )
    for name in ("num_envs", "device", "observation_space", "action_space", "has_success"):
        if not hasattr(env, name):
            raise ValueError(
                f"env={env_id!r} has no {name}; set it in the constructor: see envs.BatchedEnv"
            )
    if env.num_envs != num_envs or torch.device(env.device).type != device.type:
        raise ValueError(
            f"env={env_id!r} has num_envs={env.num_envs} on {env.device}, not the {num_envs} on "
            f"{device} that it was asked for; hand both on"
        )
    if not env.has_time_limit and type(env).bound_episodes is BatchedEnv.bound_episodes:
        raise ValueError(
            f"env={env_id!r} has_time_limit=False and no bound_episodes, so that an evaluation "
            "might never end; define it, or end every episode"
        )
    try:
        check_action_space(env.action_space)
    except ValueError as error:
        raise ValueError(f"env={env_id!r}: {error}") from None
    space = env.observation_space
    fields = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    wrong = {name: field for name, field in fields.items() if not _is_flat(name, field)}
    if wrong or not fields:
        raise ValueError(one_line_of(
            f"env={env_id!r} has in its observation_space {wrong or space}; give a Dict of "
            "Discrete, MultiDiscrete, and Box of uint8 or float32"
        ))  # fmt: skip


def _is_flat(name: str, space: spaces.Space) -> bool:
    if isinstance(space, spaces.Box):
        return bool(name) and space.dtype in (np.uint8, np.float32)
    is_category = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    return bool(name) and is_category and not np.any(space.start)


def _watch(env_id: str, env: Any) -> None:
    """Let `reset`, `step` and the two parts of a step raise EnvError for faults, and return copies.

    An environment may fill the same tensors at each step, and write to the actions. On a GPU this
    does not synchronise, but for a look at what was noted, now and then.
    """
    is_at_once = env.device.type == "cpu"
    categories = Categories(env, is_at_once)
    is_split = hasattr(env, "host_step") and hasattr(env, "device_step")
    reset, step = env.reset, env.device_step if is_split else env.step
    host_step = env.host_step if is_split else lambda: None
    num_begun = num_steps = 0

    def watched_reset() -> Observation:
        where = f"{env_id}: reset after {num_steps}"
        observation = _call(where, reset)
        _check_observation(where, observation, env)
        return tree_map_only(Tensor, torch.clone, categories.checked(where, observation))

    def watched_host_step() -> None:
        nonlocal num_begun
        num_begun += 1
        if not is_at_once and is_look_due(num_begun):
            categories.look(f"{env_id}: a step before {num_begun}")
        _call(f"{env_id}: step {num_begun}", host_step)

    def watched_device_step(actions: Tensor) -> EnvStep:
        nonlocal num_steps
        num_steps += 1
        where = f"{env_id}: step {num_steps}"
        result = _call(where, step, actions.clone())
        if not isinstance(result, EnvStep):
            raise EnvError(f"{where} returned {type(result).__name__}, not an envs.EnvStep")
        for name, dtypes in _DTYPES.items():
            tensor = getattr(result, name)
            _check_tensor(f"{where} returned as {name}", tensor, (env.num_envs,), dtypes, env)
        _check_observation(where, result.observation, env)
        observation, final = categories.checked(where, result.observation), result.final_observation
        if final is not None:
            _check_observation(where, final, env)
            final = categories.checked(where, final, rows=result.truncated)
        elif is_at_once and result.truncated.any():  # elsewhere it would synchronise
            raise EnvError(f"{where} truncated an episode and returned no final_observation")
        checked = result._replace(observation=observation, final_observation=final)
        return tree_map_only(Tensor, torch.clone, checked)

    def watched_step(actions: Tensor) -> EnvStep:
        watched_host_step()
        return watched_device_step(actions)

    env.reset, env.step = watched_reset, watched_step
    if is_split:
        env.host_step, env.device_step = watched_host_step, watched_device_step


def _call(where: str, method: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except EnvError:  # of a reset within a step
        raise
    except (Exception, SystemExit) as error:
        raise EnvError(f"{where} failed: {words_of(error)}") from error


def _check_observation(where: str, observation: Any, env: BatchedEnv) -> None:
    fields = env.observation_space.spaces
    if not isinstance(observation, dict) or observation.keys() != fields.keys():
        named = ", ".join(observation) if isinstance(observation, dict) else observation
        raise EnvError(f"{where} returned the observation {named}, not {', '.join(fields)}")
    for name, space in fields.items():
        is_float = isinstance(space, spaces.Box) and space.dtype == np.float32
        dtypes = (torch.float32,) if is_float else WHOLE
        shape = (env.num_envs, *(space.shape or ()))
        _check_tensor(f"{where} returned for {name!r}", observation[name], shape, dtypes, env)


def _check_tensor(
    what: str, tensor: Any, shape: tuple[int, ...], dtypes: Sequence[torch.dtype], env: BatchedEnv
) -> None:
    seen = shown(tensor)
    if isinstance(tensor, Tensor):
        if (tensor.shape, tensor.device.type) == (shape, env.device.type) and (
            tensor.dtype in dtypes
        ):
            return
        seen = f"a tensor {tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"
    wanted = " or ".join(str(dtype) for dtype in dtypes)
    raise EnvError(f"{what} {seen}, not a tensor {shape} of {wanted} on {env.device}")
