"""The state of the backbone is a value of tensors, refused by a core that it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from memory_configurations import (
    BASE,
    BATCH_SIZE,
    CONFIGURATIONS,
    make_core,
    random_inputs,
    visible,
)
from step_by_step import TOLERANCE, run_steps
from torch.testing import assert_close
from torch.utils import _pytree as pytree

from mtxl_rl import Acting, MemoryState, MemoryTransformerXL
from mtxl_rl.core.state import TENSOR_FIELDS


def test_neither_form_changes_the_state_it_starts_from() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 12, reset_rate=0.3)
    _, state = run_steps(core, x[:, :3], reset[:, :3])
    before = state.clone()
    acting = Acting(core, state)
    for t in range(3, 12):
        acting.step(x[:, t], reset[:, t])
    core(x[:, 3:], state, reset[:, 3:])
    assert_close(state.to_dict(), before.to_dict(), atol=0, rtol=0)
    taken = acting.state
    kept = taken.clone()
    acting.step(x[:, 0], reset[:, 0])
    assert_close(taken.to_dict(), kept.to_dict(), atol=0, rtol=0)


def test_state_is_a_pytree_of_its_tensors() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 8, reset_rate=0.0)
    _, state = core(x, core.initial_state(BATCH_SIZE), reset)
    tensors, _ = pytree.tree_flatten(state)
    assert len(tensors) == 6
    halved = pytree.tree_map(lambda t: t if t.dtype == torch.bool else t / 2, state)
    assert isinstance(halved, MemoryState)
    assert torch.equal(halved.long, state.long / 2)
    assert halved.position == state.position
    assert (state == state) is True
    assert state != halved


def test_a_states_dtype_is_that_of_its_numbers() -> None:
    core = make_core("mem_len above seq_len").double()
    x, reset = random_inputs(core, 8, reset_rate=0.1)
    _, state = core(x.double(), core.initial_state(BATCH_SIZE), reset)
    single = state.to(torch.float32)
    assert single.long.dtype == torch.float32
    assert single.short_valid.dtype == torch.bool
    assert_close(
        core.float()(x, single, reset)[0].double(),
        core.double()(x.double(), state, reset)[0],
        **TOLERANCE,
    )


def test_state_is_a_value() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 13, reset_rate=0.1)
    _, state = core(x[:, :7], core.initial_state(BATCH_SIZE), reset[:, :7])
    expected, _ = core(x[:, 7:], state, reset[:, 7:])
    restored = MemoryState.from_dict(state.detach().to_dict()).to("cpu")
    assert_close(core(x[:, 7:], restored, reset[:, 7:])[0], expected)
    mask = torch.tensor([True, False, True, False])
    for envs in (mask, torch.tensor([0, 2]), slice(0, 3, 2), [0, 2]):
        y, _ = core(x[mask, 7:], state[envs], reset[mask, 7:])
        assert_close(y, expected[mask], **TOLERANCE)
    assert state.long.requires_grad
    assert not state.detach().long.requires_grad
    with pytest.raises(ValueError, match=r"pass what MemoryState\.to_dict returned"):
        MemoryState.from_dict({"short": state.short})


def test_rejects_inputs_that_do_not_fit() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 5, reset_rate=0.0)
    state = core.initial_state(BATCH_SIZE)
    with pytest.raises(ValueError, match=r"pass x \(B, T, 11\)"):
        core(x[..., :3], state, reset)
    with pytest.raises(ValueError, match="the state holds 4 envs"):
        core(x[:2], state, reset[:2])
    with pytest.raises(ValueError, match="T >= 1"):
        core(x[:, :0], state, reset[:, :0])
    with pytest.raises(ValueError, match="bptt_segments=0"):
        core(x, state, reset, bptt_segments=0)
    with pytest.raises(ValueError, match=r"pass \(4, 11\) and \(4,\)"):
        Acting(core, state).step(x[:, 0, :3], reset[:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lmem_len": 4}, "the state's lmem_len is 4, the core's 3"),
        ({"mem_len": 6}, "the state's mem_len is 6, the core's 7"),
        ({"seq_len": 6}, "the state's seq_len is 6, the core's 5"),
        ({"depth": 2}, "the state's depth is 2, the core's 3"),
        ({"dim": 14}, "the state's dim is 14, the core's 12"),
        ({"memory_layers": [1]}, "the state's number of memory layers is 1, the core's 3"),
    ],
)
def test_the_state_of_another_core_is_refused_by_name(change: dict, message: str) -> None:
    core = make_core("mem_len above seq_len")
    state = MemoryTransformerXL(**(BASE | change)).initial_state(BATCH_SIZE)
    x, reset = random_inputs(core, 5, reset_rate=0.0)
    for use in (lambda: core(x, state, reset), lambda: Acting(core, state)):
        with pytest.raises(ValueError, match=message):
            use()


def test_a_state_that_no_call_returned_is_refused() -> None:
    core = make_core("mem_len above seq_len")
    state = core.initial_state(BATCH_SIZE)
    with pytest.raises(ValueError, match=r"dtype is torch\.float64, the core's torch\.float32"):
        Acting(core, state.to(torch.float64))
    with pytest.raises(ValueError, match="position is 5; it must be a whole number from 0 to 4"):
        Acting(core, replace(state, position=5))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it to the core to refuse what jaxtyping would refuse first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked")
def test_a_state_whose_tensors_do_not_fit_each_other_is_refused() -> None:
    core = make_core("mem_len above seq_len")
    state = core.initial_state(BATCH_SIZE)
    for name in TENSOR_FIELDS:
        tensor = getattr(state, name)
        other = tensor.long() if tensor.dtype == torch.bool else tensor.double()
        for damaged in (tensor[:2], other):
            changed: dict[str, Any] = {name: damaged}
            with pytest.raises(ValueError, match=r"^the state's .*; pass a state"):
                Acting(core, replace(state, **changed))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, state, reset: (x, reset), r"state is a Tensor; pass core\(x, state, reset\)"),
        (lambda x, state, reset: (x, state.to_dict(), reset), r"state is a dict; pass .*from_dict"),
        (lambda x, state, reset: (x, (state,), reset), "state is a tuple; pass"),
        (lambda x, state, reset: (x, state[0], reset), r"must have 4 dim.*pass state\[\[0\]\]"),
        (lambda x, state, reset: (x, state, reset[:, 0]), r"reset \(4,\) .* reset \(B, T\)"),
        (lambda x, state, reset: (x[:, 0], state, reset[:, 0]), r"x is \(4, 11\), .* x \(B, T, 11"),
        (lambda x, state, reset: (x.double(), state, reset), r"float64, the core torch\.float32"),
        (lambda x, state, reset: (x.numpy(), state, reset), "x is a ndarray; pass a tensor"),
        (lambda x, state, reset: (x, state, reset.tolist()), "reset is a list; pass a tensor"),
    ],
)
def test_a_slip_is_said_in_one_line(change: Callable[..., tuple], message: str) -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 5, reset_rate=0.0)
    with pytest.raises(ValueError, match=message) as raised:
        core(*change(x, core.initial_state(BATCH_SIZE), reset))
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("position", [1.0, "1", None, True, torch.tensor(2), -1])
def test_a_position_that_is_no_place_is_refused(position: object) -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 5, reset_rate=0.0)
    changed: dict[str, Any] = {"position": position}
    state = replace(core.initial_state(BATCH_SIZE), **changed)
    for use in (lambda: core(x, state, reset), lambda: Acting(core, state)):
        with pytest.raises(ValueError, match=r"position is .* must be a whole number from 0 to 4"):
            use()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", TENSOR_FIELDS)
def test_a_state_without_a_tensor_is_refused(name: str) -> None:
    core = make_core("mem_len above seq_len")
    changed: dict[str, Any] = {name: None}
    state = replace(core.initial_state(BATCH_SIZE), **changed)
    with pytest.raises(ValueError, match=f"the state's {name} is a NoneType; pass a tensor"):
        Acting(core, state)


def test_a_saved_position_that_is_none_is_refused() -> None:
    named = make_core("mem_len above seq_len").initial_state(2).to_dict()
    for position in (torch.tensor(1.7), torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="it must be a whole number, as"):
            MemoryState.from_dict(named | {"position": position})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("bptt_segments", [0, -1, 1.5, True, "2"])
def test_a_number_of_segments_is_whole(bptt_segments: Any) -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 5, reset_rate=0.0)
    with pytest.raises(ValueError, match=r"bptt_segments=.* must be a whole number, 1 or more"):
        core(x, None, reset, bptt_segments=bptt_segments)


@pytest.mark.usefixtures("unchecked")
def test_the_core_runs_on_the_meta_device_and_says_where_things_lie() -> None:
    core = make_core("mem_len above seq_len").to("meta")
    x, reset = torch.empty(2, 7, 11, device="meta"), torch.zeros(2, 7, dtype=torch.bool)
    y, state = core(x, None, reset.to("meta"))
    assert y.shape == (2, 7, 12)
    with pytest.raises(ValueError, match="x is on meta, reset on cpu and the state on meta"):
        core(x, state, reset)


def test_torch_saves_and_loads_a_state(tmp_path: Path) -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 7, reset_rate=0.1)
    state = core(x, None, reset)[1].detach()
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt")
    assert_close(loaded.to_dict(), state.to_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_env_at_all_is_a_batch(name: str) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, 12, reset_rate=0.1)
    y, state = core(x[:0], None, reset[:0])
    stepped, _ = run_steps(core, x[:0], reset[:0], core.initial_state(0))
    assert y.shape == stepped.shape == (0, 12, 12)
    y.sum().backward()
    assert state.batch_size == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "change",
    [
        lambda x, reset: (x.double(), ~reset),
        lambda x, reset: (x[:, :3], ~reset),
        lambda x, reset: (x, reset.long() + 1),
        lambda x, reset: (x.cfloat(), ~reset),
    ],
)
@pytest.mark.parametrize("is_autocast", [False, True])
def test_a_step_that_fails_is_not_taken(change: Callable[..., tuple], is_autocast: bool) -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 7, reset_rate=0.1)
    acting, undisturbed = Acting(core, BATCH_SIZE), Acting(core, BATCH_SIZE)
    for t in range(7):
        with torch.autocast("cpu", enabled=is_autocast), pytest.raises(ValueError, match="pass"):
            acting.step(*change(x[:, t], reset[:, t]))
        assert_close(acting.step(x[:, t], reset[:, t]), undisturbed.step(x[:, t], reset[:, t]))
    assert_close(visible(acting.state), visible(undisturbed.state), atol=0, rtol=0)
