"""What a run records: its folder, what made it, its curves; and what reads them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from four_updates import make_config, refused
from programs import ROOT
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard.writer import SummaryWriter

from experiments.tables.runs import find_runs, read_curve, read_events
from mtxl_rl import evaluate, train
from mtxl_rl import run as run_module
from mtxl_rl.config import TrainConfig
from mtxl_rl.policies.policy import load
from mtxl_rl.run import Run
from mtxl_rl.runs import checkpoint, made_by
from mtxl_rl.runs.run_directory import create_free_run, create_run, load_config, save_tensors
from mtxl_rl.runs.run_logger import RunLogger
from mtxl_rl.runs.tags import TAGS

pytestmark = [pytest.mark.unchecked, pytest.mark.usefixtures("without_interventions")]

HParamsPluginData: Any = plugin_data_pb2.HParamsPluginData  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "läuf 2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "evaluate_interventions", lambda *_: {})
        train.train(make_config(run_dir))
    return run_dir


def test_evaluate_takes_a_checkpoint_and_names_the_runs_of_a_folder(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = checkpoint.newest_checkpoint(trained)
    arguments = [str(newest), "--json", "--episodes", "2", "--num-threads", "1"]
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments, "--backend", "gymnasium"])
    evaluate.main()
    assert json.loads(capsys.readouterr().out)["frames"] == 128
    err = refused([str(trained.parent)], capsys, evaluate)
    assert f"the runs there, the newest first: {trained}" in err
    err = refused([str(trained.parent / "missing" / "x")], capsys, evaluate)
    assert "it does not exist; the runs there, the newest first" in err
    err = refused([str(newest / "model.safetensors")], capsys, evaluate)
    assert "it is no folder" in err


def test_a_run_directory_is_refused_before_anything_is_compiled(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(run_module, "accelerate", lambda *arguments: compiled.append(arguments))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="exists and is kept as it is"):
        train.train(make_config(trained))
    with pytest.raises(ValueError, match=r"cannot be made: .*; choose another"):
        train.train(make_config(tmp_path / "file" / "run"))
    assert not compiled


def test_a_run_that_cannot_be_compiled_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        assert (tmp_path / "run" / "config.json").is_file()
        raise ValueError("no compiler")

    monkeypatch.setattr(run_module, "make_trainer", fail)
    with pytest.raises(ValueError, match="no compiler"):
        train.train(make_config(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_runs_of_one_second_get_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "runs" / "x__20261128-111407"
    made = [create_free_run(run_dir, TrainConfig()) for _ in range(3)]
    assert [path.name.removeprefix(run_dir.name) for path in made] == ["", "-2", "-3"]
    assert all(load_config(path) == TrainConfig() for path in made)
    assert len(list(run_dir.parent.iterdir())) == 3

    rename = Path.rename

    def lose_the_race(path: Path, target: Path) -> Path:
        if target.name.endswith("-4"):
            target.mkdir()
            (target / "config.json").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", lose_the_race)
    assert create_free_run(run_dir, TrainConfig()).name == f"{run_dir.name}-5"


def test_a_run_says_what_made_it(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (session,) = json.loads((trained / "made_by.json").read_text())["sessions"]
    assert session["torch"] == torch.__version__
    assert session["device"] == "cpu"
    assert session["num_threads"] == 1
    assert session["processor"]
    assert session["command"]
    assert session["started"] <= session["ended"]
    assert session["python"] == ".".join(map(str, sys.version_info[:3]))
    if (ROOT / ".git").exists():
        assert len(session["commit"]) == 40
        assert session["is_clean"] in (True, False)
    monkeypatch.setattr(made_by, "ROOT", trained)
    made_by.begin_session(trained, torch.device("cpu"), {})
    _, second = json.loads((trained / "made_by.json").read_text())["sessions"]
    assert (second["commit"], second["is_clean"], second["ended"]) == (None, None, None)


@pytest.mark.parametrize("sessions", [3, [3], [{"spaces": 3}], {"0": {}}])
def test_what_made_a_run_is_refused_where_it_is_damaged(tmp_path: Path, sessions: Any) -> None:
    (tmp_path / "made_by.json").write_text(json.dumps({"sessions": sessions}))
    with pytest.raises(ValueError, match=r"made_by\.json has sessions=.*or delete the file"):
        made_by.last_session(tmp_path)


def test_a_run_without_any_checkpoint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", fail)
    with (
        pytest.warns(RuntimeWarning, match="no checkpoint after"),
        pytest.raises(train.RunFailed, match=r"no checkpoint of .* could be saved \(No space") as e,
    ):
        train.train(make_config(tmp_path / "run"))
    assert "all of its 128 frames are lost" in str(e.value)


def test_a_run_that_is_moved_while_it_trains_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    update = Run._update

    def move_after_the_second(run: Run, *arguments: Any) -> None:
        update(run, *arguments)
        if run.frames == 64:
            run_dir.rename(tmp_path / "moved")

    monkeypatch.setattr(Run, "_update", move_after_the_second)
    message = r"could be saved .*is gone: it was moved or deleted"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(train.RunFailed, match=message):
            train.train(make_config(run_dir))
    assert any("is gone: it was moved or deleted while it" in str(w.message) for w in caught)
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_files_take_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_tensors({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640


def points(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    """Return a curve as TensorBoard's own loader, without its data server, reads it."""
    events = read_events(run_dir)
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]


