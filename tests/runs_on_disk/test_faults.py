"""Faults of numbers, environments, memory and films: what was trained is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from eight_updates import NUM_UPDATES, at_update, frames_saved, make_config
from faulty_env import FaultyEnv
from programs import HELPERS, ROOT
from safetensors.torch import load_file

from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPO
from mtxl_rl import train
from mtxl_rl.command import RunFailed
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.evaluate import evaluate
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.gradient_watch import MAX_IN_A_ROW, GradientWatch
from mtxl_rl.signals import Stopped

pytestmark = [pytest.mark.unchecked, pytest.mark.usefixtures("without_interventions")]


class NanEnv(FaultyEnv):
    """Gives a reward that is not finite from a step on."""

    first, last = 40, 10**9
    count = 0

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        NanEnv.count += 1
        is_wrong = self.first <= NanEnv.count <= self.last
        return observation, float("nan") if is_wrong else 1.0, terminated, truncated, info


@pytest.fixture
def nan_env(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(NanEnv, "count", 0)
    gymnasium.register("Nan-v0", lambda **_: NanEnv({}))
    yield "Nan-v0"
    del gymnasium.registry["Nan-v0"]


def test_a_few_that_are_not_finite_are_skipped(
    nan_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NanEnv, "last", 41)
    with pytest.warns(RuntimeWarning, match="100% of the update to 64 frames was skipped: reward "
                      r"is nan in env \d, \d, from step 9 of the rollout on"):  # fmt: skip
        train.train(make_config(tmp_path / "run", env=nan_env))
    assert frames_saved(tmp_path / "run")[-1] == NUM_UPDATES


def test_many_in_a_row_stop_the_run_and_the_rollout_is_saved(nan_env: str, tmp_path: Path) -> None:
    with (
        pytest.warns(RuntimeWarning, match="Weights stay"),
        pytest.raises(
            RunFailed,
            match=r"reward is nan in env 0, .*for the 5th time in a row. The rollout is in",
        ),
    ):
        train.train(make_config(tmp_path / "run", env=nan_env))
    rollout = load_file(tmp_path / "run" / "non_finite" / "rollout.safetensors")
    assert rollout["rollout.reward"].shape == (16, 4)
    assert rollout["rollout.reward"].isnan().all()
    assert "reward is nan" in (tmp_path / "run" / "non_finite" / "rollout.json").read_text()
    assert frames_saved(tmp_path / "run")[-1] == 5
    weights = load_file(checkpoint.newest_checkpoint(tmp_path / "run") / checkpoint.MODEL)
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(trainer: Trainer) -> None:
        with torch.no_grad():
            trainer.agent.critic.weight.fill_(torch.inf)

    at_update(monkeypatch, 4, spoil)
    with pytest.warns(RuntimeWarning) as caught, pytest.raises(RunFailed, match="value is"):
        train.train(make_config(tmp_path / "run", keep=9))
    assert frames_saved(tmp_path / "run") == [2]
    assert any("weights are not finite (critic.weight)" in str(w.message) for w in caught)


def test_a_signal_in_the_last_update_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_update(monkeypatch, NUM_UPDATES, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train.train(make_config(tmp_path / "run"))
    assert frames_saved(tmp_path / "run")[-1] == NUM_UPDATES
    assert not (tmp_path / "run" / "evaluation.json").exists()


@pytest.mark.slow
def test_an_environment_that_fails_ends_the_run_with_a_name_and_a_checkpoint(
    tmp_path: Path,
) -> None:
    for fault, said in (
        ("raises", "step 3 failed: RuntimeError: the simulator crashed"),
        ("hangs", "step 3 failed: TookTooLong: it has not ended after 0.5 s"),
    ):
        run_dir = tmp_path / fault
        done = subprocess.run(
            [sys.executable, "-m", "mtxl_rl.train", "--env", f"faulty_env:Faulty-{fault}-v0",
             "--env-timeout", "0.5", "--num-envs", "4", "--core.dim", "8", "--core.heads", "2",
             "--ppo.rollout-len", "1", "--ppo.num-minibatches", "1", "--run-dir", str(run_dir),
             "--num-threads", "1", "--compile", "off", "--core.seq-len", "1"],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"PYTHONPATH": str(HELPERS)},
        )  # fmt: skip
        assert done.returncode == 1
        name = f"error: faulty_env:Faulty-{fault}-v0, env 0 of 4: "
        assert name + said in done.stderr
        assert "Traceback" not in done.stderr
        newest = checkpoint.newest_checkpoint(run_dir)
        assert newest.name == f"frames_{2 * 4:012d}"  # the two updates before it


def test_the_process_that_makes_levels_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DoorKey's levels come from one; also when training fails."""
    processes = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        "envs.levels.level_pool.subprocess.Popen",
        lambda *a, **k: processes.append(popen(*a, **k)) or processes[-1],
    )
    monkeypatch.setattr("envs.grids.grid_env.RENEW_EVERY", 16)
    monkeypatch.setattr(PPO, "update", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.train(make_config(tmp_path / "run", env="MiniGrid-DoorKey-5x5-v0"))
    assert processes
    assert all(process.poll() is not None for process in processes)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore"),
     RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GiB"),
     MemoryError()],
)  # fmt: skip
def test_out_of_memory_says_what_was_asked_for(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(PPO, "update", fail)
    with pytest.raises(RunFailed, match=r"out of memory with num_envs=4, rollout_len=16.*Raise --"):
        train.train(make_config(tmp_path / "run"))


def test_another_error_is_not_taken_for_one_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(PPO, "update", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train.train(make_config(tmp_path / "run"))
    assert not checkpoint.list_checkpoints(tmp_path / "run")  # the update may be torn


@pytest.mark.parametrize(
    ("place", "error"),
    [("mtxl_rl.evaluations.film.write_frames", RuntimeError("No ffmpeg exe could be found")),
     ("envs.wrapped.gymnasium_adapter.GymnasiumEnv.render",
      gymnasium.error.DependencyNotInstalled("x"))],
)  # fmt: skip
def test_a_film_that_cannot_be_made_is_left_out(
    place: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    train.train(make_config(tmp_path / "run"))
    monkeypatch.setattr(place, fail)
    options = EvaluateConfig(episodes=2, num_envs=1, video=tmp_path / "film.mp4")
    with pytest.warns(RuntimeWarning, match=r"no film .*film.mp4: .*goes on") as w:
        result = evaluate(tmp_path / "run", options)
    assert result.episodes == 2
    assert len([each for each in w if "no film" in str(each.message)]) == 1
    assert not (tmp_path / "film.mp4").exists()


def test_a_ratio_that_is_off_ends_the_run_with_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(trainer: Trainer) -> None:
        monkeypatch.setattr(trainer.ppo, "ratio_tolerance", lambda: torch.tensor(-1.0))

    at_update(monkeypatch, 3, spoil)
    with pytest.raises(RunFailed, match=r"after 192 frames the first mini.*--resume .*run goes"):
        train.train(make_config(tmp_path / "run"))
    assert frames_saved(tmp_path / "run") == [2, 3]


def test_gradients_far_above_their_limit_are_said_once() -> None:
    watch = GradientWatch(max_grad_norm=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3 * MAX_IN_A_ROW):
            watch.look(9.9)  # within 20 times
        for norm in [10.1] * (MAX_IN_A_ROW - 1) + [float("nan")] + [10.1] * (MAX_IN_A_ROW - 1):
            watch.look(norm)
    with pytest.warns(RuntimeWarning, match=r"norm \(30\) has been more than 20 times max_grad"):
        watch.look(30.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3 * MAX_IN_A_ROW):
            watch.look(30.0)
