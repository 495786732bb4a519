"""What is exported is the agent."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_run

from agents.cores.core import CoreKind
from mtxl_rl import export
from mtxl_rl.acting_step import ActingStep
from mtxl_rl.policy import load

SMALL: dict[str, Any] = {"dim": 12, "depth": 2, "heads": 3, "seq_len": 5, "mem_len": 3}
MTXL = {**SMALL, "lmem_len": 2}
MEMORY = "MiniGrid-MemoryS7-v0"


@pytest.mark.parametrize(
    ("env_id", "kind", "options"),
    [
        (MEMORY, "mtxl", MTXL),
        ("mtxl/Recall6-v0", "mtxl", {**MTXL, "mem_write": "seed"}),
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
    assert export.check(agent, lambda inputs: list(step(*inputs.values())), 60) < 1e-4


def test_the_check_finds_another_function(tmp_path: Path) -> None:
    agent = load(small_run(tmp_path / "run", MEMORY), device="cpu").agent
    step = ActingStep(agent)

    def forgets(inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        outputs = list(step(*inputs.values()))
        outputs[2 + step.state_names.index("long_valid")].zero_()
        return outputs

    with pytest.raises(ValueError, match="differs from the agent"):
        export.check(agent, forgets, 60)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_file_is_the_agent(tmp_path: Path, form: Any) -> None:
    if form == "onnx" and not all(map(importlib.util.find_spec, ("onnxruntime", "onnxscript"))):
        pytest.skip("onnxruntime and onnxscript are not installed")
    run = small_run(tmp_path / "run", MEMORY)
    out = export.export(run, export.ExportConfig(format=form))
    assert out.stat().st_size > 10_000


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", MEMORY)
    with pytest.raises(ValueError, match="in no folder that is there"):
        export.export(run, export.ExportConfig(out=tmp_path / "none" / "policy.onnx"))
    if importlib.util.find_spec("onnxscript") is None:
        with pytest.raises(ValueError, match=r"needs onnxscript; pip install"):
            export.export(run, export.ExportConfig())
