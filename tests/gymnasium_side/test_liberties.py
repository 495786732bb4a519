"""What environments may do, and what they must not do in silence, in one process or in many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from faulty_env import FaultyEnv
from four_updates import make_config
from gymnasium import spaces
from liberties_env import LENGTH, ReusingEnv

import envs
from envs.construction import words_of
from envs.wrapped.guarded_env import EnvError
from mtxl_rl import train
from mtxl_rl.command import RunFailed

pytestmark = pytest.mark.unchecked

WAYS = ("sync", "async")
NUM_ENVS = 2


def zeros(num_envs: int = NUM_ENVS) -> torch.Tensor:
    return torch.zeros(num_envs, dtype=torch.int64)


# --- arrays, lists and infos that are written again


@pytest.mark.parametrize("kind", ["array", "dict", "tuple", "list"])
@pytest.mark.parametrize("vectorize", WAYS)
def test_the_last_observation_is_that_of_its_episode(kind: str, vectorize: Any) -> None:
    """An array that the next episode writes to is not what an episode saw last."""
    env = envs.make(
        "liberties_env:Reusing-v0", NUM_ENVS, vectorize=vectorize, env_kwargs={"kind": kind}
    )
    env.reset()
    for _ in range(2):
        for _ in range(LENGTH - 1):
            assert not env.step(zeros()).truncated.any()
        step = env.step(zeros())
        assert step.truncated.all()
        assert step.final_observation is not None
        for name, final in step.final_observation.items():
            if name != "action_mask":
                assert (final == LENGTH).all(), name
                assert (step.observation[name] == 0).all(), name
    env.close()


@pytest.mark.parametrize("vectorize", WAYS)
def test_an_info_that_is_kept_is_left_as_it_is(vectorize: Any) -> None:
    env = envs.make("liberties_env:Reusing-v0", NUM_ENVS, vectorize=vectorize)
    masks = [env.reset()["action_mask"].tolist()]
    masks += [env.step(zeros()).observation["action_mask"].tolist() for _ in range(3)]
    assert masks == [[[1, 1]] * 2, [[1, 1]] * 2, [[1, 0]] * 2, [[1, 1]] * 2]
    env.close()


# --- texts


@pytest.mark.filterwarnings("ignore:observation 'says' has a text of more than")
@pytest.mark.parametrize("num_episodes", [1, 2])
def test_texts_in_processes_are_those_of_one_process(num_episodes: int) -> None:
    """Of any letters and length, at any step, at the end of an episode and after it."""
    seen: list[list[Any]] = []
    for vectorize in WAYS:
        env = envs.make("liberties_env:Talking-v0", NUM_ENVS, vectorize=vectorize)
        steps = [env.reset()]
        for _ in range(LENGTH * num_episodes):
            step = env.step(zeros())
            steps += [step.observation, step.final_observation or {}]
        env.close()
        seen.append([{name: value.tolist() for name, value in part.items()} for part in steps])
    assert seen[0] == seen[1]


# --- numbers


class Returns(FaultyEnv):
    """Returns one thing for an observation."""

    def __init__(self, space: spaces.Space, value: Any, reward: Any = 1.0):
        self.observation_space, self.value, self.reward = space, value, reward

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.value, {}

    def step(self, action: Any) -> Any:
        return self.value, self.reward, False, False, {}


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Any:
    def of(space: spaces.Space, value: Any, reward: Any = 1.0) -> Any:
        name = "ReturnsForOneTest-v0"
        gymnasium.register(name, lambda **_: Returns(space, value, reward))
        request.addfinalizer(lambda: gymnasium.registry.pop(name))
        env = envs.make(name, NUM_ENVS)
        request.addfinalizer(env.close)
        return env

    return of


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Box(-100, 100, (1,), np.int8), np.array([300])),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([300], np.uint16)),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([-1], np.int8)),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), np.full((8, 8, 3), 256, np.uint16)),
        (spaces.Box(0, 9, (4, 4), np.int16), np.full((4, 4), 65539)),
        (spaces.MultiDiscrete([3, 3], dtype=np.int8), np.array([258, 0])),
        (spaces.MultiBinary(2), np.array([256, 0])),
        (spaces.Box(-100, 100, (1,), np.int8), [300]),
        (spaces.Box(-9, 9, (1,), np.int64), np.array([2**63], np.uint64)),
    ],
)
def test_numbers_that_a_dtype_does_not_hold_are_named(
    space: spaces.Space, value: Any, make: Any
) -> None:
    """They would become others: 300 is 44 in eight bits."""
    with pytest.raises(EnvError, match="env 0 of 2: reset after 0 returned for observation"):
        make(space, value).reset()


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Box(-100, 100, (1,), np.int8), np.array([100])),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([255], np.uint16)),
        (spaces.MultiDiscrete([3, 3], dtype=np.int8), np.array([2, 0])),
        (spaces.MultiBinary(2), np.array([1, 0])),
    ],
)
def test_wider_numbers_that_fit_are_taken(space: spaces.Space, value: Any, make: Any) -> None:
    seen = make(space, value).reset()["observation"]
    assert seen[1].flatten().tolist() == value.flatten().tolist()


class Foreign:
    """As a tensor on a GPU: NumPy cannot read it."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize("value", [torch.zeros(1, requires_grad=True), Foreign()])
