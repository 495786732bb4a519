"""Environments as people write them: each trait is understood as it is meant, and is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import collect, start
from envs.wrapped.guarded_env import EnvError
from envs.wrapped.gymnasium_adapter import GymnasiumEnv

VECTOR = spaces.Box(-1, 1, (2,))
HALVES = np.full(2, 0.5, np.float32)


class Trait(NamedTuple):
    """A space, what an environment returns for it, and what the agent is to see."""

    space: spaces.Space
    value: Any
    seen: dict[str, Any]
    action_space: spaces.Space = spaces.Discrete(2)


class TraitEnv(gymnasium.Env):
    """Observes the value of a trait; an episode takes three steps."""

    def __init__(self, trait: Trait):
        self.trait = trait
        self.observation_space, self.action_space = trait.space, trait.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.trait.value, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), (self.action_space, action)
        self.time += 1
        return self.trait.value, 1.0, self.time == 3, False, {}


def alone(space: spaces.Space, value: Any, seen: Any) -> Trait:
    return Trait(space, value, {"observation": seen})


def acting(space: spaces.Space) -> Trait:
    return Trait(VECTOR, HALVES, {"observation": HALVES}, space)


NUMBERED: Any = {0: VECTOR, 1: spaces.Discrete(3)}
MIXED: Any = {(0, 1): VECTOR, "x": VECTOR, "": VECTOR}
BOXES = {
    f"{dtype.__name__} vector": alone(
        spaces.Box(0, 100, (3,), dtype), np.array([1, 2, 99], dtype), [1, 2, 99]
    )
    for dtype in (
        np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64,
        np.uint8, np.uint16, np.uint32,
    )
}  # fmt: skip
TRAITS = BOXES | {
    "bool vector": alone(
        spaces.Box(0, 1, (2,), np.bool_),  # type: ignore[arg-type]
        np.array([True, False]),
        [1, 0],
    ),
    "float64 for float32": alone(VECTOR, np.full(2, 0.5), HALVES),
    "integers for floats": alone(VECTOR, np.array([1, -1]), [1, -1]),
    "a list for a vector": alone(VECTOR, [0.5, 0.5], HALVES),
    "a tuple for a vector": alone(VECTOR, (0.5, 0.5), HALVES),
    "a list for bytes": alone(spaces.Box(0, 255, (2,), np.uint8), [3, 250], [3, 250]),
    "int64 for bytes": alone(spaces.Box(0, 255, (2,), np.uint8), np.array([3, 250]), [3, 250]),
    "a list for bytes in a tuple": Trait(
        spaces.Tuple((VECTOR, spaces.Dict({"a": spaces.Box(0, 255, (2,), np.uint8)}))),
        (HALVES, {"a": [3, 250]}),
        {"0": HALVES, "1.a": [3, 250]},
    ),
    "a list for a matrix": alone(spaces.Box(0, 9, (2, 2)), [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    "scalar box": alone(spaces.Box(-1, 1, ()), np.float32(0.5), 0.5),
    "float for a scalar box": alone(spaces.Box(-1, 1, ()), 0.5, 0.5),
    "infinite box": alone(
        spaces.Box(-np.inf, np.inf, (2,)), np.array([1e6, -3], np.float32), [1e6, -3]
    ),
    "half infinite box": alone(spaces.Box(0, np.inf, (1,)), np.ones(1, np.float32), [1]),
    "array of one for a scalar reading": alone(spaces.Box(0, 9, (1,)), np.ones(1, np.float32), [1]),
    "discrete": alone(spaces.Discrete(5), np.int64(3), 3),
    "int for discrete": alone(spaces.Discrete(5), 3, 3),
    "int32 for discrete": alone(spaces.Discrete(5), np.int32(3), 3),
    "array for discrete": alone(spaces.Discrete(5), np.array(3), 3),
    "discrete with a start": alone(spaces.Discrete(5, start=-2), -1, 1),
    "multidiscrete": alone(spaces.MultiDiscrete([3, 4]), np.array([2, 3]), [2, 3]),
    "multidiscrete with a start": alone(
        spaces.MultiDiscrete([3, 4], start=[5, -4]), np.array([6, -4]), [1, 0]
    ),
    "list for multidiscrete": alone(spaces.MultiDiscrete([3, 4]), [2, 3], [2, 3]),
    "int32 multidiscrete": alone(
        spaces.MultiDiscrete([3, 4], np.int32), np.array([2, 3], np.int32), [2, 3]
    ),
    "multibinary": alone(spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
    "bools for multibinary": alone(spaces.MultiBinary(2), np.array([True, False]), [1, 0]),
    "list for multibinary": alone(spaces.MultiBinary(2), [1, 0], [1, 0]),
    "multibinary matrix": alone(spaces.MultiBinary((2, 2)), np.eye(2, dtype=np.int8), np.eye(2)),
    "tuple": Trait(
        spaces.Tuple((spaces.Discrete(3), VECTOR)), (2, HALVES), {"0": 2, "1": HALVES}
    ),
    "list for a tuple": Trait(
        spaces.Tuple((spaces.Discrete(3), VECTOR)), [2, HALVES], {"0": 2, "1": HALVES}
    ),
    "nested dict": Trait(
        spaces.Dict({"a": spaces.Dict({"b": VECTOR, "c": spaces.Tuple((spaces.Discrete(3),))})}),
        {"a": {"b": HALVES, "c": (1,)}},
        {"a.b": HALVES, "a.c.0": 1},
    ),
    "numbers for keys": Trait(
        spaces.Dict(NUMBERED), {0: HALVES, 1: 2}, {"0": HALVES, "1": 2}
    ),
    "keys with dots": Trait(
        spaces.Dict({"a.b": VECTOR, "a": spaces.Dict({"c.d": spaces.Discrete(3)})}),
        {"a.b": HALVES, "a": {"c.d": 2}},
        {"a.b": HALVES, "a.c.d": 2},
    ),
    "keys of other kinds": Trait(
        spaces.Dict(MIXED),
        {(0, 1): HALVES, "x": HALVES, "": HALVES},
        {"(0, 1)": HALVES, "x": HALVES, "": HALVES},
    ),
    "extra keys": Trait(
        spaces.Dict({"a": VECTOR}), {"a": HALVES, "more": object()}, {"a": HALVES}
    ),
    "text": Trait(spaces.Text(20), "go left", {}),
    "text beside a vector": Trait(
        spaces.Dict({"a": VECTOR, "say": spaces.Text(20)}),
        {"a": HALVES, "say": "go left"},
        {"a": HALVES},
    ),
    "an action of two": acting(spaces.Discrete(2)),
    "an action with a start": acting(spaces.Discrete(3, start=7)),
    "an action with a negative start": acting(spaces.Discrete(3, start=-1)),
    "an action of parts": acting(spaces.MultiDiscrete([2, 3])),
    "an action of parts with a start": acting(spaces.MultiDiscrete([2, 3], start=[4, -1])),
    "an action of one": acting(spaces.Discrete(1)),
    "a scalar action": acting(spaces.Box(-1, 1, ())),
    "an infinite action": acting(spaces.Box(-np.inf, np.inf, (2,))),
    "a float64 action": acting(spaces.Box(-1, 1, (2,), np.float64)),
    "a matrix of actions": acting(spaces.Box(-1, 1, (2, 3))),
}  # fmt: skip


@pytest.fixture
def register() -> Iterator[Any]:
    """Register environments for one test."""
    names: list[str] = []

    def add(entry_point: Any, **options: Any) -> str:
        names.append(f"Registered{len(names)}-v0")
        gymnasium.register(names[-1], entry_point, **options)
        return names[-1]

    yield add
    for name in names:
        del gymnasium.registry[name]


def train_a_little(env: envs.BatchedEnv) -> dict[str, float]:
    """Act and learn twice, and return what the last update says."""
    torch.manual_seed(0)
    core = core_config(dim=8, heads=2, depth=1, seq_len=4, mem_len=4, lmem_len=2)
    agent = ActorCritic(env.observation_space, env.action_space, core)
    ppo = PPO(agent, PPOConfig(rollout_len=8, num_minibatches=2, num_epochs=1))
    carry = start(agent, env)
    scalars: dict[str, float] = {}
    for _ in range(2):
        rollout, carry = collect(agent, env, carry, 8)
        scalars = ppo.update(rollout, progress=0.0)
    return scalars


@pytest.mark.parametrize("name", TRAITS)
def test_a_trait_is_seen_as_it_is_meant_and_trained_on(name: str, register: Any) -> None:
    trait = TRAITS[name]
    env_id = register(lambda: TraitEnv(trait))
    env = envs.make(env_id, 4)
    observation = env.reset()
    for field, space in env.observation_space.spaces.items():
        assert observation[field].shape == (4, *(space.shape or ())), field
    for field, seen in trait.seen.items():
        for row in observation[field]:
            np.testing.assert_array_equal(row.numpy().astype(float), seen)
    scalars = train_a_little(env)
    env.close()
    assert all(np.isfinite(value) for value in scalars.values()), scalars
    assert scalars["losses/entropy"] != 0 or trait.action_space == spaces.Discrete(1)


class Plain(TraitEnv):
    """Its constructor knows nothing of Gymnasium."""

    def __init__(self) -> None:
        super().__init__(TRAITS["discrete"])


class Drawn(Plain):
    def __init__(self, render_mode: str | None = None):
        super().__init__()
        self.render_mode = render_mode


class DrawnByName(Plain):
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012

    def __init__(self, *, size: int = 3, render_mode: str):
        super().__init__()
        assert render_mode == "ansi"


class Open(Plain):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        assert "render_mode" not in kwargs


def make_plain() -> Plain:
    return Plain()


@pytest.mark.parametrize(
    ("entry_point", "options"),
    [
        (Plain, {}), (Drawn, {}), (Open, {}), (make_plain, {}), (lambda: Plain(), {}),
        (DrawnByName, {"kwargs": {"render_mode": "ansi"}}), (Plain, {"max_episode_steps": 2}),
        (Plain, {"order_enforce": False}), ("test_traits:Plain", {}),
    ],
)  # fmt: skip
def test_a_constructor_with_or_without_optional_arguments(
    entry_point: Any, options: dict[str, Any], register: Any
) -> None:
    env = envs.make(register(entry_point, **options), 2)
    assert isinstance(env, GymnasiumEnv)
    assert env.reset()["observation"].tolist() == [3, 3]
    steps = [env.step(torch.zeros(2, dtype=torch.int64)) for _ in range(3)]
    ends = [bool((step.terminated | step.truncated).all()) for step in steps]
    limit = options.get("max_episode_steps", 3)
    assert ends == [index + 1 == limit for index in range(3)]
    env.close()


def test_whole_numbers_that_a_space_cannot_hold_are_named(register: Any) -> None:
    trait = alone(spaces.Box(0, 255, (2,), np.uint8), [3, 256], None)
    env = envs.make(register(lambda: TraitEnv(trait)), 2)
    with pytest.raises(EnvError, match=r"reset after 0 returned for observation .* \[3, 256\]"):
        env.reset()
    env.close()


class ResetOnce(Plain):
    """Environments of before Gymnasium 0.26 are named, not guessed at."""

    def reset(self, **_: Any) -> Any:
        return 3


def test_an_observation_alone_from_reset_is_named(register: Any) -> None:
    env_id = register(ResetOnce)
    env = envs.make(env_id, 2)
    with pytest.raises(EnvError, match="env 0 of 2: reset after 0 returned 3, not 2 values"):
        env.reset()
    env.close()
