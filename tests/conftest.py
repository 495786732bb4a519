"""Settings of every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from jaxtyping import config

if TYPE_CHECKING:
    from construction_env import Make

    from envs import BatchedEnv

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads are many times slower than one beside a busy neighbour, as other tests are."""
    yield
    torch.set_num_threads(1)  # what a test calls may have set more


@pytest.fixture(autouse=True)
def _checks_types(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check types and shapes in every call, but where a test says that others have checked them."""
    config.update("jaxtyping_disable", request.node.get_closest_marker("unchecked") is not None)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def hears_hangups() -> Iterator[None]:
    """Let SIGHUP reach the test and its processes, also where all of it runs under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def cuda() -> torch.device:
    """Skip the test where there is no GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.fixture
def without_interventions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run that ends be evaluated without changes of its memory, which take a while."""
    monkeypatch.setattr("mtxl_rl.train.evaluate_interventions", lambda *_: {})


@pytest.fixture
def make() -> Iterator[Make]:
    """Make an environment of a class, or of an id; close it after the test."""
    import gymnasium

    import envs

    made: list[BatchedEnv] = []

    def make_one(what: Any, num_envs: int = 3, **options: Any) -> BatchedEnv:
        env_id = what
        if not isinstance(what, str):
            env_id = "Made-v0"
            gymnasium.register(env_id, what)
        try:
            made.append(envs.make(env_id, num_envs, **options))
        finally:
            gymnasium.registry.pop("Made-v0", None)
        return made[-1]

    yield make_one
    for env in made:
        env.close()