def test_what_numpy_cannot_read_is_named(value: Any, make: Any) -> None:
    with pytest.raises(EnvError, match=r"reset after 0 returned for observation 'observation'"):
        make(spaces.Box(-1, 1, (1,)), value).reset()


@pytest.mark.parametrize("reward", [10**400, np.str_("good"), "1.0", None, np.zeros(2), 1j])
def test_what_is_no_reward_is_named(reward: Any, make: Any) -> None:
    env = make(spaces.Box(-1, 1, (1,)), np.zeros(1, np.float32), reward)
    env.reset()
    with pytest.raises(EnvError, match=r"env 0 of 2: step 1 returned the reward .*not a number"):
        env.step(zeros())


# --- errors that are no Exceptions


class Panic(BaseException):
    """As PyO3's."""


def test_a_panic_is_named_wherever_it_comes_from() -> None:
    class Panics(FaultyEnv):
        def __init__(self, when: str):
            self.when = when
            self.panic("constructor")

        def panic(self, when: str) -> None:
            if self.when == when:
                raise Panic("index out of range")

        def reset(self, **options: Any) -> Any:
            self.panic("reset")
            return super().reset(**options)

        def step(self, action: Any) -> Any:
            self.panic("step")
            return super().step(action)

    gymnasium.register("PanicsForOneTest-v0", lambda when, **_: Panics(when))
    try:
        with pytest.raises(ValueError, match=r"cannot be made .*Panic: index out of range; "):
            envs.make("PanicsForOneTest-v0", 2, env_kwargs={"when": "constructor"})
        env = envs.make("PanicsForOneTest-v0", 2, env_kwargs={"when": "reset"})
        with pytest.raises(EnvError, match="reset 0 failed: Panic: index out of range"):
            env.reset()
        env = envs.make("PanicsForOneTest-v0", 2, env_kwargs={"when": "step"})
        env.reset()
        with pytest.raises(EnvError, match="step 1 failed: Panic: index out of range"):
            env.step(zeros())
    finally:
        del gymnasium.registry["PanicsForOneTest-v0"]


# --- masks


def test_a_mask_that_only_steps_give_is_named() -> None:
    class Late(ReusingEnv):
        def reset(self, **options: Any) -> Any:
            return super().reset(**options)[0], {}

    gymnasium.register("LateMask-v0", lambda **_: Late())
    try:
        env = envs.make("LateMask-v0", 2)
        env.reset()
        with pytest.raises(EnvError, match=r"env 0 of 2: step 1 failed.* every reset and step"):
            env.step(zeros())
    finally:
        del gymnasium.registry["LateMask-v0"]


