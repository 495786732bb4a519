"""Settings of every test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch

# On a machine with a busy neighbour, two threads are many times slower than one.
torch.set_num_threads(1)


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
