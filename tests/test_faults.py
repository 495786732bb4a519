"""Faults injected into training runs: what was trained is not lost, and one line says what was."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from faulty_env import FaultyEnv
from safetensors.torch import load_file, save_file

from agents.acceleration import Trainer
from agents.cores.core import core_config
from agents.ppo import PPO, PPOConfig
from mtxl_rl import command, train
from mtxl_rl.command import RunFailed
from mtxl_rl.config import EvaluateConfig, TrainConfig
from mtxl_rl.evaluate import evaluate
from mtxl_rl.run import MAY_CHANGE, Run
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.gradient_watch import MAX_IN_A_ROW, GradientWatch
from mtxl_rl.runs.run_directory import check_place, create_run, load_config, lock_run
from mtxl_rl.signals import Stopped

ROOT = Path(__file__).parents[1]
FRAMES = 4 * 16
NUM_UPDATES = 8


def make_config(run_dir: Path, **options: Any) -> TrainConfig:
    config = TrainConfig(
        env="CartPole-v1",
        total_frames=NUM_UPDATES * FRAMES,
        num_envs=4,
        device="cpu",
        num_threads=1,
        compile="off",
        eval_episodes=2,
        checkpoint_every=2 * FRAMES,
        run_dir=run_dir,
        core=core_config(dim=8, depth=1, heads=2, seq_len=4, mem_len=4),
        ppo=PPOConfig(rollout_len=16, num_minibatches=2, num_epochs=1),
    )
    return replace(config, **options)


def frames_saved(run_dir: Path) -> list[int]:
    """Return the updates after which the checkpoints were saved."""
    paths = checkpoint.list_checkpoints(run_dir)
    return [int(path.name.removeprefix("frames_")) // FRAMES for path in paths]


def at_update(
    monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[Trainer], Any]
) -> None:
    """Do something before the rollout of an update, counted from 1."""
    collect, calls = Trainer.collect, []

    def collect_and_act(trainer: Trainer) -> Any:
        calls.append(1)
        if len(calls) == number:
            action(trainer)
        return collect(trainer)

    monkeypatch.setattr(Trainer, "collect", collect_and_act)


def test_a_checkpoint_that_cannot_be_saved_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four, the second and the third fail."""
    save, calls = checkpoint.save_tensors, []

    def fail_twice(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) in (3, 4):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_tensors", fail_twice)
    with pytest.warns(RuntimeWarning, match="no checkpoint after .*No space left") as caught:
        train.train(make_config(tmp_path / "run", keep=9))
    assert len([w for w in caught if "no checkpoint after" in str(w.message)]) == 2
    assert frames_saved(tmp_path / "run") == [2, 8]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))


