"""What is exported is the agent."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import Space, spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Text
from programs import ROOT
from small_run import small_run
from spaces_env import SpacesEnv

from agents.cores.core import CoreKind
from envs.observation_fields import flat_space, make_flattener
from mtxl_rl import export
from mtxl_rl.policies.acting_step import ActingStep
from mtxl_rl.policies.export_notes import reading
from mtxl_rl.policies.policy import load

SMALL: dict[str, Any] = {"dim": 12, "depth": 2, "heads": 3, "seq_len": 5, "mem_len": 3}
MTXL = {**SMALL, "lmem_len": 2}
MEMORY = "MiniGrid-MemoryS7-v0"


def bytes_box(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("env_id", "kind", "options"),
    [
        (MEMORY, "mtxl", MTXL),
        ("mtxl/Recall6-v0", "mtxl", {**MTXL, "mem_write": "seed", "timesteps": True}),
        ("Pendulum-v1", "mtxl", {**MTXL, "mem_len": 0, "memory_layers": (2,), "num_mem_kv": 1}),
        (MEMORY, "gtrxl", SMALL),
        ("CartPole-v1", "gru", {}),
        ("CartPole-v1", "lstm", {}),
        ("CartPole-v1", "mingru", {}),
        ("CartPole-v1", "deltanet", {"heads": 3}),
        ("CartPole-v1", "feedforward", {}),
    ],
)
def test_a_step_of_tensors_is_the_agents(
    tmp_path: Path, env_id: str, kind: CoreKind, options: dict[str, Any]
) -> None:
    agent = load(small_run(tmp_path / "run", env_id, kind, **options), device="cpu").agent
    step = ActingStep(agent)
    assert export.check(step, step, 60) < 1e-4


@pytest.mark.parametrize(
    ("output", "value"), [("long_valid", 0), ("policy", math.nan), ("value", math.nan)]
)
def test_the_check_finds_another_function(tmp_path: Path, output: str, value: float) -> None:
    step = ActingStep(load(small_run(tmp_path / "run", MEMORY), device="cpu").agent)
    place = ["policy", "value", *step.state_names].index(output)

    def other(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        outputs = list(step(inputs))
        outputs[place] = torch.full_like(outputs[place], value)
        return outputs

    said = "differs from the agent by " + "nan" * math.isnan(value)
    with pytest.raises(ValueError, match=said):
        export.check(step, other, 60)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_a_file_is_there_once_it_has_been_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None
) -> None:
    def check(*_: Any) -> float:
        assert out.read_text() == "earlier"
        if error:
            raise error
        return 0.0

    run = small_run(tmp_path / "run", "CartPole-v1", "gru")
    out = run / "policy.pt2"
    out.write_text("earlier")
    monkeypatch.setattr(export, "_write", lambda *arguments: arguments[2].write_text("new"))
    monkeypatch.setattr(export, "_runner", lambda *_: None)
    monkeypatch.setattr(export, "check", check)
    before = set(run.iterdir())
    with pytest.raises(error) if error else nullcontext():
        export.export(run, export.ExportConfig(format="torch"))
    assert out.read_text() == ("earlier" if error else "new")
    assert set(run.iterdir()) == before


@pytest.mark.slow
@pytest.mark.unchecked
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_file_is_the_agent(tmp_path: Path, form: Any, caplog: pytest.LogCaptureFixture) -> None:
    if form == "onnx" and not all(map(importlib.util.find_spec, ("onnxruntime", "onnxscript"))):
        pytest.skip("onnxruntime and onnxscript are not installed")
    run = small_run(tmp_path / "run", MEMORY)
    (checkpoint,) = (run / "checkpoints").iterdir()
    out = export.export(checkpoint, export.ExportConfig(format=form))
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    assert out == run / ("policy.onnx" if form == "onnx" else "policy.pt2")
    if form == "onnx":
        metadata = importlib.import_module("onnx").load(out).metadata_props
        (notes,) = (json.loads(each.value) for each in metadata if each.key == "mtxl_rl")
        example: Any = importlib.import_module("examples.act_without_torch")
        assert "torch" not in vars(example)
        assert 0 <= example.play(str(out), MEMORY) <= 1
    else:
        notes = by_the_page(out)
    named = {each["name"]: each for each in notes["inputs"]}
    sizes = {"kind": "categories", "size": [11, 6, 4], "start": 0, "keys": ["image"]}
    assert named["image"] == {"name": "image", "shape": [1, 7, 7, 3], "dtype": "int64", **sizes}
    assert [name for name in named if "keys" in named[name]] == ["direction", "image"]
    assert notes["actions"] == {"kind": "choices", "choices": [7], "shape": [], "start": 0}
    assert notes["env"] == {"id": MEMORY, "kwargs": {}, "wrap": []}


def by_the_page(out: Path) -> dict[str, Any]:
    """Run the lines of docs/inspect.md, and return the file's notes."""
    page = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```py\n(files = .*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {"json": json, "torch": torch}
    exec(program.replace("runs/RUN/policy.pt2", str(out)), names)
    assert names["policy"].shape == (1, 7)
    assert len(names["state"]) == len(names["notes"]["state"]) > 0
    return names["notes"]


def test_parts_of_our_names_get_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["reset", "prev_action", "state_0", "value", "state_0_after", "a"]
    space = spaces.Dict({name: Discrete(3) for name in names})
    spec = EnvSpec("Spaces-v0", lambda **_: SpacesEnv(space, Discrete(2)))
    monkeypatch.setitem(gymnasium.registry, "Spaces-v0", spec)
    step = ActingStep(load(small_run(tmp_path / "run", "Spaces-v0", "gru"), device="cpu").agent)
    assert [name for name in step.inputs_of if step.inputs_of[name] == name] == ["a"]
    assert list(step.inputs_of) == sorted(names)
    assert export.check(step, step, 20) < 1e-4


@pytest.mark.parametrize(
    ("space", "is_grid", "expected"),
    [
        (Discrete(5, start=-3), False, {"kind": "categories", "size": 5, "start": -3}),
        (MultiDiscrete([3, 4]), False, {"kind": "categories", "size": [3, 4], "start": 0}),
        (bytes_box(7, 7, 3), True, {"kind": "categories", "size": [11, 6, 4], "start": 0}),
        (bytes_box(2, 7, 7, 3), True, {"kind": "categories", "size": [11, 6, 4] * 2, "start": 0,
                                       "axes": [1, 2, 0, 3]}),
        (bytes_box(7, 7, 20), True, {"kind": "indicators", "sizes": [11, 6, 3], "start": 0,
                                     "size": [11, 6, 4]}),
        (bytes_box(9, 9, 3), False, {"kind": "picture", "layout": "channels last", "frames": 1}),
        (bytes_box(2, 3, 9, 9), False, {"kind": "picture", "layout": "channels first",
                                        "frames": 2}),
        (Box(-1, 1, (4,)), False, {"kind": "numbers"}),
        (Text(9), False, {"kind": "bytes"}),
    ],
    ids=str,
)  # fmt: skip
def test_notes_say_what_an_input_is(space: Space, is_grid: bool, expected: dict[str, Any]) -> None:
    field = flat_space(space, {"observation"} if is_grid else ())["observation"]
    notes = reading(space, field)
    assert notes == expected
    assert json.loads(json.dumps(notes)) == notes
    if "axes" in notes:
        value = np.random.default_rng(1).integers(3, size=space.shape or ())
        read = make_flattener(space, spaces.Dict({"observation": field}))(value[None])
        ours = value.transpose(notes["axes"]).reshape(field.shape or ())
        np.testing.assert_array_equal(ours, read["observation"][0])


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", MEMORY)
    others: dict[Any, str] = {"onnx": ".pt2", "torch": ".onnx"}
    for form, suffix in others.items():
        with pytest.raises(ValueError, match=f"must end in {export.SUFFIXES[form]}"):
            export.export(run, export.ExportConfig(format=form, out=tmp_path / f"policy{suffix}"))
    if importlib.util.find_spec("onnxscript") is None:
        with pytest.raises(ValueError, match=r"needs onnxscript; pip install"):
            export.export(run, export.ExportConfig())
