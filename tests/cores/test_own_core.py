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
import torch
from programs import ROOT

from agents.cores.core import CORES, CoreKind, core_config, make_core
from agents.cores.interface import Core
from agents.cores.trial import check_runs
from experiments.grids.grid import make_cells, parse_axes
from experiments.plots import plot
from mtxl_rl import evaluate, export
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.json_form import from_json, to_json
from mtxl_rl.options import split_kinds
from mtxl_rl.policies import policy
from mtxl_rl.runs.run_directory import load_config
from mtxl_rl.train import read_options, train

DOCS = ROOT / "docs"
KIND = "my_cores:Leaky"
TINY = ["--env", "mtxl/Recall6-v0", "--num-envs", "4", "--ppo.rollout-len", "8",
        "--eval-episodes", "4", "--device", "cpu", "--core.dim", "8",
        "--num-threads", "1"]  # fmt: skip


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The core of the page, and a module that cannot be imported, in a folder."""
    page = (DOCS / "your_own_core.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "my_cores.py").write_text(program)
    (tmp_path / "torn_cores.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_cores", None)


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
        ("broken_cores:Raises", "cannot be made: RuntimeError: no luck; mend it, or change its op"),
        ("broken_cores:TakesNothing", "cannot be made: TypeError: TakesNothing.__init__() takes 1"),
        ("broken_cores:Exits", "cannot be made: SystemExit: bye; mend it"),
        ("broken_cores:Undescribed", "cannot be made: ZeroDivisionError: division by zero; mend"),
        ("broken_cores:Untyped", "cannot be made: NameError: name 'Sise' is not defined; mend it"),
        ("broken_cores:AssertsFirst", "cannot be made: AssertionError: dim; mend it"),
        ("broken_cores:Remembers", "env 0 at step 0, and its outputs from there on are not those"),
        ("broken_cores:RemembersByClock", "at step 0, and its outputs from there on are not those"),
        ("broken_cores:RemembersWithin", "at step 1, and its outputs from there on are not those"),
        ("broken_cores:StartsElsewhere", "from there on are not those of a fresh start (off by 1)"),
        ("broken_cores:ResetsAll", "and its outputs of env 1 change (by"),
        ("broken_cores:ResetsBefore", "at step 1, and its outputs before it change (by"),
        ("broken_cores:Mixes", "no env sees another's numbers (as in BatchNorm)"),
        ("broken_cores:InPlace", "changes the state that it is given in place (state.tensors.0);"),
        ("broken_cores:StepsInPlace", "changes the state that it is given in place (state.tensors"),
        ("broken_cores:FailsInSteps", "fails in peek with RuntimeError: mat1 and mat2"),
        (
            "broken_cores:Grows",
            "returns a state of (2, 2, 64) torch.float32, not of (2, 1, 64) torch.float32 as init",
        ),
        (
            "broken_cores:Doubles",
            "returns a state of (2, 1, 64) torch.float64, not of (2, 1, 64) ",
        ),
        (
            "broken_cores:Short",
            "its state is a TensorState without short_valid; give it the field",
        ),
        ("broken_cores:Long", "its state is a TensorState without long and long_valid; give it"),
        ("broken_cores:Middle", "has memories=('middle',), which may hold 'short' and 'long'; lea"),
        (
            "broken_cores:LogsVectors",
            "returns for 'age' a tensor (3,) of torch.float32 from stati",
        ),
        ("broken_cores:LogsNumbers", "returns for 'age' a float from statistics; return a dict of"),
        ("broken_cores:LogsNothing", "returns a NoneType from statistics; return a dict of scalar"),
        ("broken_cores:FailsToLog", "fails in statistics with RuntimeError: "),
        ("default_cores:NoInt", "option size with the default None, which is not read back from"),
        ("default_cores:Text", "with the default 'seven', which is not read back from config.json"),
        ("default_cores:Half", "with the default 0.5, which is not read back from config.json"),
        ("default_cores:True_", "with the default True, which is not read back from config.json"),
        ("default_cores:NoChoice", "with the default 'c', which is not read back from config.json"),
        ("default_cores:Share", "with the default 3, which is not read back from config.json"),
        ("default_cores:Pair", "with the default (1, 2, 3), which is not read back from config.js"),
        ("default_cores:Texts", "with the default ('1',), which is not read back from config.json"),
        ("default_cores:Nan", "with the default nan, which is not read back from config.json (nan"),
        ("default_cores:Other", "which is not read back from config.json (Object of type module"),
    ],
)
def test_what_is_no_core_is_said_in_one_line(kind: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        make_core(core_config(kind))
    assert f"core.kind={kind!r}" in str(raised.value)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", ["Sums", "Clocked", "Logs", "Random", "Nan"])
def test_what_holds_to_it_is_taken(name: str) -> None:
    """Random numbers and those that are not finite are named by the first update."""
    torch.manual_seed(1)
    assert make_core(core_config(f"broken_cores:{name}")).output_dim == 64


@pytest.mark.parametrize("kind", CORES)
@pytest.mark.parametrize("seq_len", [2, 16])
def test_the_trial_takes_ours(kind: CoreKind, seq_len: int) -> None:
    sizes = {"heads": 2, "seq_len": seq_len, "mem_len": 3} if kind in ("mtxl", "gtrxl") else {}
    torch.manual_seed(seq_len)
    check_runs(make_core(core_config(kind, dim=8, **sizes)), kind, 8)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", ["Whole", "Endless", "Choice", "Three", "Nested", "Large"])
def test_defaults_of_their_types_are_read_back(name: str) -> None:
    config = TrainConfig(core=core_config(f"default_cores:{name}"))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("size", "words"), [(7, "AssertionError: assert self.size < 5"), (0, "ValueError: size is no")]
)
def test_whatever_its_options_raise_names_it(
    size: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "broken_cores:Asserts"
    with pytest.raises(ValueError, match=f"^core.kind={kind!r} cannot be made: {words}") as raised:
        core_config(kind, size=size)
    assert str(raised.value).count("cannot be made") == 1
    with pytest.raises(ValueError, match=words):
        from_json(to_json(TrainConfig()) | {"core": {"kind": kind, "size": size}})
    with pytest.raises(SystemExit):
        read_options(["--core.kind", kind, "--core.size", str(size)])
    assert kind in capsys.readouterr().err


@pytest.mark.usefixtures("modules")
def test_the_last_kind_that_is_given_counts() -> None:
    assert read_options(["--core.kind", "gru", f"--core.kind={KIND}"]).core == core_config(KIND)


@pytest.mark.usefixtures("modules")
def test_each_core_of_a_grid_gets_the_options_that_it_has() -> None:
    typed = ["grid", "--core.max-time", "5", "--core.dim=8", "--core.no-mogrify", "--core.chrono=9",
             "--over", "core.kind", KIND, "mtxl", "gru", "--seeds", "1"]  # fmt: skip
    rest, of_others = split_kinds(typed, "mtxl")
    assert rest == [*typed[:1], *typed[3:5], *typed[6:]]
    assert of_others == ["--core.max-time", "5", "--core.chrono=9"]
    base = TrainConfig(env="mtxl/Recall6-v0", core=core_config(dim=8, mogrify=False))
    axes = parse_axes([("core.kind", KIND, "mtxl", "gru")])
    cells = make_cells(Path("grid"), base, axes, 1, of_others=of_others)
    assert [cell.config.core for cell in cells] == [
        core_config(KIND, dim=8, max_time=5), base.core, core_config("gru", dim=8, chrono=9)
    ]  # fmt: skip
    # what none of them has is left to be refused
    assert split_kinds(["--core.max-tim", "5", *typed[6:]], "mtxl")[1] == []


@pytest.mark.usefixtures("modules")
def test_it_has_what_is_asked_of_a_core() -> None:
    core: Any = make_core(core_config(KIND))
    assert isinstance(core, Core)
    assert (core.segment_len, core.memories, core.description) == (1, (), "")
    with pytest.raises(ValueError, match="these are of GRUConfig; make them by"):
        make_core(replace(core_config("gru"), kind="lstm"))