def test_a_last_checkpoint_that_cannot_be_saved_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evaluation is printed all the same, and the exit code says so."""
    save, calls = checkpoint.save_tensors, []

    def fail_from_the_third_on(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 4:
            raise OSError(errno.EIO, "Input/output error")
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_tensors", fail_from_the_third_on)
    failing = command.fail_with_one_line()(train.train)
    with pytest.warns(RuntimeWarning, match="no checkpoint"), pytest.raises(SystemExit) as stop:
        failing(make_config(tmp_path / "run"))
    assert stop.value.code == 1
    out, said = capsys.readouterr()
    assert "could not be saved ([Errno 5] Input/output error); the newest one is of 256" in said
    assert "Mean return:" in out
    assert frames_saved(tmp_path / "run") == [2, 4]
    assert not (tmp_path / "run" / "evaluation.json").exists()  # it is not finished
    monkeypatch.setattr(checkpoint, "save_tensors", save)
    train.train(train.read_options(["--resume", str(tmp_path / "run")]))
    assert frames_saved(tmp_path / "run")[-1] == NUM_UPDATES


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A limit on the size of files stands for it; it ends while the run goes on."""
    program = (
        "import resource, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_faults import *\n"
        "def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))\n"
        "def act(trainer):\n"
        "    n = len(done); done.append(1)\n"
        "    if n in (3, 5): limit({3: 4000, 5: -1}[n])\n"
        "done = []\n"
        "collect = Trainer.collect\n"
        "Trainer.collect = lambda trainer: (act(trainer), collect(trainer))[1]\n"
        "train.train(make_config(Path(sys.argv[2]), keep=9))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no checkpoint after") == 1
    assert frames_saved(tmp_path / "run") == [2, 6, 8]
    assert checkpoint.newest_checkpoint(tmp_path / "run").name.endswith(f"{8 * FRAMES}")


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_without_a_place_for_curves_training_goes_on(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    place = "tensorboard.summary.writer"
    if when == "at the start":
        monkeypatch.setattr(f"{place}.event_file_writer.EventFileWriter.__init__", fail)
    else:
        at_update(monkeypatch, 3, lambda _: monkeypatch.setattr(
            f"{place}.record_writer.RecordWriter.write", fail))  # fmt: skip
    with pytest.warns(RuntimeWarning, match="no curves from now on.*Read-only") as caught:
        train.train(make_config(tmp_path / "run"))
    assert len([w for w in caught if "no curves" in str(w.message)]) == 1
    assert frames_saved(tmp_path / "run")[-1] == NUM_UPDATES
    assert (tmp_path / "run" / "evaluation.json").is_file()
    assert "Traceback" not in capsys.readouterr().err


STAGES = (
    ("mkdir", 1), ("save_tensors", 1), ("save_tensors", 2), ("write_json", 1), ("sync", 1),
    ("sync", 4), ("rename", 1), ("sync", 5), ("check_checkpoint", 1), ("rmtree", 2),
)  # fmt: skip
"""Calls within a save, in their order; the last deletes the oldest."""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_stage_of_saving_the_newest_whole_checkpoint_loads(
    stage: tuple[str, int], moment: str, tmp_path: Path
) -> None:
    config, run_dir = make_config(tmp_path), tmp_path / "run"
    create_run(run_dir, config)
    model = torch.nn.Linear(2, 2)
    for frames in (1, 2):
        checkpoint.save_checkpoint(run_dir, config, model, frames)
    child = os.fork()
    if child == 0:
        name, number = stage
        owner: Any = {"mkdir": Path, "rename": Path, "rmtree": checkpoint.shutil}.get(
            name, checkpoint
        )
        call, calls = getattr(owner, name), []

        def die(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) < number:
                return call(*arguments, **options)
            if moment == "after":
                call(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, die)
        checkpoint.save_checkpoint(run_dir, config, model, 3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    newest = checkpoint.newest_checkpoint(run_dir)
    frames, _ = checkpoint.load_checkpoint(newest, config, torch.nn.Linear(2, 2))
    rename = STAGES.index(("rename", 1))
    was_renamed = STAGES.index(stage) + (moment == "after") > rename
    assert frames == (3 if was_renamed else 2)
    checkpoint.save_checkpoint(run_dir, config, model, 4)
    assert checkpoint.newest_checkpoint(run_dir).name == "frames_000000000004"
    assert not list((run_dir / "checkpoints").glob(".*000003*"))


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


def test_a_run_is_written_by_one_process_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir))
    before = (run_dir / "config.json").read_bytes()
    lock = lock_run(run_dir)
    arguments = ["--resume", str(run_dir), "--total-frames", "100000"]
    done = subprocess.run([sys.executable, "-m", "mtxl_rl.train", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 2
    assert f"error: {run_dir} is in use: another process trains there" in done.stderr
    assert (run_dir / "config.json").read_bytes() == before
    lock.close()
    train.train(train.read_options([*arguments[:2], "--total-frames", str(9 * FRAMES)]))
    assert frames_saved(run_dir)[-1] == 9


def test_a_run_that_is_killed_is_free(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from mtxl_rl.runs.run_directory import lock_run\n"
        "lock = lock_run(Path(sys.argv[1])); print('locked', flush=True); time.sleep(100)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match="is in use"):
        lock_run(tmp_path)
    holder.kill()
    holder.communicate()
    lock_run(tmp_path).close()


def test_paths_that_lead_elsewhere_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")  # a runs folder that lies elsewhere
    (tmp_path / "runs" / "link").symlink_to(outside)
    for allowed in ("runs/new", "runs/grid/new", "new", str(tmp_path / "runs" / "new"), "../new"):
        check_place(Path(allowed), "run_dir")
    monkeypatch.chdir(outside)
    check_place(Path("../runs/new"), "run_dir")
    with pytest.raises(ValueError, match=r"link.* is a link out of \.\./runs"):
        check_place(Path("../runs/link/new"), "run_dir")
    monkeypatch.chdir(tmp_path)
    for path in ("runs/link", "runs/link/new", str(tmp_path / "runs" / "link")):
        with pytest.raises(ValueError, match=r"run_dir=.*link.* is a link out of .*; write that"):
            train.train(make_config(Path(path)))
    for path in ("runs/../new", "../runs/../new", str(tmp_path / ".." / "new")):
        with pytest.raises(ValueError, match=r"run_dir=.* goes up by '\.\.' after a name; write"):
            train.train(make_config(Path(path)))
    assert not list(outside.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "outside", "runs"]


def test_other_options_are_taken_when_one_insists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir, env="MiniGrid-MemoryS7-v0"))
    options = ["--resume", str(run_dir), "--total-frames", str(12 * FRAMES)]
    changed = [*options, "--ppo.learning-rate", "0.5", "--env", "MiniGrid-MemoryS9-v0"]
    with pytest.raises(
        ValueError, match=r"ppo.learning_rate is 0.001 in the run and 0.5 here.*--a"
    ):
        train.read_options(changed)
    train.train(train.read_options([*changed, "--allow-changes"]))
    out = capsys.readouterr().out
    assert "from 512 frames; all environments start fresh episodes" in out
    assert "env is MiniGrid-MemoryS7-v0 in the run and MiniGrid-MemoryS9-v0 here" in out
    config = load_config(run_dir)
    assert (config.env, config.ppo.learning_rate) == ("MiniGrid-MemoryS9-v0", 0.5)
    assert (config.resume, config.allow_changes, config.run_dir) == (None, False, run_dir)
    assert frames_saved(run_dir)[-1] == 12


def test_changes_hold_when_the_run_is_killed_before_its_next_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir, env="MiniGrid-MemoryS7-v0"))
    resume = ["--resume", str(run_dir)]
    changed = ["--env", "MiniGrid-MemoryS9-v0", "--num-envs", "8", "--total-frames", "1024"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "learn", lambda _: 1 / 0)  # killed at once
        with pytest.raises(ZeroDivisionError):
            train.train(train.read_options([*resume, *changed, "--allow-changes"]))
    train.train(train.read_options(resume))
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["frames"] == 1024
    assert load_config(run_dir).env == "MiniGrid-MemoryS9-v0"


