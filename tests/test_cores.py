"""Every core of the table keeps the contract of the interface."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from agents.cores.baseline_cores import ResidualCore, TensorState
from agents.cores.core import CORES, CoreKind, core_config, make_core, state_size
from agents.cores.core_config import CoreConfig
from agents.cores.delta_net import (
    DeltaNet,
    delta_rule_by_chunks,
    delta_rule_by_steps,
    gated_delta_rule,
)
from agents.cores.memory_core import MemoryCore
from agents.cores.min_gru import MinGRU
from mtxl_rl.core.long_memory import GATE_BIAS, GatedWrite
from mtxl_rl.core.memory_network import MemoryNetwork

BATCH_SIZE, NUM_STEPS, DIM = 3, 11, 8
KINDS = list(CORES)
RECURRENT_KINDS: tuple[CoreKind, ...] = ("gru", "lstm", "mingru", "deltanet")


def long_memory(**options: Any) -> GatedWrite | MemoryNetwork:
    torch.manual_seed(0)
    core = make_core(core_config(dim=32, **options))
    assert isinstance(core, MemoryCore)
    assert core.transformer.long_memory is not None
    return core.transformer.long_memory


def config(kind: CoreKind) -> CoreConfig:
    if kind in ("mtxl", "gtrxl"):
        return core_config(kind=kind, dim=DIM, heads=2, seq_len=4, mem_len=5)
    return core_config(kind=kind, dim=DIM)


def inputs(reset_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(BATCH_SIZE, NUM_STEPS, DIM)
    return x, torch.rand(BATCH_SIZE, NUM_STEPS) < reset_rate


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


def test_gtrxl_has_gru_gates_and_no_long_memory() -> None:
    core = make_core(config("gtrxl"))
    names = [name for name, _ in core.named_parameters()]  # type: ignore[attr-defined]
    assert any(name.endswith("attn_gate.update_bias") for name in names)
    assert not any("long_memory" in name for name in names)


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
def test_weights_start_orthogonal(kind: CoreKind) -> None:
    torch.manual_seed(0)
    core = make_core(config(kind))
    assert isinstance(core, torch.nn.Module)
    linears = [m.weight for m in core.modules() if isinstance(m, torch.nn.Linear)]
    gates = [p for m in core.modules() if isinstance(m, torch.nn.RNNBase)
             for name, p in m.named_parameters() if "weight" in name]  # fmt: skip
    of_gates = [gate for weight in gates for gate in weight.split(DIM)]
    for weight, gain in [(w, 2**0.5) for w in linears] + [(w, 1.0) for w in of_gates]:
        rows = weight if len(weight) <= weight.shape[1] else weight.T
        assert_close(rows @ rows.T, gain**2 * torch.eye(len(rows)), atol=1e-4, rtol=0)
    assert linears or gates


def test_lstm_starts_with_an_open_forget_gate() -> None:
    core = make_core(config("lstm"))
    state = core.initial_state(1)
    state.tensors[1].fill_(1.0)  # cells; no input, no output before
    blank, no_reset = torch.zeros(1, 1, DIM), torch.zeros(1, 1, dtype=torch.bool)
    _, after = core(blank, state, no_reset)
    first_layer = after.tensors[1][:, 0]
    assert_close(first_layer, torch.full((1, DIM), torch.tensor(1.0).sigmoid().item()))


@pytest.mark.parametrize("kind", ["gru", "lstm", "mingru"])
def test_chrono_spreads_what_is_kept_of_the_state(kind: CoreKind) -> None:
    """Without input a unit keeps u / (1 + u) of its state, u drawn from 1 to T - 1."""
    torch.manual_seed(0)
    dim, max_time = 128, 50
    core = make_core(core_config(kind=kind, dim=dim, depth=1, chrono=max_time))
    assert isinstance(core, torch.nn.Module)
    for name, parameter in core.named_parameters():
        if "weight" in name:
            torch.nn.init.zeros_(parameter)
    state = core.initial_state(1)
    state.tensors[-1].fill_(1.0)  # of an LSTM the cells
    _, after = core(torch.zeros(1, 1, dim), state, torch.zeros(1, 1, dtype=torch.bool))
    kept = after.tensors[-1].flatten()
    times = (kept / (1 - kept)).sort().values
    expected = torch.linspace(1, max_time - 1, dim)
    assert times[0] >= 1 - 1e-3
    assert times[-1] <= max_time - 1 + 1e-2
    assert (times - expected).abs().max() < 7
    torch.manual_seed(0)
    again = make_core(core_config(kind=kind, dim=dim, depth=1, chrono=max_time))
    assert isinstance(again, torch.nn.Module)
    biases = dict(core.named_parameters())
    for name, parameter in again.named_parameters():
        if "bias" in name:
            assert torch.equal(parameter, biases[name])


def test_chrono_lets_an_lstm_take_in_what_it_does_not_keep() -> None:
    core = make_core(core_config(kind="lstm", dim=DIM, chrono=100))
    assert isinstance(core, torch.nn.Module)
    for name, bias in core.named_parameters():
        if "bias" in name:
            takes, keeps, others = bias.detach().split((DIM, DIM, 2 * DIM))
            assert torch.equal(takes, -keeps)
            assert (keeps != 0).all() == ("bias_ih" in name)
            assert (others == 0).all()


def test_min_gru_is_its_equations() -> None:
    torch.manual_seed(0)
    layer = MinGRU(DIM)
    x, reset = inputs(reset_rate=0.2)
    outputs, last = layer(x, torch.randn(BATCH_SIZE, DIM), reset | (torch.arange(NUM_STEPS) == 0))
    for env in range(BATCH_SIZE):
        h = torch.zeros(DIM)
        for t in range(NUM_STEPS):
            if reset[env, t]:
                h = torch.zeros(DIM)
            z = torch.sigmoid(layer.gate.weight @ x[env, t] + layer.gate.bias)
            candidate = layer.candidate.weight @ x[env, t] + layer.candidate.bias
            h = (1 - z) * h + z * candidate
            assert_close(outputs[env, t], h, atol=1e-5, rtol=1e-5)
        assert_close(last[env], h, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_steps", [2, 16, 37])
@pytest.mark.parametrize("reset_rate", [0.0, 0.2, 1.0])
def test_delta_rule_by_chunks_equals_steps(num_steps: int, reset_rate: float) -> None:
    torch.manual_seed(0)
    num_heads, key_dim, value_dim = 2, 5, 7
    shape = (BATCH_SIZE, num_steps, num_heads)
    q, k, v = (torch.randn(*shape, width) for width in (key_dim, key_dim, value_dim))
    k = torch.nn.functional.normalize(k, dim=-1)
    first = torch.randn(BATCH_SIZE, num_heads, key_dim, value_dim)
    alpha, beta = torch.rand(shape), torch.rand(shape)
    leaves = [each.requires_grad_() for each in (q, k, v, alpha, beta, first)]
    reset = torch.rand(BATCH_SIZE, num_steps) < reset_rate
    found, expected = (
        rule(q, k, v, alpha, beta, first, reset)
        for rule in (delta_rule_by_chunks, delta_rule_by_steps)
    )
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weights = [torch.randn_like(each) for each in found]
    grads, expected_grads = (
        torch.autograd.grad(each, leaves, weights) for each in (found, expected)
    )
    assert_close(grads, expected_grads, atol=1e-4, rtol=1e-4)


def test_gated_delta_rule_is_its_equation() -> None:
    torch.manual_seed(0)
    num_heads, key_dim, value_dim = 2, 5, 7
    shape = (BATCH_SIZE, NUM_STEPS, num_heads)
    q, k, v = (torch.randn(*shape, width) for width in (key_dim, key_dim, value_dim))
    k = torch.nn.functional.normalize(k, dim=-1)
    alpha, beta = torch.rand(shape), torch.rand(shape)
    _, reset = inputs(reset_rate=0.2)
    first = torch.randn(BATCH_SIZE, num_heads, key_dim, value_dim)
    outputs, last = gated_delta_rule(q, k, v, alpha, beta, first, reset)
    for b in range(BATCH_SIZE):
        for h in range(num_heads):
            memory = first[b, h].T  # S (V, K)
            for t in range(NUM_STEPS):
                at = (b, t, h)
                forget = torch.eye(key_dim) - beta[at] * torch.outer(k[at], k[at])
                memory = 0 * memory if reset[b, t] else alpha[at] * memory @ forget
                memory = memory + beta[at] * torch.outer(v[at], k[at])
                assert_close(outputs[at], memory @ q[at], atol=1e-5, rtol=1e-5)
            assert_close(last[b, h], memory.T, atol=1e-5, rtol=1e-5)


def test_delta_net_starts_with_time_constants_of_10_to_10000_steps() -> None:
    for heads, expected in ((4, [10.0, 100.0, 1000.0, 10_000.0]), (1, [10**2.5])):
        core = make_core(core_config(kind="deltanet", dim=DIM, heads=heads))
        assert isinstance(core, ResidualCore)
        for layer in core.recurrences:
            assert isinstance(layer, DeltaNet)
            kept = layer.decay(torch.randn(3, DIM)).double()
            constants = -1 / torch.log(kept)
            assert_close(constants, torch.tensor([expected] * 3).double(), atol=0, rtol=1e-2)
    with pytest.raises(ValueError, match="heads=3 must divide dim=8; set heads to 2 or 4"):
        make_core(core_config(kind="deltanet", dim=DIM, heads=3))


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


def test_the_seeds_writes_start_sharp_and_as_in_the_seed_if_asked() -> None:
    def network(**options: Any) -> MemoryNetwork:
        found = long_memory(mem_write="seed", **options)
        assert isinstance(found, MemoryNetwork)
        return found

    keys, values = network(mem_write_gain=3.0).key_value.detach().chunk(2, dim=1)
    assert keys.norm().item() == pytest.approx(3 * values.norm().item())
    assert_close(values.T @ values, 2 * torch.eye(32), atol=1e-5, rtol=0)
    assert network(mem_write_gain=None).key_value.abs().max() <= 32**-0.5


def test_gated_writes_start_nearly_shut() -> None:
    write = long_memory()
    assert isinstance(write, GatedWrite)
    assert_close(write.gate.bias.detach(), torch.full_like(write.gate.bias, GATE_BIAS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lmem_len": 0, "mem_write": "seed"}, "mem_write=seed has no effect without a long"),
        ({"kind": "gtrxl", "mem_write": "seed"}, "mem_write has no effect on the core gtrxl"),
        ({"mem_write_gain": 2.0}, r"mem_write_gain=2\.0 has an effect on the seed's write only"),
        ({"mem_write_iters": 3}, "mem_write_iters=3 has an effect on the seed's write only"),
        ({"mem_write_gain": None}, "mem_write_gain=None has an effect on the seed's write only"),
    ],
)
def test_options_of_writes_are_refused_where_they_do_nothing(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        core_config(**options)


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
