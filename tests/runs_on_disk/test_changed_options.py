"""What changes when a run goes on: the options that may, and its evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from eight_updates import FRAMES, NUM_UPDATES, frames_saved, make_config

from mtxl_rl import train
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.evaluate import evaluate
from mtxl_rl.run import MAY_CHANGE, Run
from mtxl_rl.runs.run_directory import create_run, load_config

pytestmark = [pytest.mark.unchecked, pytest.mark.usefixtures("without_interventions")]


def test_other_options_are_taken_when_one_insists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir, env="mtxl/Recall6-v0"))
    options = ["--resume", str(run_dir), "--total-frames", str(12 * FRAMES)]
    changed = [*options, "--ppo.learning-rate", "0.5", "--env", "mtxl/Recall9-v0"]
    with pytest.raises(
        ValueError, match=r"ppo.learning_rate is 0.001 in the run and 0.5 here.*--a"
    ):
        train.read_options(changed)
    train.train(train.read_options([*changed, "--allow-changes"]))
    out = capsys.readouterr().out
    assert "from 512 frames; all environments start fresh episodes" in out
    assert "env is mtxl/Recall6-v0 in the run and mtxl/Recall9-v0 here" in out
    config = load_config(run_dir)
    assert (config.env, config.ppo.learning_rate) == ("mtxl/Recall9-v0", 0.5)
    assert (config.resume, config.allow_changes, config.run_dir) == (None, False, run_dir)
    assert frames_saved(run_dir)[-1] == 12


def test_changes_hold_when_the_run_is_killed_before_its_next_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir, env="mtxl/Recall6-v0"))
    resume = ["--resume", str(run_dir)]
    changed = ["--env", "mtxl/Recall9-v0", "--num-envs", "8", "--total-frames", "1024"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "learn", lambda _: 1 / 0)  # killed at once
        with pytest.raises(ZeroDivisionError):
            train.train(train.read_options([*resume, *changed, "--allow-changes"]))
    train.train(train.read_options(resume))
    evaluation = json.loads((run_dir / "evaluation.json").read_text())
    assert evaluation["frames"] == 1024
    assert load_config(run_dir).env == "mtxl/Recall9-v0"


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
    train.train(make_config(run_dir, env="mtxl/Recall6-v0"))
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