def test_changes_of_a_run_without_a_checkpoint_hold(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    create_run(run_dir, make_config(run_dir))
    resume = ["--resume", str(run_dir)]
    train.train(train.read_options([*resume, "--core.dim", "16", "--allow-changes"]))
    assert load_config(run_dir).core.dim == 16
    assert evaluate(run_dir, EvaluateConfig(episodes=1)).episodes == 1


def test_every_option_that_may_change_is_taken(tmp_path: Path) -> None:
    """Also on tensors, whose episodes go on."""
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir, env="MiniGrid-MemoryS7-v0"))
    options = ["--total-frames", "640", "--stop-at-success", "1.0", "--compile", "auto",
               "--num-threads", "2", "--checkpoint-every", "64", "--keep", "3", "--eval-episodes",
               "1", "--env-timeout", "5", "--device", "auto"]  # fmt: skip
    named = {option.removeprefix("--").replace("-", "_") for option in options[::2]}
    # not beside stop_at_success, not of tensors
    elsewhere = {"stop_at_return", "eval_max_steps", "vectorize"}
    assert named | {"strict", "allow_changes"} | elsewhere == set(MAY_CHANGE)
    train.train(train.read_options(["--resume", str(run_dir), *options]))
    config = load_config(run_dir)
    assert (config.total_frames, config.env_timeout, config.keep) == (640, 5.0, 3)
    assert frames_saved(run_dir) == [8, 9, 10]
    torch.set_num_threads(1)


