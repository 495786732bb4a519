"""A Gymnasium environment that goes wrong is named, ended and cleaned up after."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from faulty_env import FAULTY_STEP, FaultyEnv
from programs import started
from single_envs import single_envs

import envs
from envs.wrapped.guarded_env import EnvError, GuardedEnv
from envs.wrapped.gymnasium_adapter import GymnasiumEnv

Register = Callable[[type[FaultyEnv]], str]


class OneFaultyEnv(FaultyEnv):
    """The fault is that of env number 1 of a batch alone."""

    number = 0

    def __init__(self, fault: Any = None, **_: Any):
        super().__init__(fault if OneFaultyEnv.number == 1 else None)
        OneFaultyEnv.number += 1


def make_batch(fault: Any, timeout: float | None = None) -> GymnasiumEnv:
    OneFaultyEnv.number = 0
    gymnasium.register("OneFaulty-v0", OneFaultyEnv, kwargs={"fault": fault})
    try:
        env = envs.make("OneFaulty-v0", 3, timeout=timeout)
    finally:
        del gymnasium.registry["OneFaulty-v0"]
    assert isinstance(env, GymnasiumEnv)
    return env


@pytest.fixture
def register() -> Iterator[Register]:
    """Register a class as an environment for one test."""
    names = []

    def add(kind: type[FaultyEnv]) -> str:
        names.append(f"{kind.__name__}-v0")
        gymnasium.register(names[-1], lambda **_: kind())
        return names[-1]

    yield add
    for name in names:
        del gymnasium.registry[name]


def step_until_it_fails(env: GymnasiumEnv) -> str:
    env.reset()
    try:
        for _ in range(FAULTY_STEP - 1):
            env.step(torch.zeros(3, dtype=torch.int64))
        with pytest.raises(EnvError) as error:
            env.step(torch.zeros(3, dtype=torch.int64))
    finally:
        env.close()
    return str(error.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "step 3 failed: RuntimeError: the simulator crashed"),
        ({"vector": np.zeros(3)}, "returned for observation 'vector' an array of shape (3,) and "
         "dtype float64, which its space Box(-1.0, 1.0, (2,), float32) does not hold"),
        ({"vector": np.array(["a", "b"])}, "returned for observation 'vector' an array of shape"),
        ({"vector": [[1], [2, 3]]}, "returned for observation 'vector' [[1], [2, 3]], which"),
        ({"vector": None}, "returned for observation 'vector' None, which its space"),
        ({"symbol": 0.5}, "returned for observation 'symbol' 0.5, which its space Discrete(3)"),
        ({"observation": {"vector": np.zeros(2, np.float32)}}, "returned no observation 'symbol'"),
        ({"observation": 7}, "returned no observation"),
        ({"reward": None}, "step 3 returned the reward None, not a number"),
        ({"reward": np.zeros(2)}, "step 3 returned the reward an array of shape (2,) and"),
        ({"result": (0, 1)}, "step 3 returned (0, 1), not 5 values"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_named(fault: Any, message: str) -> None:
    said = step_until_it_fails(make_batch(fault))
    assert said.startswith("OneFaulty-v0, env 1 of 3: step 3 "), said
    assert message in said


def test_a_category_that_there_is_not_is_named() -> None:
    said = step_until_it_fails(make_batch({"symbol": 3}))
    assert said == (
        "OneFaulty-v0, env 1: observation 'symbol' holds the category 3, which its space does not "
        "have"
    )


def test_a_box_may_be_overstepped() -> None:
    env = make_batch({"vector": np.full(2, 1.001, np.float32)})
    env.reset()
    steps = [env.step(torch.zeros(3, dtype=torch.int64)) for _ in range(FAULTY_STEP)]
    assert steps[-1].observation["vector"][1, 0] == pytest.approx(1.001)
    env.close()


def test_the_first_observation_is_looked_at_too(register: Register) -> None:
    class Wrong(FaultyEnv):
        def reset(self, **_: Any) -> Any:
            return {"vector": np.zeros((2, 2), np.float32), "symbol": 0}, {}

    env = envs.make(register(Wrong), 2)
    with pytest.raises(EnvError, match=r"Wrong-v0, env 0 of 2: reset after 0 returned for obs"):
        env.reset()
    env.close()


def test_one_that_hangs_is_interrupted_and_named() -> None:
    started = time.monotonic()
    said = step_until_it_fails(make_batch("hangs", timeout=0.4))
    assert said == (
        "OneFaulty-v0, env 1 of 3: step 3 failed: TookTooLong: it has not ended after 0.4 s"
    )
    assert time.monotonic() - started < 30


def test_a_batch_that_is_slow_as_a_whole_is_not() -> None:
    """The limit is for each environment, and time between steps does not count."""
    env = make_batch(None, timeout=0.5)
    env.reset()
    for one in single_envs(env):
        assert isinstance(one, GuardedEnv)
        inner = one.env
        step = inner.step
        inner.step = lambda a, step=step: (time.sleep(0.25), step(a))[1]  # type: ignore[method-assign]
    env.step(torch.zeros(3, dtype=torch.int64))
    time.sleep(0.7)
    env.step(torch.zeros(3, dtype=torch.int64))
    env.close()


def test_one_that_ends_the_process_is_an_error(register: Register) -> None:
    """As those do whose window is closed."""

    class Leaving(FaultyEnv):
        def step(self, action: Any) -> Any:
            sys.exit()

    env = envs.make(register(Leaving), 2)
    env.reset()
    with pytest.raises(EnvError, match="env 0 of 2: step 1 failed: SystemExit"):
        env.step(torch.zeros(2, dtype=torch.int64))
    env.close()


def test_the_last_observation_of_an_episode_is_looked_at(register: Register) -> None:
    class Wrong(FaultyEnv):
        def step(self, action: Any) -> Any:
            return self._observe() | {"symbol": 7}, 0.0, False, True, {}

    env = envs.make(register(Wrong), 2)
    env.reset()
    with pytest.raises(
        EnvError, match=r"Wrong-v0, env 0: observation 'symbol' holds the category 7"
    ):
        env.step(torch.zeros(2, dtype=torch.int64))
    env.close()


@pytest.mark.parametrize(
    ("result", "message"),
    [((0, {}, 1), "reset after 0 returned (0, {}, 1), not 2 values"),
     (({"vector": np.zeros(2, np.float32), "symbol": 0}, None), "returned the info None, not a d")],
)  # fmt: skip
def test_what_reset_returns_is_looked_at(result: Any, message: str, register: Register) -> None:
    class Wrong(FaultyEnv):
        def reset(self, **_: Any) -> Any:
            return result

    env = envs.make(register(Wrong), 2)
    with pytest.raises(EnvError) as error:
        env.reset()
    assert message in str(error.value)
    env.close()


def test_one_that_fails_to_close_is_a_warning(register: Register) -> None:
    class Stuck(FaultyEnv):
        is_probe = True

        def close(self) -> None:
            if not self.is_probe:
                raise RuntimeError("the simulator is gone")

    env = envs.make(register(Stuck), 2)
    Stuck.is_probe = False
    env.reset()
    with pytest.warns(RuntimeWarning, match=r"env \d of 2: close after 0 failed: .*is gone"):
        env.close()


@pytest.mark.slow
def test_one_that_never_returns_to_python_ends_the_process() -> None:
    env_id = "faulty_env:Faulty-hangs-in-C-v0"
    process = started("env_for_seconds", env_id, 100, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"{env_id}, env 0 of 2: step 3 has not ended after 1 s and cannot be " in err


@pytest.mark.slow
def test_a_process_that_was_stopped_does_not_hang() -> None:
    """Ctrl-Z, or a container that was paused."""
    process = started("env_for_seconds", "CartPole-v1", 12, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    process.send_signal(signal.SIGSTOP)
    time.sleep(8)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "done\n"
    assert process.returncode == 0
