"""A core from outside of the package, by the command line: `docs/your_own_core.md` holds it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from agents.cores.core import Core, core_config, make_core
from experiments.grids.grid import make_cells, parse_axes
from experiments.plots import plot
from mtxl_rl import evaluate, export, policy
from mtxl_rl.config import TrainConfig
from mtxl_rl.runs.run_directory import load_config
from mtxl_rl.train import read_options, train

DOCS = Path(__file__).parents[1] / "docs"
KIND = "my_cores:Leaky"
TINY = ["--env", "mtxl/Recall6-v0", "--num-envs", "4", "--ppo.rollout-len", "8",
        "--eval-episodes", "4", "--device", "cpu", "--core.dim", "8",
        "--num-threads", "1"]  # fmt: skip
BROKEN = """
from dataclasses import dataclass
from typing import NamedTuple
import torch
from torch import nn
from agents.cores import BaselineCore, CoreConfig, TensorState


class NoConfig(nn.Module):
    pass


class Undecorated(BaselineCore):
    class Config(CoreConfig):
        size: int = 3


class NoDefault(BaselineCore):
    @dataclass(frozen=True, kw_only=True)
    class Config(CoreConfig):
        size: int


class OfLists(BaselineCore):
    @dataclass(frozen=True, kw_only=True)
    class Config(CoreConfig):
        sizes: list[int] | None = None


class Unfinished(nn.Module):
    Config = CoreConfig

    def __init__(self, config):
        super().__init__()


class Turned(BaselineCore):
    def __init__(self, config):
        super().__init__()
        self.output_dim = config.dim

    def initial_state(self, batch_size):
        return TensorState()

    def forward(self, x, state, reset):
        return x.transpose(0, 1), state


class Fails(Turned):
    def forward(self, x, state, reset):
        return x @ x, state
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The core of the page, and broken ones, in modules of a folder."""
    page = (DOCS / "your_own_core.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "my_cores.py").write_text(program)
    (tmp_path / "broken_cores.py").write_text(BROKEN)
    (tmp_path / "torn_cores.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("my_cores", "broken_cores"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("modules")
def test_trains_is_evaluated_resumed_exported_and_a_row_of_a_table(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "leaky"
    given = [*TINY, "--core.kind", KIND, "--core.max-time", "50"]
    train(read_options([*given, "--total-frames", "64", "--run-dir", str(run)]))
    saved = json.loads((run / "config.json").read_text())["core"]
    assert (saved["kind"], saved["max_time"], saved["dim"]) == (KIND, 50, 8)
    assert load_config(run).core == core_config(KIND, max_time=50, dim=8)
    with pytest.raises(ValueError, match="max_time is 50 in the run and 60 here"):
        read_options(["--resume", str(run), "--core.max-time", "60"])
    train(read_options(["--resume", str(run), "--total-frames", "128"]))
    assert json.loads((run / "evaluation.json").read_text())["frames"] == 128
    evaluate.evaluate(run, evaluate.EvaluateConfig(episodes=4, num_threads=1, memory="cleared"))
    agent = policy.load(run, device="cpu").agent
    step = export.ActingStep(agent)
    assert export.check(step, step, 30) < 1e-4

    gru = [*TINY, "--core.kind", "gru", "--total-frames", "64"]
    train(read_options([*gru, "--run-dir", str(tmp_path / "runs" / "gru")]))
    plot(tmp_path / "runs")
    table = (tmp_path / "runs" / "table.md").read_text()
    assert KIND in table
    assert "max_time" not in table  # it does not tell the runs apart
    assert "state_floats" not in table


@pytest.mark.usefixtures("modules")
def test_is_a_row_of_grids() -> None:
    base = replace(TrainConfig(env="mtxl/Recall6-v0"), core=core_config(dim=16, mem_len=3))
    axes = parse_axes([("core.kind", "mtxl", KIND)])
    cells = make_cells(Path("grid"), base, axes, 1, equal="parameters")
    assert cells[1].name == "kind=my_cores_Leaky,seed=1"
    assert cells[1].config.core == core_config(KIND, dim=cells[1].config.core.dim)
    assert cells[1].config.core.dim > 16
    axes = parse_axes([("core.kind", KIND), ("core.max-time", "10", "1000")])
    cells = make_cells(Path("grid"), base, axes, 1)
    assert [asdict(cell.config.core)["max_time"] for cell in cells] == [10, 1000]
    with pytest.raises(ValueError, match=r"max_time=10: core.max_time is not an option of .* gru"):
        make_cells(Path("grid"), base, parse_axes([("core.kind", KIND, "gru"), *axes_of(10)]), 1)


def axes_of(time: int) -> list[tuple[str, ...]]:
    return [("core.max-time", str(time))]


@pytest.mark.usefixtures("modules")
def test_its_options_are_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options(["--core.kind", KIND, "--help"])
    out = capsys.readouterr().out
    assert "--core.max-time INT" in out
    assert "Steps of the longest average." in out
    assert "--core.mem-len" not in out


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("my_cores:Leeky", "is not in the module 'my_cores'; did you mean my_cores:Leaky"),
        ("mycores:Leaky", "names the module 'mycores', which cannot be imported (ModuleNotFound"),
        ("torn_cores:Core", "cannot be imported (ModuleNotFoundError: No module named 'nothing_of"),
        ("my_cores:", "must be module:Name"),
        ("my_cores:torch", "is <module 'torch'"),
        ("my_cores:LeakyConfig", "name a class of torch.nn.Module"),
        ("broken_cores:NoConfig", "has Config=None, which must be a dataclass of its options"),
        ("broken_cores:Undecorated", "which must be a dataclass of its options"),
        ("broken_cores:NoDefault", "has the option size without a default; give it one"),
        ("broken_cores:OfLists", "has the option sizes of list[int] | None, which config.json"),
        (
            "broken_cores:Unfinished",
            "has no segment_len, memories, description, initial_state, act",
        ),
        ("broken_cores:Turned", "and returns y (3, 2, 64) and a TensorState; return y (2, 3, out"),
        ("broken_cores:Fails", "was given x (2, 3, 64), its first state and reset, and fails with"),
    ],
)
def test_what_is_no_core_is_said_in_one_line(kind: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        make_core(core_config(kind))
    assert f"core.kind={kind!r}" in str(raised.value)


@pytest.mark.usefixtures("modules")
def test_it_has_what_is_asked_of_a_core() -> None:
    core: Any = make_core(core_config(KIND))
    assert isinstance(core, Core)
    assert (core.segment_len, core.memories, core.description) == (1, (), "")
    with pytest.raises(ValueError, match="these are of GRUConfig; make them by"):
        make_core(replace(core_config("gru"), kind="lstm"))
