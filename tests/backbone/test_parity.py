"""The backbone equals the repaired reference package, in values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import gradient, repaired_reference, value
from torch.testing import assert_close

from mtxl_rl import MemoryTransformerXL

BATCH_SIZE, NUM_SEGMENTS = 2, 4
BASE: dict[str, Any] = {
    "dim": 12, "depth": 3, "seq_len": 5, "mem_len": 5, "lmem_len": 7, "heads": 4,
    "num_mem_kv": 0, "mem_write": "seed", "mem_write_iters": 2, "gate": "nbrc",
}  # fmt: skip
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "base": {},
    "mem_len above seq_len": {"mem_len": 13},
    "mem_len below seq_len": {"mem_len": 3},
    "no short memory": {"mem_len": 0},
    "one slot": {"lmem_len": 1},
    "more slots than dim": {"lmem_len": 17},
    "two heads": {"heads": 2},
    "one_kv_head": {"one_kv_head": True},
    "memory_layers": {"memory_layers": [1, 3]},
    "persistent slots": {"num_mem_kv": 3},
    "persistent slots and memory_layers": {"num_mem_kv": 3, "memory_layers": [2], "mem_len": 11},
    "one write iteration": {"mem_write_iters": 1},
    "three write iterations": {"mem_write_iters": 3},
    "residual": {"gate": "residual"},
    "mogrify": {"mogrify": True},
    "ff_glu": {"ff_glu": True},
    "input_dim": {"input_dim": 19},
}


def _reference_options(ours: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in ours.items() if name != "mem_write"}
    options["gru_gated_residual"] = options.pop("gate") == "nbrc"
    options["mogrify_gru"] = options.pop("mogrify", False)
    options["emb_dim"] = options.pop("input_dim", None)
    return options


@pytest.mark.parametrize("bptt_segments", [None, 1], ids=["full gradient", "truncated"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_equals_reference(name: str, bptt_segments: int | None) -> None:
    torch.manual_seed(7)
    config = BASE | CONFIGURATIONS[name]
    core = MemoryTransformerXL(**config).double()
    with repaired_reference(**_reference_options(config)) as reference:
        with torch.no_grad():
            for parameter in reference.model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        core.load_state_dict(reference.tensors(value))
        x = torch.randn(
            BATCH_SIZE, NUM_SEGMENTS * core.seq_len, core.input_dim, dtype=torch.float64
        )
        expected_y, expected_memory = reference.run(x, detach_long=bptt_segments is not None)
        reset = torch.zeros(x.shape[:2], dtype=torch.bool)
        y, state = core(x, core.initial_state(BATCH_SIZE), reset, bptt_segments=bptt_segments)

        weight_y, weight_long = torch.randn_like(y), torch.randn_like(state.long)
        ((expected_y * weight_y).sum() + (expected_memory.long * weight_long).sum()).backward()
        ((y * weight_y).sum() + (state.long * weight_long).sum()).backward()

        tolerance: dict[str, Any] = {"atol": 1e-9, "rtol": 1e-9}
        assert_close(y, expected_y, **tolerance)
        assert_close(state.short.transpose(0, 1), expected_memory.short, **tolerance)
        assert_close(state.long, expected_memory.long, **tolerance)
        expected_gradients = reference.tensors(gradient)
        assert expected_gradients.keys() == dict(core.named_parameters()).keys()
        for parameter_name, parameter in core.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            expected = expected_gradients[parameter_name]
            assert_close(grad, expected, **tolerance, msg=lambda m: f"{parameter_name}: {m}")  # noqa: B023