def test_a_mask_below_the_top_is_warned_of(make: Any) -> None:
    inner = spaces.Dict({"action_mask": spaces.MultiBinary(2), "x": spaces.Box(-1, 1, (1,))})
    value = {"o": {"action_mask": np.ones(2, np.int8), "x": np.zeros(1, np.float32)}}
    with pytest.warns(RuntimeWarning, match=r"observation 'o.action_mask' is only seen"):
        make(spaces.Dict({"o": inner}), value)


# --- processes of their own


def test_an_environment_with_a_process_runs_in_this_one() -> None:
    with pytest.warns(RuntimeWarning, match="processes cannot be: env="):
        env = envs.make("liberties_env:OwnProcess-v0", 2, vectorize="auto")
    assert env.num_processes == 0
    env.reset()
    env.step(zeros())
    env.close()
    with pytest.raises(ValueError, match=r"daemonic processes .*or set --vectorize sync"):
        envs.make("liberties_env:OwnProcess-v0", 2, vectorize="async")


# --- wrappers and options


@pytest.mark.parametrize("name", ["NormalizeObservation", "gymnasium.wrappers:NormalizeReward"])
def test_wrappers_whose_state_would_be_lost_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="which no checkpoint holds; "):
        envs.make("CartPole-v1", 1, wrap=[name])


@pytest.mark.parametrize("steps", [True, None, 2.5, "9"])
def test_a_limit_of_steps_is_a_whole_number(steps: Any) -> None:
    with pytest.raises(ValueError, match=r"max_episode_steps=.*must be a whole number; leave"):
        envs.make("CartPole-v1", 1, env_kwargs={"max_episode_steps": steps})


def test_an_empty_action_is_refused() -> None:
    class Empty(FaultyEnv):
        action_space = spaces.Box(0, 1, (0,))

    gymnasium.register("EmptyAction-v0", Empty)
    try:
        with pytest.raises(ValueError, match="is not supported; supported are"):
            envs.make("EmptyAction-v0", 1)
    finally:
        del gymnasium.registry["EmptyAction-v0"]


@pytest.mark.parametrize(
    "env_id",
    ["mtxl/Recall10x2-v0", "mtxl/EndlessTMaze5x2-v0", "mtxl/MortarMayhem-Grid-v0",
     "mtxl/popgym-RepeatFirstEasy-v0", "mtxl/popgym-BattleshipEasy-v0"],
)  # fmt: skip
def test_single_environments_refuse_what_tensors_refuse(env_id: str) -> None:
    envs.make(env_id, 1)  # registers it
    env = gymnasium.make(env_id, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    space: Any = env.action_space
    shape = space.shape
    for number in (99, -1):
        wrong = np.full(shape, number) if shape else number
        with pytest.raises(ValueError, match=r"is none of (Multi)?Discrete\(.*; take one"):
            env.step(wrong)
    env.step(np.zeros(shape, np.int64) if shape else 0)


@pytest.mark.parametrize(
    ("change", "undo", "words"),
    [
        (lambda: torch.set_default_dtype(torch.float64),
         lambda: torch.set_default_dtype(torch.float32), "default dtype is torch.float64: a mod"),
        (lambda: torch.set_default_device("meta"),
         lambda: torch.set_default_device(None), "default device is meta: a module that was imp"),
        (lambda: torch.set_grad_enabled(False),
         lambda: torch.set_grad_enabled(True), "grad mode is off: a module that was imported"),
    ],
)  # fmt: skip
def test_a_module_that_changes_what_torch_makes_is_refused(
    change: Any, undo: Any, words: str, tmp_path: Path
) -> None:
    change()
    try:
        with pytest.raises(ValueError, match=words):
            train.train(make_config(tmp_path / "run", env="CartPole-v1"))
    finally:
        undo()
    assert not (tmp_path / "run").exists()


def test_an_environment_that_fails_in_the_evaluation_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "run", env="CartPole-v1")

    def fail(*_: Any) -> None:
        raise EnvError("CartPole-v1, env 0 of 5: step 13 failed")

    with monkeypatch.context() as patch:
        patch.setattr("mtxl_rl.train.evaluate_agent", fail)
        with pytest.raises(
            EnvError,
            match=r"step 13 failed. That was in the evaluation at the en"
            "d; what was trained is in the run's last checkpoint, of .*--resume",
        ):
            train.train(config)
    resumed = replace(config, run_dir=None, resume=tmp_path / "run")
    assert train.train(resumed).episodes == config.eval_episodes


