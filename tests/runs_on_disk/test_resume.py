"""A run that goes on is the run that never stopped, to the bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import started, started_module

from agents.cores.core import CORES, CoreKind, core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPOConfig
from experiments.benchmarks.kills import KillsConfig, curves, difference, kills
from mtxl_rl import train
from mtxl_rl.config import TrainConfig
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.run_logger import RunLogger
from mtxl_rl.signals import Stopped, StopSignals

pytestmark = pytest.mark.unchecked

NUM_UPDATES, STOPPED_AFTER = 12, 7


def make_config(run_dir: Path, kind: CoreKind = "mtxl", **options: Any) -> TrainConfig:
    memory: dict[str, Any] = {"heads": 2, "seq_len": 8, "mem_len": 5}
    core = core_config(kind=kind, dim=8, depth=1, **(memory if kind in ("mtxl", "gtrxl") else {}))
    config = TrainConfig(
        env="MiniGrid-MemoryS7-v0",
        total_frames=NUM_UPDATES * 6 * 20,
        num_envs=6,
        device="cpu",
        num_threads=1,
        compile="off",
        eval_episodes=2,
        checkpoint_every=3 * 6 * 20,
        run_dir=run_dir,
        core=core,
        ppo=PPOConfig(rollout_len=20, num_minibatches=2, num_epochs=2),
    )
    config = replace(config, **options)
    is_minigrid = config.env.startswith("MiniGrid")
    return replace(config, env_kwargs={"max_steps": 40} if is_minigrid else {})


@pytest.fixture(autouse=True)
def _without_interventions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than these runs."""
    monkeypatch.setattr(train, "evaluate_interventions", lambda *_: {})


def stop_after(monkeypatch: pytest.MonkeyPatch, num_updates: int) -> None:
    """Let the process get a SIGTERM in the middle of an update."""
    collect = Trainer.collect
    calls = []

    def collect_and_count(trainer: Trainer) -> Any:
        calls.append(1)
        if len(calls) == num_updates:
            os.kill(os.getpid(), signal.SIGTERM)
        return collect(trainer)

    monkeypatch.setattr(Trainer, "collect", collect_and_count)


