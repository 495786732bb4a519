"""Observations of every form that environments have are read as what they are, and learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation
from minigrid.wrappers import (
    FullyObsWrapper,
    ImgObsWrapper,
    OneHotPartialObsWrapper,
    RGBImgObsWrapper,
    RGBImgPartialObsWrapper,
    SymbolicObsWrapper,
    ViewSizeWrapper,
)

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import collect, start
from envs.wrapped.guarded_env import EnvError

GRID = "-> an embedding for each place, and one for anywhere"
OF_MINIGRID = f"of categories (11, 6, 4) {GRID}"


def box(shape: tuple[int, ...], dtype: Any = np.uint8, low: float = 0, high: float = 255) -> Any:
    return spaces.Box(low, high, shape, dtype)


SPACES: dict[str, tuple[spaces.Space, dict[str, str]]] = {
    "channels last": (box((40, 44, 3)), {"": "image uint8 40x44x3 channels last -> CNN"}),
    "frames first": (box((12, 40, 44)), {"": "image uint8 12x40x44 channels first -> CNN"}),
    "frames last": (box((40, 44, 12)), {"": "image uint8 40x44x12 channels last -> CNN"}),
    "grey, large": (box((210, 160)), {"": "image uint8 210x160 grey, made 84x64 -> CNN"}),
    "a stack": (
        box((4, 40, 44, 3)),
        {"": "image uint8 4x40x44x3 channels last, a stack of 4 -> CNN"},
    ),
    "float32": (
        box((3, 40, 44), np.float32, 0, 1),
        {"": "image float32 3x40x44 channels first -> CNN"},
    ),
    "float64": (
        box((16, 12, 1), np.float64, -1, 1),
        {"": "image float32 16x12x1 channels last -> CNN"},
    ),
    "whole, not bytes": (
        box((16, 12, 3), np.int64),
        {"": "image float32 16x12x3 channels last -> CNN"},
    ),
    "unbounded": (
        box((16, 12, 3), np.float32, -np.inf, np.inf),
        {"": "image float32 16x12x3 channels last -> CNN"},
    ),
    "MinAtar's": (
        box((10, 10, 4), np.bool_, 0, 1),
        {"": "image float32 10x10x4 channels last -> CNN"},
    ),
    "NetHack's": (
        spaces.Dict(
            {
                "blstats": box((27,), np.int64, -(2**31), 2**31),
                "chars": box((21, 79)),
                "colors": box((21, 79), np.uint8, 0, 15),
                "glyphs": box((21, 79), np.int16, 0, 5976),
            }
        ),
        {
            "blstats": "vector float32 27 -> symlog -> layer",
            "chars": "grid 21x79 of categories (256) -> embeddings -> CNN",
            "colors": f"grid 21x79 of categories (16) {GRID}",
            "glyphs": "grid 21x79 of categories (5977) -> embeddings -> CNN",
        },
    ),
    "a board": (box((6, 7), np.int8, -1, 1), {"": f"grid 6x7 of categories (3) {GRID}"}),
    "planes": (box((6, 7, 2), np.int8, 0, 1), {"": f"grid 6x7 of categories (2, 2) {GRID}"}),
    "a board of categories": (
        spaces.MultiDiscrete(np.full((4, 5), 3), start=np.full((4, 5), -7)),
        {"": f"grid 4x5 of categories (3) {GRID}"},
    ),
    "numbers": (box((4, 4), np.int64, 0, 2**40), {"": "vector float32 4x4 -> symlog -> layer"}),
    "RAM": (box((128,)), {"": "vector float32 128 -> symlog -> layer"}),
    "signs": (spaces.Text(3, charset="<>"), {"": "text of up to 3 bytes -> embeddings -> CNN"}),
    "words": (
        spaces.Tuple((spaces.Text(9, min_length=0, charset="aé b"), spaces.Discrete(3))),
        {"0": "text of up to 18 bytes -> embeddings -> CNN", "1": "one of 3 -> embedding"},
    ),
}


class SpaceEnv(gymnasium.Env):
    """Shows anything that its space holds; episodes are cut off after two steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space):
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.num_steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: int) -> Any:
        self.num_steps += 1
        return self.observation_space.sample(), float(action), False, self.num_steps == 2, {}


Register = Callable[[Callable[..., gymnasium.Env]], str]


@pytest.fixture
def register() -> Iterator[Register]:
    def registered(entry_point: Callable[..., gymnasium.Env]) -> str:
        gymnasium.register("Trait-v0", entry_point=entry_point)
        return "Trait-v0"

    yield registered
    gymnasium.registry.pop("Trait-v0", None)