@pytest.mark.parametrize("changes", ["seed", ""])
def test_what_an_environment_draws_from_torch_is_its_own(changes: str) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    seen = []
    for _ in range(2):
        env = envs.make(
            "liberties_env:Torch-v0", NUM_ENVS, vectorize="sync", env_kwargs={"changes": changes}
        )
        seen.append([env.reset()["observation"]])
        for _ in range(LENGTH - 1):
            seen[-1].append(env.step(torch.zeros(NUM_ENVS, 1)).observation["observation"])
        env.close()
    assert torch.equal(torch.rand(3), expected)
    for first, second in zip(*seen, strict=True):
        assert torch.equal(first, second)  # by the seed
    assert len({tuple(each.flatten().tolist()) for each in seen[0]}) == LENGTH


def test_a_step_that_changes_torch_ends_the_run_and_says_so(tmp_path: Path) -> None:
    config = make_config(
        tmp_path / "run", env="liberties_env:Torch-v0", env_kwargs={"changes": "dtype"},
        vectorize="sync",
    )  # fmt: skip
    try:
        with pytest.raises(RunFailed, match="failed to act after 0 frames: torch's default dtype"):
            train.train(config)
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_environment_may_go_to_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    kwargs = {"changes": "folder", "folder": str(tmp_path / "other")}
    config = make_config(
        Path("runs/A"), env="liberties_env:Torch-v0", env_kwargs=kwargs, vectorize="sync"
    )
    train.train(config)
    assert (tmp_path / "runs" / "A" / "evaluation.json").exists()
    assert not list((tmp_path / "other").iterdir())


def test_a_run_does_not_go_on_in_an_environment_with_other_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same shapes: the weights would fit."""
    config = make_config(tmp_path / "run", env="liberties_env:Torch-v0", vectorize="sync")
    train.train(config)
    monkeypatch.setattr("liberties_env.TorchEnv.__init__.__defaults__", ("", "", 100.0))
    resumed = replace(config, run_dir=None, resume=tmp_path / "run", total_frames=256)
    with pytest.raises(
        ValueError,
        match=r"trained with actions: Box .* from -1.0 to 1.0 .*, and "
        r"its environment now has Box .* from -100.0 to 100.0 .*: what was learned",
    ):
        train.train(resumed)
    monkeypatch.undo()
    train.train(resumed)


def test_interventions_that_fail_leave_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise EnvError("CartPole-v1, env 0 of 5: step 13 failed")

    monkeypatch.setattr("mtxl_rl.train.evaluate_interventions", fail)
    with pytest.warns(RuntimeWarning, match="without its memory is not known: CartPole-v1, env 0"):
        train.train(make_config(tmp_path / "run", env="CartPole-v1"))
    assert (tmp_path / "run" / "evaluation.json").exists()


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [(WordlessError(), "step 1 failed: WordlessError$"),
     (ValueError("x" * 10**6), r"step 1 failed: ValueError: x{1000}\.\.\.$")],
)  # fmt: skip
def test_whatever_is_raised_is_said_in_short(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = envs.make("liberties_env:Torch-v0", NUM_ENVS, vectorize="sync")
    env.reset()

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("liberties_env.TorchEnv.step", fail)
    with pytest.raises(EnvError, match=words):
        env.step(torch.zeros(NUM_ENVS, 1))
    env.close()
    assert len(words_of(error)) < 1100  # as vector environments and constructors say it
