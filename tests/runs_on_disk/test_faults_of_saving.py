"""Faults of the disk while a run is saved, kills then, and who else is in its folder."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from eight_updates import FRAMES, NUM_UPDATES, at_update, frames_saved, make_config
from programs import ROOT, started

from mtxl_rl import command, train
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.run_directory import check_out, check_place, create_run, lock_run

pytestmark = [pytest.mark.unchecked, pytest.mark.usefixtures("without_interventions")]


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
    process = started("full_disk", tmp_path / "run", stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("no checkpoint after") == 1
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
    holder = started("run_lock", tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match="is in use"):
        lock_run(tmp_path)
    holder.kill()
    holder.communicate()
    lock_run(tmp_path).close()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("here", r"is a folder; name a file in it: --out .*here/NAME\.html"),
        ("here/config.json", r"must end in \.html"),
        ("none/page.html", "in no folder that is there; make the folder .*none, or set --out"),
        ("here/config.json/page.html", "in no folder that is there"),
        ("here/page.html", "cannot be written: Read-only file system; set --out"),
    ],
)
def test_a_place_that_takes_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, words: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").touch()
    check_out(tmp_path / "here" / "page.html", ".html")
    assert len(list((tmp_path / "here").iterdir())) == 1

    def fail(**_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(ValueError, match=f"^out=.* {words}"):
        check_out(tmp_path / out, ".html")


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