@pytest.mark.parametrize(
    ("env_id", "kind"),
    [("MiniGrid-MemoryS7-v0", kind) for kind in CORES]
    + [
        ("MiniGrid-DoorKey-5x5-v0", "mtxl"),
        ("mtxl/Recall1to8x3gap2shows2-v0", "mtxl"),
        ("mtxl/Recall40-v0", "mtxl"),  # stopped while its envs are being set apart
    ],
)
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    env_id: str, kind: CoreKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was killed after its last checkpoint."""
    whole = make_config(tmp_path / "whole", kind, env=env_id, stop_at_success=1.0)
    train.train(whole)
    stopped = replace(whole, run_dir=tmp_path / "stopped")
    with monkeypatch.context() as patch:
        stop_after(patch, STOPPED_AFTER)
        with pytest.raises(Stopped):
            train.train(stopped)
    newest = checkpoint.list_checkpoints(tmp_path / "stopped")[-1]
    assert newest.name == f"frames_{STOPPED_AFTER * 120:012d}"
    shutil.rmtree(newest)  # as if it had been killed
    train.train(replace(stopped, run_dir=None, resume=tmp_path / "stopped"))

    assert len(curves(tmp_path / "whole")["losses/entropy"]) == NUM_UPDATES
    assert difference(tmp_path / "whole", tmp_path / "stopped") is None


def test_gymnasium_environments_go_on_with_fresh_episodes_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path / "run", env="mtxl/Recall6-v0", backend="gymnasium")
    with monkeypatch.context() as patch:
        stop_after(patch, STOPPED_AFTER)
        with pytest.raises(Stopped):
            train.train(config)
    train.train(replace(config, run_dir=None, resume=tmp_path / "run"))
    out = capsys.readouterr().out
    assert "from 840 frames; these environments cannot save their state: all of them start" in out
    steps = [step for step, _ in curves(tmp_path / "run")["losses/entropy"]]
    assert steps == [120 * n for n in range(1, NUM_UPDATES + 1)]


def test_a_run_that_winds_down_goes_on_winding_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtxl_rl.runs.metrics.EpisodeWindow.reaches", lambda *_: True)
    monkeypatch.setattr("mtxl_rl.runs.schedule.WIND_DOWN_UPDATES", 9)
    config = make_config(tmp_path / "run", stop_at_success=0.5, total_frames=10**6)
    with monkeypatch.context() as patch:
        stop_after(patch, STOPPED_AFTER)
        with pytest.raises(Stopped):
            train.train(config)
    train.train(replace(config, run_dir=None, resume=tmp_path / "run"))
    steps = curves(tmp_path / "run")["charts/learning_rate"]
    assert len(steps) == 1 + 9
    assert steps[-1][1] < 0.2 * steps[0][1]
    with pytest.raises(ValueError, match="it is finished; start another run from it with --init-"):
        train.train(replace(config, run_dir=None, resume=tmp_path / "run"))


@pytest.mark.usefixtures("hears_hangups")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGUSR1, 143),
        (signal.SIGHUP, 143),
    ],
)
def test_a_signal_saves_and_a_resumed_run_ends(
    number: signal.Signals, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    options = (
        "--env", "MiniGrid-MemoryS7-v0", "--num-envs", "6", "--device", "cpu", "--num-threads", "1",
        "--eval-episodes", "2", "--env-kwargs", '{"max_steps": 40}', "--core.dim", "8",
        "--core.heads", "2", "--core.depth", "1", "--total-frames", "100000000",
        "--ppo.rollout-len", "20", "--ppo.num-minibatches", "2", "--compile", "off",
    )  # fmt: skip
    process = started_module(
        "mtxl_rl.train", *options, "--run-dir", run_dir, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Run:"):
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "what was trained is in the run's last checkpoint" in err
    newest = checkpoint.newest_checkpoint(run_dir)
    frames = int(newest.name.removeprefix("frames_"))
    assert frames % 120 == 0
    arguments = ["--resume", str(run_dir), "--total-frames", str(frames + 240)]
    train.train(train.read_options(arguments))
    assert f"Resumed:      from {frames:,} frames\n" in capsys.readouterr().out
    assert (run_dir / "evaluation.json").is_file()


def test_a_second_signal_exits_at_once() -> None:
    """Also in the middle of an update that never ends."""
    process = started("never_stops")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    process.stdout.close()


@pytest.mark.usefixtures("hears_hangups")
def test_a_closed_terminal_says_so_twice_and_one_under_nohup_not_at_all() -> None:
    with StopSignals() as signals:
        for _ in range(2):  # the second is no reason to exit without saving
            os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Stopped, match="SIGHUP"):
            signals.check()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            signals.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_refuses_other_options_and_lists_them(tmp_path: Path) -> None:
    train.train(make_config(tmp_path / "run"))
    resume = ["--resume", str(tmp_path / "run")]
    config = train.read_options([*resume, "--total-frames", "9000", "--num-threads", "2"])
    assert (config.total_frames, config.num_threads, config.core.dim) == (9000, 2, 8)
    with pytest.raises(ValueError, match="is another run") as error:
        train.read_options([*resume, "--core.dim", "16", "--env", "CartPole-v1"])
    assert "env is MiniGrid-MemoryS7-v0 in the run and CartPole-v1 here" in str(error.value)
    assert "core.dim is 8 in the run and 16 here" in str(error.value)
    assert "core.depth" not in str(error.value)
    with pytest.raises(ValueError, match="is not a run directory"):
        train.read_options(["--resume", str(tmp_path)])
    finished = train.read_options([f"--resume={tmp_path / 'run'}"])
    with pytest.raises(ValueError, match="1,440 of 1,440 frames: it is finished; raise --total"):
        train.train(finished)


def test_a_state_that_does_not_fit_names_the_tensor(tmp_path: Path) -> None:
    config = make_config(tmp_path / "run")
    train.train(config)
    newest = checkpoint.newest_checkpoint(tmp_path / "run")
    model = torch.nn.Linear(1, 1)
    header = checkpoint.check_checkpoint(newest)
    assert header["frames"] == NUM_UPDATES * 120
    with pytest.raises(ValueError, match="does not fit the network"):
        checkpoint.load_checkpoint(newest, config, model)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, pytest.param(5, marks=pytest.mark.proof)])
def test_killed_it_ends_bit_equal(number: int, tmp_path: Path) -> None:
    assert kills(KillsConfig(kills=number, folder=tmp_path / "kills")) is None


def test_a_difference_of_one_bit_or_one_point_is_seen(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train.train(make_config(tmp_path / name))
    assert difference(tmp_path / "one", tmp_path / "two") is None
    newest = checkpoint.newest_checkpoint(tmp_path / "two")
    content = bytearray((newest / checkpoint.MODEL).read_bytes())
    content[-1] ^= 1
    (newest / checkpoint.MODEL).write_bytes(content)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert "frames_000000001440 and frames_" in str(
            difference(tmp_path / "one", tmp_path / "two")
        )
    content[-1] ^= 1
    (newest / checkpoint.MODEL).write_bytes(content)
    logger = RunLogger(tmp_path / "two", make_config(tmp_path / "two"), go_on_from=1440)
    logger.log({"losses/entropy": 1.0}, 1441)
    logger.close()
    assert difference(tmp_path / "one", tmp_path / "two") == "the curve losses/entropy"