@pytest.mark.parametrize("clock_went_back", [False, True])
def test_a_resumed_curve_shows_each_point_once(
    clock_went_back: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed two updates after its checkpoint, and makes those anew."""
    with monkeypatch.context() as patch:
        update = Run._update

        def killed(run: Run, *arguments: Any) -> None:
            update(run, *arguments)
            if run.frames == 96:
                run.logger.flush()
                raise RuntimeError("killed")

        patch.setattr(Run, "_update", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train.train(make_config(tmp_path / "run", checkpoint_every=32, total_frames=192))
    for newer in checkpoint.list_checkpoints(tmp_path / "run")[1:]:
        shutil.rmtree(newer)
    first, *_ = points(tmp_path / "run", "losses/loss")
    if clock_went_back:
        (events,) = (tmp_path / "run").glob("events.*")
        rest = events.name.split(".", 4)[4]
        events.rename(events.with_name(f"events.out.tfevents.9999999999.{rest}"))
    train.train(train.read_options(["--resume", str(tmp_path / "run")]))
    again = points(tmp_path / "run", "losses/loss")
    assert [step for step, _ in again] == [32, 64, 96, 128, 160, 192]
    assert again[0] == first
    sessions = json.loads((tmp_path / "run" / "made_by.json").read_text())["sessions"]
    assert len(sessions) == 2


def test_every_curve_has_a_description_and_every_run_the_same_columns(
    trained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    RunLogger(other, make_config(other, env_kwargs={"x": 1}, stop_at_return=0.5)).close()
    columns = []
    for run_dir in (trained, other):
        events = read_events(run_dir)
        plugin = events.PluginTagToContent("hparams")
        experiment = HParamsPluginData.FromString(plugin["_hparams_/experiment"]).experiment
        columns.append([
            [(info.name, info.type) for info in experiment.hparam_infos],
            [info.name.tag for info in experiment.metric_infos],
        ])  # fmt: skip
        for tag in events.PluginTagToContent("scalars") if run_dir == trained else ():
            assert events.SummaryMetadata(tag).summary_description == TAGS[tag]
    assert columns[0] == columns[1]
    assert ("core.dim", 3) in columns[0][0]  # a number
    assert "eval/success_rate" in columns[0][1]
    end = HParamsPluginData.FromString(
        read_events(trained).PluginTagToContent("hparams")["_hparams_/session_end_info"]
    )
    assert end.session_end_info.status == 1  # a success


def test_tables_find_runs_by_links_once_and_pass_over_what_is_none(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "far").symlink_to(trained)
    (folder / "again").symlink_to(trained)
    (folder / "up").symlink_to(folder)
    create_run(folder / "near", make_config(None))
    (folder / "other_tool").mkdir()
    (folder / "other_tool" / "config.json").write_text('{"model_type": "bert"}')
    load(trained, device="cpu").save(folder / "saved")
    runs = find_runs(folder)
    assert len(runs) == 2
    assert {run.path.resolve() for run in runs} == {trained, folder / "near"}
    said = capsys.readouterr().err
    assert f"passed over {folder / 'other_tool'}: its config.json is not of a run" in said
    assert f"passed over {folder / 'saved'}: a saved policy, without its training" in said


def test_curves_are_by_frames_whatever_clocks_said(tmp_path: Path) -> None:
    """Also those of before descriptions, in files without sessions."""
    writer = SummaryWriter(str(tmp_path))
    for wall_time, step, value in ((5, 64, 0.25), (6, 96, 0.5), (1, 96, 0.75), (0, 32, 0.125)):
        writer.add_scalar("x", value, step, walltime=wall_time)
    writer.close()
    events = read_events(tmp_path)
    expected = [(32, 0.125), (64, 0.25), (96, 0.75)]
    assert [(point.step, point.value) for point in read_curve(events, "x")] == expected
    assert read_curve(events, "y") == []


def test_the_page_of_curves_has_every_tag() -> None:
    page = (ROOT / "docs" / "curves.md").read_text().replace("\\|", "|")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{tag}` | {text} |" for tag, text in TAGS.items()]