def test_an_extended_run_is_evaluated_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation that is there is of fewer frames."""
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir))
    resume = ["--resume", str(run_dir)]
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate_agent", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.train(train.read_options([*resume, "--total-frames", "640"]))
    train.train(train.read_options(resume))
    assert json.loads((run_dir / "evaluation.json").read_text())["frames"] == 640
    with pytest.raises(ValueError, match="640 of 640 frames: it is finished"):
        train.train(train.read_options(resume))
    with pytest.raises(ValueError, match=r"run_dir is .*run in the run and elsewhere here"):
        train.read_options([*resume, "--run-dir", "elsewhere"])


def test_a_signal_in_the_last_update_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_update(monkeypatch, NUM_UPDATES, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        train.train(make_config(tmp_path / "run"))
    assert frames_saved(tmp_path / "run")[-1] == NUM_UPDATES
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_output_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtxl_rl.runs.progress.LINE_SECONDS", 0)
    with (
        suppress(OSError),  # of closing the file
        Path("/dev/full").open("w") as full,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", full)
        train.train(make_config(tmp_path / "run"))
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_a_checkpoint_that_reads_back_wrong_does_not_push_out_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, model = make_config(tmp_path), torch.nn.Linear(2, 2)
    checkpoint.save_checkpoint(tmp_path, config, model, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "check_checkpoint", lambda _: int("x"))
        with pytest.raises(ValueError, match="invalid literal"):
            checkpoint.save_checkpoint(tmp_path, config, model, 2)
    names = [path.name[-1] for path in checkpoint.list_checkpoints(tmp_path)]
    assert names == ["1"]
    for frames in (7, 8):
        checkpoint.save_checkpoint(tmp_path, config, model, frames)
    saved = checkpoint.save_checkpoint(tmp_path, config, model, 3)  # after those, damaged, say
    assert saved in checkpoint.list_checkpoints(tmp_path)


def test_damaged_checkpoints_are_set_aside_by_a_run_that_goes_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir))
    newest = checkpoint.newest_checkpoint(run_dir)
    (newest / checkpoint.MODEL).write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        train.train(train.read_options(["--resume", str(run_dir)]))
    assert frames_saved(run_dir) == [6, 8]
    assert newest.with_name(f"damaged_{newest.name}").is_dir()


def test_a_checkpoint_that_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for frames in (1, 2):
        checkpoint.save_checkpoint(tmp_path, make_config(tmp_path), torch.nn.Linear(2, 2), frames)
    check = checkpoint.check_checkpoint

    def fail(path: Path) -> dict[str, Any]:
        if path.name.endswith("2"):
            raise OSError(errno.EIO, "Input/output error")
        return check(path)

    monkeypatch.setattr(checkpoint, "check_checkpoint", fail)
    with pytest.warns(RuntimeWarning, match="Input/output error. frames_000000000001 is used"):
        assert checkpoint.newest_checkpoint(tmp_path).name.endswith("1")


def test_a_network_of_another_shape_cannot_go_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir))
    options = ["--resume", str(run_dir), "--total-frames", str(12 * FRAMES), "--core.dim", "16"]
    with pytest.raises(ValueError, match="does not fit the network"):
        train.train(train.read_options([*options, "--allow-changes"]))
    assert load_config(run_dir).core.dim == 8
    with pytest.raises(ValueError, match="allow_changes=True has no effect without --resume"):
        make_config(run_dir, allow_changes=True)


def test_a_run_that_was_stopped_before_its_evaluation_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate_agent", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train.train(make_config(run_dir))
    assert not (run_dir / "evaluation.json").exists()
    train.train(train.read_options(["--resume", str(run_dir)]))
    assert json.loads((run_dir / "evaluation.json").read_text())["frames"] == NUM_UPDATES * FRAMES


def rewritten(saved: Path, **changes: Any) -> None:
    """Write a header anew that is in itself consistent."""
    header = json.loads((saved / checkpoint.HEADER).read_text())
    del header["header_sha256"]
    header |= changes
    if "sha256" not in changes:
        names = (checkpoint.MODEL, checkpoint.TRAINING)
        header["sha256"] = {name: checkpoint._sha256(saved / name) for name in names}
    header = {key: value for key, value in header.items() if value is not None}
    header["header_sha256"] = checkpoint._header_sha256(header)
    (saved / checkpoint.HEADER).write_text(json.dumps(header))


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def test_pickles_are_refused_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config(tmp_path / "run")
    train.train(config)
    torch.save(Bomb(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is a file, and a checkpoint is a folder.*pic"):
        evaluate(tmp_path / "run", EvaluateConfig(checkpoint=tmp_path / "model.pt"))
    newest = checkpoint.newest_checkpoint(tmp_path / "run")
    for name in (checkpoint.MODEL, checkpoint.TRAINING):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes((tmp_path / "model.pt").read_bytes())
        rewritten(newest)
        with pytest.raises(ValueError, match=r"cannot be read: .*; use another one"):
            evaluate(tmp_path / "run", EvaluateConfig(checkpoint=newest))
        (newest / name).write_bytes(whole)
        rewritten(newest)
    evaluate(tmp_path / "run", EvaluateConfig(checkpoint=newest, episodes=1))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<Q", 2**62) + b"{}", "cannot be read: "),  # a header of 4 exabytes
        (struct.pack("<Q", 10**9) + b"{}", "cannot be read: "),
        (b"".join((struct.pack("<Q", 72), json.dumps(
            {"weight": {"dtype": "F32", "shape": [2**40, 2], "data_offsets": [0, 2**43]}}
        ).encode())), "cannot be read: "),  # a tensor of 8 terabytes
    ],
)  # fmt: skip
def test_a_size_that_is_only_claimed_is_not_allocated(
    content: bytes, message: str, tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    saved = checkpoint.save_checkpoint(tmp_path, config, torch.nn.Linear(2, 2), 1)
    for name in (checkpoint.MODEL, checkpoint.TRAINING):
        whole = (saved / name).read_bytes()
        (saved / name).write_bytes(content)
        rewritten(saved)
        with pytest.raises(ValueError, match=message):
            checkpoint.load_checkpoint(saved, config, torch.nn.Linear(2, 2))
        (saved / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 4}, "has schema 4, this release reads 3; use the release that wrote it"),
        ({"frames": None}, "has frames=None, which must be int"),
        ({"frames": "7"}, "has frames='7', which must be int"),
        ({"config": 3}, "has config=3, which must be dict"),
        ({"config": {"environment": "x"}}, "environment is not an option"),
        ({"sha256": None}, "has sha256=None, which must be dict"),
        ({"sha256": {}}, "model.safetensors is damaged or missing"),
    ],
)
def test_a_header_that_is_wrong_names_the_field(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = make_config(tmp_path)
    saved = checkpoint.save_checkpoint(tmp_path, config, torch.nn.Linear(2, 2), 1)
    if changes == {"sha256": None}:
        header = json.loads((saved / checkpoint.HEADER).read_text())
        del header["sha256"], header["header_sha256"]
        header["header_sha256"] = checkpoint._header_sha256(header)
        (saved / checkpoint.HEADER).write_text(json.dumps(header))
    else:
        rewritten(saved, **changes)
    with pytest.raises(ValueError, match=message):
        checkpoint.load_checkpoint(saved, config, torch.nn.Linear(2, 2))


def test_another_dtype_names_the_tensor(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    model = torch.nn.Linear(2, 2)
    saved = checkpoint.save_checkpoint(tmp_path, config, model.double(), 1)
    with pytest.raises(
        ValueError, match=r"bias is \(2,\) torch.float64 in the file and \(2,\) tor"
    ):
        checkpoint.load_checkpoint(saved, config, torch.nn.Linear(2, 2))


def test_training_state_that_lacks_a_tensor_names_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir, env="MiniGrid-MemoryS7-v0"))
    newest = checkpoint.newest_checkpoint(run_dir)
    whole = load_file(newest / checkpoint.TRAINING)
    resume = ["--resume", str(run_dir), "--total-frames", "100000"]
    of_envs = next(name for name in whole if name.startswith("env."))
    for missing in ("carry.episode_return", "random.cpu", "window.episodes", of_envs):
        kept = {name: tensor for name, tensor in whole.items() if name != missing}
        assert len(kept) == len(whole) - 1
        save_file(kept, newest / checkpoint.TRAINING)
        rewritten(newest)
        name = missing.removeprefix("window.").removeprefix("env.")
        with pytest.raises(ValueError, match=f"does not fit this run: .*{name}"):
            train.train(train.read_options(resume))


def test_a_json_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(10**12)  # sparse: it takes no space
    with pytest.raises(ValueError, match="has 1,000,000,000,000 bytes, ours have at most"):
        load_config(tmp_path)
    path.unlink()
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not valid JSON"):
        load_config(tmp_path)


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
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
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
