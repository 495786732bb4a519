"""Damaged and hostile checkpoints: passed over or refused, with the field named."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from eight_updates import frames_saved, make_config
from safetensors.torch import load_file, save_file

from mtxl_rl import train
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.evaluate import evaluate
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.run_directory import load_config

pytestmark = [pytest.mark.unchecked, pytest.mark.usefixtures("without_interventions")]


def test_damaged_checkpoints_are_set_aside_by_a_run_that_goes_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train.train(make_config(run_dir))
    newest = checkpoint.newest_checkpoint(run_dir)
    (newest / checkpoint.MODEL).write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        train.train(train.read_options(["--resume", str(run_dir)]))
    assert frames_saved(run_dir) == [6, 8]
    assert newest.with_name(f"damaged_{newest.name}").is_dir()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("lone", "lone is a checkpoint without its run, which says what it is of; put it back"),
        ("run/checkpoints/frames_1", "frames_1 is no checkpoint; .*/run has frames_2: name one"),
        ("run/other/frames_2", "frames_2 is a checkpoint without its run"),
    ],
)
def test_a_checkpoint_is_in_its_run(tmp_path: Path, place: str, words: str) -> None:
    for name in ("lone", "run/checkpoints/frames_2", "run/other/frames_2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / checkpoint.HEADER).touch()
    (tmp_path / "run" / "config.json").touch()
    run = tmp_path / "run"
    assert checkpoint.split_place(run) == (run, None)
    whole = run / "checkpoints" / "frames_2"
    assert checkpoint.split_place(whole) == (run, whole)
    with pytest.raises(ValueError, match=words):
        checkpoint.split_place(tmp_path / place)


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
    train.train(make_config(run_dir, env="mtxl/Recall6-v0"))
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
