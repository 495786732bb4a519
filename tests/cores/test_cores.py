"""Every core of the table keeps the contract of the interface."""

from __future__ import annotations

import math

import pytest
import torch
from small_cores import BATCH_SIZE, DIM, NUM_STEPS, config, inputs
from torch.testing import assert_close

from agents.cores.baseline_cores import BaselineCore, TensorState
from agents.cores.core import CORES, CoreKind, core_config, make_core, option_names, state_size

KINDS = list(CORES)
RECURRENT_KINDS = [
    kind for kind in KINDS if issubclass(CORES[kind], BaselineCore) and CORES[kind].has_memory
]


@pytest.mark.parametrize("kind", KINDS)
def test_step_equals_sequence(kind: CoreKind) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    x, reset = inputs(reset_rate=0.2)
    expected, _ = core(x, core.initial_state(BATCH_SIZE), reset)
    acting = core.acting(core.initial_state(BATCH_SIZE))
    outputs = []
    for t in range(NUM_STEPS):
        peeked = acting.peek(x[:, t], reset[:, t])
        outputs.append(acting.step(x[:, t], reset[:, t]))
        assert torch.equal(peeked, outputs[-1])
    assert_close(torch.stack(outputs, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_shields_by_value_and_gradient(kind: CoreKind) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    x, _ = inputs(reset_rate=0.0)
    x.requires_grad_()
    for position in range(1, NUM_STEPS):
        reset = torch.zeros(BATCH_SIZE, NUM_STEPS, dtype=torch.bool)
        reset[1, position] = True
        y, _ = core(x, core.initial_state(BATCH_SIZE), reset)
        (grad,) = torch.autograd.grad(y[1, position:].square().sum(), x, retain_graph=True)
        assert (grad[1, :position] == 0).all()
        assert (grad[1, position] != 0).any()
        (grad,) = torch.autograd.grad(y[0, -1].square().sum(), x)
        assert (grad[0, -1] != 0).any()
        assert (grad[1] == 0).all()


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e20])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_ends_with_its_episode(kind: CoreKind, poison: float) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    x, reset = inputs(reset_rate=0.0)
    reset[1, 6] = True
    expected, _ = core(x, core.initial_state(BATCH_SIZE), reset)
    poisoned = x.clone()
    poisoned[1, 2:5] = poison
    y, _ = core(poisoned, core.initial_state(BATCH_SIZE), reset)
    assert_close(y[1, 6:], expected[1, 6:], atol=1e-5, rtol=1e-5)
    assert_close(y[[0, 2]], expected[[0, 2]], atol=1e-5, rtol=1e-5)
    acting = core.acting(core.initial_state(BATCH_SIZE))
    for t in range(NUM_STEPS):
        y_t = acting.step(poisoned[:, t], reset[:, t])
        if t >= 6:
            assert_close(y_t, expected[:, t], atol=1e-5, rtol=1e-5)


def resets(where: str) -> torch.Tensor:
    reset = torch.zeros(BATCH_SIZE, NUM_STEPS, dtype=torch.bool)
    if where == "everywhere":
        reset[:] = True
    elif where == "at the ends":
        reset[0, 0] = reset[1, -1] = True
    elif where == "here and there":
        reset = torch.rand(BATCH_SIZE, NUM_STEPS) < 0.3
    return reset


