"""The core in other people's code: saved, hooked, compiled, exported, trained by several ranks."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from memory_configurations import BASE, BATCH_SIZE, CONFIGURATIONS, make_core, random_inputs
from programs import output_of
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from mtxl_rl import Acting, MemoryState, MemoryTransformerXL


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_saved_core_is_the_same_core(name: str, tmp_path: Path) -> None:
    core = make_core(name)
    core.save_pretrained(tmp_path / "core")
    again = MemoryTransformerXL.from_pretrained(tmp_path / "core")
    x, reset = random_inputs(core, 12, reset_rate=0.1)
    assert torch.equal(again(x, None, reset)[0], core(x, None, reset)[0])
    assert MemoryTransformerXL.from_config(core.config).config == core.config


def test_a_folder_without_a_core_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no core: .* a folder that save_pretrained wrote"):
        MemoryTransformerXL.from_pretrained(tmp_path)
    core = make_core("mem_len above seq_len")
    core.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(core.config | {"no_option": 1}))
    with pytest.raises(ValueError, match="no_option"):
        MemoryTransformerXL.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_saved_core_keeps_its_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    core = make_core("mem_len above seq_len").to(dtype)
    core.input_proj.float()  # one may be of several
    core.save_pretrained(tmp_path)
    again = MemoryTransformerXL.from_pretrained(tmp_path)
    for name, tensor in core.state_dict().items():
        assert_close(again.state_dict()[name], tensor, atol=0, rtol=0)
    assert all(parameter.requires_grad for parameter in again.parameters())


class Small(MemoryTransformerXL):
    """A subclass whose arguments are its own."""

    def __init__(self, dim: int, extra: Any = 3):
        super().__init__(dim, depth=1, seq_len=4, mem_len=4, lmem_len=2, heads=1)
        self.extra = extra


class More(MemoryTransformerXL):
    """A subclass with an argument more."""

    def __init__(self, *args: Any, extra: int = 3, **options: Any):
        super().__init__(*args, **options)
        self.extra = extra


def test_a_subclass_is_saved_with_its_arguments(tmp_path: Path) -> None:
    for core in (Small(8, extra=5), More(**BASE, extra=5), copy.deepcopy(Small(8, 5))):
        core.save_pretrained(tmp_path)
        assert type(core).from_pretrained(tmp_path).extra == 5
    with pytest.raises(
        ValueError, match=r"it got \(8, 1, 4, 4, 2\) as \*args, without names; pass"
    ):
        More(8, 1, 4, 4, 2).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"Small cannot be saved: .* is not JSON serializable; let"
    ):
        Small(8, extra=print).save_pretrained(tmp_path)


@pytest.mark.parametrize("kept", [slice(0), slice(100), slice(-5), slice(8, None)])
def test_damaged_weights_are_refused(kept: slice, tmp_path: Path) -> None:
    make_core("mem_len above seq_len").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[kept])
    with pytest.raises(ValueError, match=r"holds no core: .* a folder that save_pretrained wrote"):
        MemoryTransformerXL.from_pretrained(tmp_path)


def test_no_parameter_is_empty_and_all_learn() -> None:
    for name in CONFIGURATIONS:
        core = make_core(name)
        x, reset = random_inputs(core, 17, reset_rate=0.1)
        y, state = core(x, None, reset)
        (y.square().sum() + state.long.square().sum()).backward()
        for parameter_name, parameter in core.named_parameters():
            assert parameter.numel() > 0
            assert parameter.grad is not None, (name, parameter_name)
            assert (parameter.grad != 0).any(), (name, parameter_name)


def test_forward_hooks_see_what_a_layer_returns() -> None:
    core = make_core("mem_len above seq_len")
    seen: list[Tensor] = []
    layer = core.layers[-1]
    assert isinstance(layer, nn.Module)

    def see(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen.append(output)

    layer.register_forward_hook(see)
    x, reset = random_inputs(core, 5, reset_rate=0.0)
    y, _ = core(x, None, reset)
    assert torch.equal(torch.cat(seen, dim=1), y)


def test_several_ranks_train_it(tmp_path: Path) -> None:
    """DistributedDataParallel wants every parameter to have a gradient in every backward pass."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        core = make_core("mem_len above seq_len")
        x, reset = random_inputs(core, 17, reset_rate=0.1)
        expected = _gradients(core, *core(x, core.initial_state(BATCH_SIZE), reset))
        parallel = DistributedDataParallel(core)
        for _ in range(2):  # the second pass fails where the first left a parameter out
            core.zero_grad()
            y, state = parallel(x, core.initial_state(BATCH_SIZE), reset)
            assert_close(_gradients(core, y, state), expected)
    finally:
        distributed.destroy_process_group()


def _gradients(core: MemoryTransformerXL, y: Tensor, state: MemoryState) -> list[Tensor]:
    (y.square().sum() + state.long.square().sum()).backward()
    found = [parameter.grad for parameter in core.parameters()]
    return [grad.clone() for grad in found if grad is not None]


@pytest.mark.slow
@pytest.mark.parametrize(("position", "write"), [(0, "gated"), (0, "seed"), (3, "parts")])
def test_a_program_is_exported_with_its_state(
    position: int, write: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any number of envs, from the place in a segment that it was exported for."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it looks at sizes
    options: dict[str, Any] = BASE | {"depth": 1, "mem_write": write}
    core = MemoryTransformerXL(**options).eval()
    x, reset = random_inputs(core, 7 + position, reset_rate=0.1)
    state = core.initial_state(BATCH_SIZE)
    if position:
        state = core(x[:, 7:], state, reset[:, 7:])[1].detach()
    x, reset = x[:, :7], reset[:, :7]
    batch = {0: torch.export.Dim("batch", min=1)}
    shapes = (batch, [batch] * 6, batch)
    exported = torch.export.export(core, (x, state, reset), dynamic_shapes=shapes)
    for envs in (slice(None), [2], [0, 1, 2, 3, 1, 0, 0]):
        y, after = exported.module()(x[envs], state[envs], reset[envs])
        expected, expected_after = core(x[envs], state[envs], reset[envs])
        assert_close(y, expected)
        assert_close(after.to_dict(), expected_after.to_dict())


def test_acting_outlives_no_change_of_the_weights_but_a_new_one_sees_them() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 9, reset_rate=0.0)
    acting = Acting(core, BATCH_SIZE)
    for t in range(8):
        acting.step(x[:, t], reset[:, t])
    state = acting.state
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.mul_(1.1)
    expected, _ = core(x[:, 8:], state, reset[:, 8:])
    assert_close(Acting(core, state).step(x[:, 8], reset[:, 8]), expected[:, 0])
    assert not torch.allclose(acting.step(x[:, 8], reset[:, 8]), expected[:, 0])


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_resets_that_are_no_truth_values_are_refused_in_both_forms(form: str) -> None:
    assert output_of("reset_of_numbers", form) == (
        "reset has dtype torch.int64; pass a bool tensor\n"
    )
