"""Agents at other lengths than those they were trained at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import pytest

from agents.cores.core import core_config
from agents.learning.ppo import PPOConfig
from experiments.lengths import lengths
from mtxl_rl.config import TrainConfig
from mtxl_rl.evaluations.evaluation import evaluate_agent
from mtxl_rl.runs.metrics import Evaluation
from mtxl_rl.train import train

ENVS = ("mtxl/Recall6-v0", "mtxl/Recall12-v0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for kind, core in (
        ("mtxl", core_config(dim=8, heads=2, depth=1, seq_len=4)),
        ("gru", core_config(kind="gru", dim=8, depth=1)),
    ):
        train(
            TrainConfig(
                env="mtxl/Recall6to12-v0",
                total_frames=128,
                num_envs=8,
                eval_episodes=10,
                device="cpu",
                num_threads=1,
                run_dir=folder / kind,
                core=core,
                ppo=PPOConfig(rollout_len=16, num_minibatches=2),
            )
        )
    return folder


def test_two_that_play_at_once_keep_what_the_other_wrote(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "gru" / "lengths.json"
    evaluate = evaluate_agent

    def and_another(*args: Any, **options: Any) -> Evaluation:
        if path.is_file():
            written = json.loads(path.read_text())
            written["success_rates"]["mtxl/Recall7-v0 kept"] = 0.25
            path.write_text(json.dumps(written))
        return evaluate(*args, **options)

    monkeypatch.setattr("experiments.lengths.evaluate_agent", and_another)
    lengths(folder, ENVS, episodes=12, by=("core.kind",), num_threads=1)
    rates = json.loads(path.read_text())["success_rates"]
    assert set(rates) == {f"{env} kept" for env in (*ENVS, "mtxl/Recall7-v0")}
    path.unlink()


@pytest.mark.parametrize("name", ["envs", "memory"])
def test_nothing_to_play_leaves_the_table_as_it_is(folder: Path, name: str) -> None:
    options: dict[str, Any] = {"envs": ENVS, "memory": ("kept",), name: ()}
    (folder / "lengths.md").write_text("a table")
    with pytest.raises(ValueError, match=f"{name} is empty; name one or more after --{name}"):
        lengths(folder, **options)
    assert (folder / "lengths.md").read_text() == "a table"


def test_plays_every_length_and_nothing_twice(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"by": ("core.kind",), "num_threads": 1}
    lengths(folder, ENVS, ("kept", "swapped-long"), episodes=20, **options)
    first = capsys.readouterr().out
    rates = json.loads((folder / "mtxl" / "lengths.json").read_text())["success_rates"]
    assert set(rates) == {f"{env} {memory}" for env in ENVS for memory in ("kept", "swapped-long")}
    assert all(0 <= rate <= 1 for rate in rates.values())
    gru = json.loads((folder / "gru" / "lengths.json").read_text())["success_rates"]
    assert gru["mtxl/Recall6-v0 swapped-long"] is None
    table = (folder / "lengths.md").read_text()
    assert table.count("\n") == 2 + 6
    assert "| Memory Transformer-XL, memory swapped-long | mtxl/Recall12-v0 | 1 | " in table
    assert table in first
    assert iio.imread(folder / "lengths.png").std() > 0

    lengths(folder, ENVS[:1], episodes=20, **options)
    assert "memory kept:" not in capsys.readouterr().out  # played before
    lengths(folder, ENVS[:1], episodes=10, **options)
    assert capsys.readouterr().out.count("memory kept:") == 2  # not with as many episodes


def test_a_folder_without_agents_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        lengths(tmp_path, ENVS)