@pytest.mark.parametrize("where", ["nowhere", "everywhere", "at the ends", "here and there"])
@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_gradients_of_a_sequence_equal_those_of_its_steps(kind: CoreKind, where: str) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    assert isinstance(core, torch.nn.Module)
    first = tuple(torch.randn_like(each) for each in core.initial_state(BATCH_SIZE).tensors)
    x, reset = torch.randn(BATCH_SIZE, NUM_STEPS, DIM), resets(where)
    leaves = [each.requires_grad_() for each in (x, *first)]
    y, last = core(x, TensorState(first), reset)
    state, outputs = TensorState(first), []
    for t in range(NUM_STEPS):
        y_t, state = core(x[:, t : t + 1], state, reset[:, t : t + 1])
        outputs.append(y_t[:, 0])
    found, expected = (y, *last.tensors), (torch.stack(outputs, dim=1), *state.tensors)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = [torch.randn_like(each) for each in found]
    leaves += core.parameters()
    grads, expected_grads = (
        torch.autograd.grad(each, leaves, weights) for each in (found, expected)
    )
    assert_close(grads, expected_grads, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", RECURRENT_KINDS)
def test_what_is_not_finite_is_in_no_gradient_of_a_later_episode(kind: CoreKind) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    x, reset = inputs(reset_rate=0.0)
    reset[1, 6] = True
    seen = torch.ones(BATCH_SIZE, NUM_STEPS, 1)
    seen[1, :6] = 0
    grads = []
    for poison in (0.0, math.nan):
        poisoned = x.clone()
        poisoned[1, 2:5] = poison
        poisoned.requires_grad_()
        y, _ = core(poisoned, core.initial_state(BATCH_SIZE), reset)
        y[seen.squeeze(-1) > 0].square().sum().backward()
        assert poisoned.grad is not None
        grads.append(torch.where(seen > 0, poisoned.grad, 0.0))
    assert_close(grads[1], grads[0], atol=1e-4, rtol=1e-3)
    assert (grads[0][1, 6:] != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_only_feedforward_has_no_memory(kind: CoreKind) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    x, reset = inputs(reset_rate=0.0)
    other = x.clone()
    other[:, 7] += 1
    change = (
        (
            core(x, core.initial_state(BATCH_SIZE), reset)[0]
            - core(other, core.initial_state(BATCH_SIZE), reset)[0]
        )
        .abs()
        .amax(dim=(0, 2))
    )
    assert (change[:7] == 0).all()
    assert change[7] > 0
    assert (change[8:] > 0).all() == core.has_memory == (kind != "feedforward")


@pytest.mark.parametrize("kind", KINDS)
def test_state_can_be_indexed_by_env_and_detached(kind: CoreKind) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    x, reset = inputs(reset_rate=0.2)
    _, state = core(x[:, :5], core.initial_state(BATCH_SIZE), reset[:, :5])
    expected, _ = core(x[:, 5:], state, reset[:, 5:])
    envs = torch.tensor([2, 0])
    y, _ = core(x[envs, 5:], state[envs].detach().clone(), reset[envs, 5:])
    assert_close(y, expected[envs], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "gru", "mem_len": 3},
            "mem_len has no effect .* gru; .* --core.kind mtxl or gt",
        ),
        ({"kind": "feedforward", "mogrify": True}, "core.mogrify has no effect"),
        (
            {"kind": "mingru", "heads": 2},
            "heads has no .* --core.kind mtxl, gtrxl or deltanet",
        ),
        (
            {"chrono": 9},
            "chrono has no effect on the core mtxl; .* --core.kind gru, lstm or mi",
        ),
        ({"kind": "gtrxl", "chrono": 9}, "core.chrono has no effect on the core gtrxl"),
        ({"kind": "deltanet", "chrono": 9}, "core.chrono .* set --core.kind gru, lstm or mingru"),
        ({"kind": "gru", "chrono": 2}, "chrono=2 must be 3 or more"),
        (
            {"kind": "gtrxl", "lmem_len": 4},
            "lmem_len has no effect .* gtrxl; .* --core.kind mtxl",
        ),
    ],
)
def test_rejects_options_without_effect(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        core_config(**options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, -5, 2**31, 10**30])
def test_a_size_that_none_can_have_is_refused_by_every_core(kind: CoreKind, value: int) -> None:
    names = {"dim", "depth", "chrono", "seq_len", "image_size"} & set(option_names(kind))
    for name in sorted(names):
        with pytest.raises(ValueError, match=rf"{name}={value} must be (\d or more|at most 2,147)"):
            make_core(core_config(kind=kind, **{name: value}))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_start_orthogonal(kind: CoreKind) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    assert isinstance(core, torch.nn.Module)
    linears = [
        m.weight
        for name, m in core.named_modules()
        if isinstance(m, torch.nn.Linear) and not name.endswith("long_memory.gate")
    ]  # its steepness is another test's
    gates = [p for m in core.modules() if isinstance(m, torch.nn.RNNBase)
             for name, p in m.named_parameters() if "weight" in name]  # fmt: skip
    of_gates = [gate for weight in gates for gate in weight.split(DIM)]
    for weight, gain in [(w, 2**0.5) for w in linears] + [(w, 1.0) for w in of_gates]:
        rows = weight if len(weight) <= weight.shape[1] else weight.T
        assert_close(rows @ rows.T, gain**2 * torch.eye(len(rows)), atol=1e-4, rtol=0)
    assert linears or gates


def test_state_size_counts_the_floats_that_an_env_carries() -> None:
    sizes = {kind: state_size(make_core(config(kind))) for kind in KINDS}
    depth, mem_len, seq_len, lmem_len, head_dim = 2, 5, 4, 4, 2
    transformer = depth * (mem_len + seq_len) * DIM
    assert sizes == {
        "mtxl": transformer + lmem_len * DIM,
        "gtrxl": transformer,
        "gru": depth * DIM,
        "lstm": 2 * depth * DIM,
        "mingru": depth * DIM,
        "deltanet": depth * DIM * head_dim,
        "feedforward": 0,
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_runs_with_weights_of_another_dtype(kind: CoreKind, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    x, reset = inputs(reset_rate=0.2)
    expected, _ = core(x, core.initial_state(BATCH_SIZE), reset)
    assert isinstance(core, torch.nn.Module)
    core.to(dtype)
    y, state = core(x.to(dtype), core.initial_state(BATCH_SIZE), reset)
    stepped = core.acting(state).step(x[:, 0].to(dtype), reset[:, 0])
    assert y.dtype == stepped.dtype == dtype
    assert_close(y.float(), expected, atol=0.25, rtol=0.1)
