"""Each core by itself: its equations, and the weights that it starts with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_cores import BATCH_SIZE, DIM, NUM_STEPS, config, inputs
from torch.testing import assert_close

from agents.cores.baseline_cores import ResidualCore
from agents.cores.core import CoreKind, core_config, make_core
from agents.cores.delta_net import (
    DeltaNet,
    delta_rule_by_chunks,
    delta_rule_by_steps,
    gated_delta_rule,
)
from agents.cores.memory_core import MemoryCore
from agents.cores.min_gru import MinGRU
from mtxl_rl.core.parts.long_memory import GATE_BIAS, GatedWrite
from mtxl_rl.core.parts.memory_network import MemoryNetwork


def long_memory(**options: Any) -> GatedWrite | MemoryNetwork:
    torch.manual_seed(0)
    core = make_core(core_config(dim=32, **options))
    assert isinstance(core, MemoryCore)
    assert core.transformer.long_memory is not None
    return core.transformer.long_memory


def test_gtrxl_has_gru_gates_and_no_long_memory() -> None:
    core = make_core(config("gtrxl"))
    names = [name for name, _ in core.named_parameters()]  # type: ignore[attr-defined]
    assert any(name.endswith("attn_gate.update_bias") for name in names)
    assert not any("long_memory" in name for name in names)


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
    write = long_memory(mem_write="gated")
    assert isinstance(write, GatedWrite)
    assert_close(write.gate.bias.detach(), torch.full_like(write.gate.bias, GATE_BIAS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lmem_len": 0, "mem_write": "seed"}, "mem_write=seed has no effect without a long"),
        ({"timesteps": True, "mem_len": 0}, "timesteps=True has no effect without a short memory"),
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
