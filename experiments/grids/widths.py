"""Widths at which different cores have as many parameters, or as large a state."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Literal

import torch
from gymnasium import spaces

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core_config import CoreConfig
from agents.encoders.encoder import Encoder
from envs import Backend
from mtxl_rl.config import TrainConfig

Size = Literal["parameters", "state_floats"]
"""What can be made equal: see `ActorCritic.sizes`."""


def sizes_for(
    core: CoreConfig, observation_space: spaces.Dict, action_space: spaces.Space
) -> dict[str, int]:
    """Return the sizes of the agent, of which no weight is made and no random number drawn."""
    with torch.device("meta"):
        return ActorCritic(observation_space, action_space, core).sizes


def width_for(target: int, core: CoreConfig, size: Callable[[CoreConfig], int]) -> int:
    """Return the width at which the size of a core is nearest to `target`.

    Args:
        target: the size that is wanted.
        core: of any width; its heads, if it has them, divide the width that is returned.
        size: of a core; it must grow with the width.

    Raises:
        ValueError: where it does not grow.
    """
    unit = getattr(core, "heads", 1)

    def size_at(units: int) -> int:
        return size(replace(core, dim=units * unit))

    if size_at(2) <= size_at(1):
        raise ValueError(
            f"the core {core.kind} has a size of {size_at(1)} at every width, not of {target:,}; "
            "leave it out, or make something else equal"
        )
    high = 1
    while size_at(high) < target:
        high *= 2
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size_at(middle) < target else (low, middle)
    return unit * min((low, high), key=lambda units: abs(size_at(units) - target))


def with_equal(what: Size, reference: CoreConfig, config: TrainConfig) -> TrainConfig:
    """Return the configuration with the width at which its agent is as large as the reference's.

    Both are counted as a whole, with encoder and heads, in the environment of `config`.
    """
    target = _sizes(config, reference)[what]
    dim = width_for(target, config.core, lambda core: _sizes(config, core)[what])
    return replace(config, core=replace(config.core, dim=dim))


def describe(config: TrainConfig) -> str:
    """Return the width and the sizes of the agent as words."""
    sizes = _sizes(config, config.core)
    return (
        f"width {config.core.dim}, {sizes['parameters']:,} parameters, {sizes['state_floats']:,} "
        "floats of state"
    )


def check_encoder(config: TrainConfig) -> None:
    """Raise ValueError for an encoder that cannot be made of what the environment shows."""
    env_kwargs = json.dumps(config.env_kwargs)
    space, _ = _spaces(config.env, config.backend, env_kwargs, config.wrap)
    Encoder(space, config.core.dim, config.core.image_size, config.core.encoder)


def _sizes(config: TrainConfig, core: CoreConfig) -> dict[str, int]:
    """Return the sizes of an agent with another core in the environment of `config`."""
    env_kwargs = json.dumps(config.env_kwargs)
    return _sizes_in(config.env, config.backend, env_kwargs, config.wrap, core)


@cache
def _sizes_in(
    env_id: str, backend: Backend, env_kwargs: str, wrap: tuple[str, ...], core: CoreConfig
) -> dict[str, int]:
    return sizes_for(core, *_spaces(env_id, backend, env_kwargs, wrap))


@cache
def _spaces(
    env_id: str, backend: Backend, env_kwargs: str, wrap: tuple[str, ...]
) -> tuple[spaces.Dict, spaces.Space]:
    env = envs.make(env_id, 1, backend=backend, env_kwargs=json.loads(env_kwargs), wrap=wrap)
    env.close()
    return env.observation_space, env.action_space