@pytest.mark.parametrize("name", SPACES)
def test_is_read_and_learned(name: str, register: Register) -> None:
    space, words = SPACES[name]
    env = envs.make(register(lambda **_: SpaceEnv(space)), 2)
    torch.manual_seed(0)
    agent = ActorCritic(
        env.observation_space, env.action_space, core_config(kind="feedforward", dim=8, depth=1)
    )
    assert agent.encoder.reads == {field or "observation": text for field, text in words.items()}
    before = [[w.detach().clone() for w in field.parameters()] for field in agent.encoder.fields]
    ppo = PPO(agent, PPOConfig(num_epochs=1, num_minibatches=1))
    rollout, _ = collect(agent, env, start(agent, env), 3)
    assert all(np.isfinite(scalar) for scalar in ppo.update(rollout, 0.0).values())
    for field, weights, old in zip(agent.encoder.names, agent.encoder.fields, before, strict=True):
        assert not all(map(torch.equal, weights.parameters(), old)), field
    env.close()


@pytest.mark.parametrize("name", ["grey, large", "a stack", "NetHack's", "signs", "words"])
def test_holds_what_the_environment_showed(name: str, register: Register) -> None:
    """Every observation fits the flat space, and different ones stay different."""
    space, _ = SPACES[name]
    env = envs.make(register(lambda **_: SpaceEnv(space)), 2, seed=3)
    seen = [
        env.reset(),
        *(env.step(torch.zeros(2, dtype=torch.int64)).observation for _ in range(3)),
    ]
    for field, part in env.observation_space.spaces.items():
        rows = [observation[field][row] for observation in seen for row in range(2)]
        assert all(part.contains(row.numpy().astype(part.dtype)) for row in rows), field
        assert any(not torch.equal(row, rows[0]) for row in rows), field


def test_a_category_that_is_none_is_named(register: Register) -> None:
    class Wrong(SpaceEnv):
        def step(self, action: int) -> Any:
            return np.full((3, 3), 300, np.int64), 0.0, False, False, {}

    env = envs.make(register(lambda **_: Wrong(box((3, 3), np.int64, -1, 30))), 1)
    env.reset()
    with pytest.raises(EnvError, match="'observation' holds the category 301, which its space"):
        env.step(torch.zeros(1, dtype=torch.int64))


MINIGRID: dict[str, tuple[Callable[[Any], gymnasium.Env], str, str]] = {
    "Dict": (lambda env: env, "image", f"grid 7x7 {OF_MINIGRID}"),
    "image only": (ImgObsWrapper, "observation", f"grid 7x7 {OF_MINIGRID}"),
    "one-hot": (OneHotPartialObsWrapper, "image", f"grid 7x7 {OF_MINIGRID}"),
    "one-hot, image only": (
        lambda env: ImgObsWrapper(OneHotPartialObsWrapper(env)),
        "observation",
        f"grid 7x7 {OF_MINIGRID}",
    ),
    "stack": (
        lambda env: FrameStackObservation(ImgObsWrapper(env), 2),
        "observation",
        f"grid 7x7 of categories (11, 6, 4, 11, 6, 4) {GRID}",
    ),
    "stack of one-hot": (
        lambda env: FrameStackObservation(ImgObsWrapper(OneHotPartialObsWrapper(env)), 2),
        "observation",
        f"grid 7x7 of categories (11, 6, 4, 11, 6, 4) {GRID}",
    ),
    "small view": (lambda env: ViewSizeWrapper(env, 5), "image", f"grid 5x5 {OF_MINIGRID}"),
    "whole": (
        lambda env: ImgObsWrapper(FullyObsWrapper(env)),
        "observation",
        f"grid 9x9 {OF_MINIGRID}",
    ),
    "symbolic": (SymbolicObsWrapper, "image", f"grid 9x9 of categories (9, 9, 12) {GRID}"),
    "small picture": (
        lambda env: RGBImgPartialObsWrapper(env, tile_size=4),
        "image",
        "image uint8 28x28x3 channels last -> CNN",
    ),
    "tiny picture": (
        lambda env: ImgObsWrapper(RGBImgObsWrapper(env, tile_size=1)),
        "observation",
        "image uint8 9x9x3 channels last -> CNN",
    ),
}


@pytest.mark.parametrize("name", MINIGRID)
def test_minigrid_is_a_grid_wherever_it_comes_through(name: str, register: Register) -> None:
    wrap, field, words = MINIGRID[name]
    env_id = register(lambda **_: wrap(gymnasium.make("MiniGrid-MemoryS9-v0")))
    env = envs.make(env_id, 2, seed=5)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(dim=8, heads=2))
    assert agent.encoder.reads[field] == words
    plain = envs.make("MiniGrid-MemoryS9-v0", 2, seed=5, backend="gymnasium")
    seen, expected = env.reset()[field], plain.reset()["image"]
    if seen.shape[1:3] == (7, 7):
        for action in (0, 2, 1, 2):
            assert torch.equal(seen[..., -3:], expected)
            actions = torch.full((2,), action)
            seen = env.step(actions).observation[field]
            expected = plain.step(actions).observation["image"]


def test_a_whole_view_too_large_for_places_is_a_grid(register: Register) -> None:
    env = envs.make(register(lambda **_: FullyObsWrapper(gymnasium.make("mtxl/MemoryS65-v0"))), 1)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(dim=8, heads=2))
    words = "grid 65x65 of categories (11, 6, 4) -> embeddings -> CNN"
    assert agent.encoder.reads["image"] == words
    start(agent, env)
