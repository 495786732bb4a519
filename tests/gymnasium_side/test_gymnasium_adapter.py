"""The adapter equals Gymnasium's own vector environment, in tensors."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformAction
from minigrid.core.actions import Actions
from minigrid.envs.empty import EmptyEnv
from minigrid.envs.memory import MemoryEnv
from minigrid.wrappers import FullyObsWrapper, ImgObsWrapper
from single_envs import single_envs

import envs
from envs.wrapped.gymnasium_adapter import GymnasiumEnv

NUM_ENVS = 3


class CountdownEnv(gymnasium.Env):
    """Ends after a few steps: by its time limit for even seeds, else in a terminal state.

    Observes every supported space at once.
    """

    observation_space = spaces.Dict(
        {
            "left": spaces.Discrete(9, start=-4),
            "nested": spaces.Dict(
                {"pair": spaces.MultiDiscrete([3, 4]), "bits": spaces.MultiBinary(2)}
            ),
            "both": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Text(20))),
            "picture": spaces.Box(0, 255, (4, 5, 3), np.uint8),
        }
    )
    action_space = spaces.Box(-1.0, 2.0, (2, 2))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.is_even = seed % 2 == 0
        self.left = 4
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        assert self.action_space.contains(action)
        self.left -= 1
        done = self.left == 0
        info = {"is_success": bool(self.is_even)} if done else {}
        return self._observe(), 1.5, done and not self.is_even, done and self.is_even, info

    def _observe(self) -> dict[str, Any]:
        return {
            "left": self.left,
            "nested": {"pair": np.array([self.left % 3, 1]), "bits": np.array([1, 0], np.int8)},
            "both": (np.full(2, self.left / 4, np.float32), f"{self.left} steps left"),
            "picture": np.full((4, 5, 3), self.left, np.uint8),
        }


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gymnasium.register("Countdown-v0", entry_point=lambda **_: CountdownEnv())
    yield
    del gymnasium.registry["Countdown-v0"]


@pytest.mark.parametrize("env_id", ["MiniGrid-MemoryS9-v0", "mtxl/TMaze10Active-v0"])
def test_sees_the_cue_as_the_table_does(env_id: str) -> None:
    levels = [5, 6, 7, 8, 9]
    pair = [
        envs.make(env_id, NUM_ENVS, backend=backend, level_seeds=levels)
        for backend in ("gymnasium", "tensor")
    ]
    first, second = pair
    assert first.has_cue
    assert second.has_cue
    first.reset()
    second.reset()
    seen = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        actions = torch.randint(3, (NUM_ENVS,), generator=generator)
        cue, expected = first.step(actions).cue, second.step(actions).cue
        assert cue is not None
        assert expected is not None
        assert torch.equal(cue, expected)
        seen |= set(cue.tolist())
    assert seen == {-1, 0, 1}


def test_a_cue_of_ones_own() -> None:
    env = envs.make("mtxl/Recall6-v0", 2, backend="gymnasium")
    observation = env.reset()
    assert env.has_cue
    cues = [env.step(torch.zeros(2, dtype=torch.int64)).cue for _ in range(9)]
    assert all(cue is not None for cue in cues)
    assert torch.equal(torch.stack(cues)[0], observation["observation"])  # type: ignore[arg-type]
    assert (torch.stack(cues)[1:8] == -1).all()  # type: ignore[arg-type]
    assert (torch.stack(cues)[8] >= 0).all()  # type: ignore[arg-type]
    assert not envs.make("CartPole-v1", 1).has_cue


def test_sees_the_cue_through_wrappers() -> None:
    gymnasium.register(
        "WrappedMemory-v0",
        entry_point=lambda **_: ImgObsWrapper(FullyObsWrapper(MemoryEnv(size=7))),
    )
    env = GymnasiumEnv("WrappedMemory-v0", 4, seed=1)
    env.reset()
    cues = [env.step(torch.full((4,), Actions.left)).cue for _ in range(4)]
    for index, one in enumerate(single_envs(env)):
        starts_in_sight = one.unwrapped.agent_pos[0] < 5  # type: ignore[attr-defined]
        seen = max(int(cue[index]) for cue in cues if cue is not None)
        assert (seen >= 0) == starts_in_sight
    del gymnasium.registry["WrappedMemory-v0"]


class CuedEnv(EmptyEnv):
    cue_in_view = 3


def test_a_cue_in_a_minigrid_of_ones_own() -> None:
    gymnasium.register("Cued-v0", entry_point=lambda **_: CuedEnv())
    env = GymnasiumEnv("Cued-v0", 2)
    env.reset()
    cue = env.step(torch.zeros(2, dtype=torch.int64)).cue
    assert cue is not None
    assert cue.tolist() == [3, 3]
    del gymnasium.registry["Cued-v0"]


def test_equals_sync_vector_env_step_by_step() -> None:
    """On MiniGrid, over many episodes: image, direction, reward, both flags, final observation."""
    env = GymnasiumEnv("MiniGrid-MemoryS7-v0", NUM_ENVS, seed=3)
    expected = SyncVectorEnv(
        [lambda: gymnasium.make("MiniGrid-MemoryS7-v0", max_steps=20)] * NUM_ENVS,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    for one in single_envs(env):
        one.unwrapped.max_steps = 20  # type: ignore[attr-defined]  # so that some are truncated
    observation = env.reset()
    expected_observation, _ = expected.reset(seed=list(env._seeds))
    rng = np.random.default_rng(0)
    num_episodes = num_truncated = num_successes = 0
    for _ in range(400):
        for name in ("image", "direction"):
            assert (observation[name].numpy() == expected_observation[name]).all()
        actions = rng.choice([0, 1, 2, 2], NUM_ENVS)
        step = env.step(torch.as_tensor(actions))
        expected_observation, reward, terminated, truncated, info = expected.step(actions)
        observation = step.observation
        assert (step.reward.numpy() == reward.astype(np.float32)).all()
        assert (step.terminated.numpy() == terminated).all()
        assert (step.truncated.numpy() == truncated).all()
        done = terminated | truncated
        assert (step.success.numpy() == (done & (reward > 0))).all()
        assert (step.final_observation is not None) == truncated.any()
        for row in np.flatnonzero(truncated):
            assert step.final_observation is not None
            final_image = step.final_observation["image"][row].numpy()
            assert (final_image == info["final_obs"][row]["image"]).all()
        num_episodes += int(done.sum())
        num_truncated += int(truncated.sum())
        num_successes += int(step.success.sum())
    assert num_episodes > 30
    assert num_truncated > 5
    assert num_successes > 5
    env.close()
    expected.close()


def test_a_constant_mission_is_left_out_and_another_is_kept() -> None:
    constant = GymnasiumEnv("MiniGrid-MemoryS7-v0", 1)
    assert set(constant.observation_space.spaces) == {"image", "direction"}
    varying = GymnasiumEnv("MiniGrid-Fetch-5x5-N2-v0", 2)
    assert set(varying.observation_space.spaces) == {"image", "direction", "mission"}
    assert (varying.reset()["mission"][:, 0] > 0).all()
    babyai = envs.make("BabyAI-GoToRedBallGrey-v0", 1)
    assert "mission" in babyai.observation_space.spaces


def test_every_space_becomes_a_field() -> None:
    env = envs.make("Countdown-v0", NUM_ENVS)
    observation = env.reset()
    assert set(observation) == {"left", "nested.pair", "nested.bits", "both.0", "both.1", "picture"}
    assert set(env.observation_space.spaces) == set(observation)
    for name, space in env.observation_space.spaces.items():
        for row in observation[name]:
            assert space.contains(np.asarray(row, space.dtype)), name
    assert observation["left"].tolist() == [8, 8, 8]  # 4, counted from the space's start
    assert observation["picture"].dtype == torch.uint8
    assert observation["both.1"][0].tolist() == [*b"4 steps left", *[0] * 8]


def test_final_observation_and_success_of_any_environment() -> None:
    env = envs.make("Countdown-v0", NUM_ENVS)
    env._seeds = [0, 1, 2]  # type: ignore[attr-defined]
    env.reset()
    assert not env.has_success
    for _ in range(3):
        assert env.step(torch.zeros(NUM_ENVS, 4)).final_observation is None
    step = env.step(torch.zeros(NUM_ENVS, 4))
    assert step.truncated.tolist() == [True, False, True]
    assert step.terminated.tolist() == [False, True, False]
    assert step.success.tolist() == [True, False, True]
    assert env.has_success
    assert step.final_observation is not None
    assert step.final_observation["left"].tolist() == [4, 8, 4]  # row 1 was not truncated
    assert step.final_observation["both.0"][0].tolist() == [0.0, 0.0]
    assert step.observation["left"].tolist() == [8, 8, 8]


def test_observations_are_not_written_over_by_the_next_step() -> None:
    env = envs.make("Countdown-v0", 1)
    first = env.reset()
    before = {name: tensor.clone() for name, tensor in first.items()}
    env.step(torch.zeros(1, 4))
    assert all(torch.equal(first[name], before[name]) for name in first)


def test_box_actions_are_clipped_to_their_space() -> None:
    env = envs.make("Countdown-v0", 1)
    env.reset()
    env.step(torch.full((1, 4), 99.0))  # the environment asserts that its space contains it


def test_discrete_actions_count_from_the_start_of_their_space() -> None:
    gymnasium.register(
        "Shifted-v0",
        entry_point=lambda **_: TransformAction(
            gymnasium.make("CartPole-v1"), lambda a: a - 5, spaces.Discrete(2, start=5)
        ),
    )
    env = envs.make("Shifted-v0", 2)
    env.reset()
    env.step(torch.tensor([0, 1]))
    del gymnasium.registry["Shifted-v0"]


def test_same_seed_same_levels_other_seed_other_levels() -> None:
    def images(seed: int) -> torch.Tensor:
        env = GymnasiumEnv("MiniGrid-MemoryS17Random-v0", 16, seed=seed)
        return env.reset()["image"]

    assert torch.equal(images(1), images(1))
    assert not torch.equal(images(1), images(2))


def test_renders() -> None:
    env = GymnasiumEnv("MiniGrid-MemoryS7-v0", 1, render_mode="rgb_array")
    env.reset()
    assert env.render(0).shape[2] == 3
    plain = GymnasiumEnv("MiniGrid-MemoryS7-v0", 1)
    plain.reset()
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        plain.render(0)
    with pytest.raises(ValueError, match="does not draw pictures as 'rgb_array'"):
        envs.make("mtxl/Recall6-v0", 1, render_mode="rgb_array", backend="gymnasium")


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("MiniGrid-MemoryS8-v0", "did you mean MiniGrid-MemoryS9-v0"),
        ("nothing like it", "is not registered with Gymnasium .ours are like.*To use"),
    ],
)
def test_unknown_id_names_the_nearest(env_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.make(env_id, 1)


def test_rejects_spaces_it_cannot_take() -> None:
    class Strange(CountdownEnv):
        observation_space = spaces.Dict({"s": spaces.Sequence(spaces.Discrete(2))})

    class Odd(CountdownEnv):
        action_space = spaces.MultiBinary(3)  # type: ignore[assignment]

    gymnasium.register("Strange-v0", entry_point=lambda **_: Strange())
    gymnasium.register("Odd-v0", entry_point=lambda **_: Odd())
    with pytest.raises(ValueError, match=r"observation 's' has space Sequence.*not supported"):
        envs.make("Strange-v0", 1)
    with pytest.raises(ValueError, match=r"action space MultiBinary\(3\) is not supported"):
        envs.make("Odd-v0", 1)
    with pytest.raises(ValueError, match="num_envs=0 must be 1 or more"):
        envs.make("CartPole-v1", 0)
    del gymnasium.registry["Strange-v0"], gymnasium.registry["Odd-v0"]
