"""Gates are what they are named after."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mtxl_rl.core.parts.gating import GRUGate, NBRCGate, make_gate


def test_nbrc_follows_its_equations() -> None:
    torch.manual_seed(0)
    dim = 5
    gate = NBRCGate(dim)
    y, x = torch.randn(3, dim), torch.randn(3, dim)
    weights = [*gate.input_proj.weight.split(dim), *gate.hidden_proj.weight.split(dim)]
    biases = [*gate.input_proj.bias.split(dim), *gate.hidden_proj.bias.split(dim)]
    of_y = [y @ w.T + b for w, b in zip(weights[:3], biases[:3], strict=True)]
    of_x = [x @ w.T + b for w, b in zip(weights[3:], biases[3:], strict=True)]
    a = 1 + torch.tanh(of_y[0] + of_x[0])
    c = torch.sigmoid(of_y[1] + of_x[1])
    out, retention = gate.with_retention(y, x)
    assert_close(retention, c)
    assert_close(out, c * x + (1 - c) * torch.tanh(of_y[2] + a * x))
    assert_close(gate(y, x), out)


def test_gru_gate_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(100, 16), torch.randn(100, 16)
    near, far = GRUGate(16), GRUGate(16, bias=0.0)
    with torch.no_grad():
        assert (near(y, x) - x).abs().mean() < 0.2
        assert (near(y, x) - x).abs().mean() < 0.5 * (far(y, x) - x).abs().mean()


def test_gru_gate_is_a_gru_whose_hidden_state_is_x() -> None:
    """With the update gate turned around, it is torch's GRU cell."""
    torch.manual_seed(0)
    dim = 4
    gate = GRUGate(dim)
    cell = torch.nn.GRUCell(dim, dim, bias=True)
    input_r, input_z, input_g = gate.input_proj.weight.split(dim)
    hidden_r, hidden_z = gate.hidden_proj.weight.split(dim)
    with torch.no_grad():
        cell.weight_ih.copy_(torch.cat((input_r, -input_z, input_g)))
        cell.weight_hh.copy_(torch.cat((hidden_r, -hidden_z, gate.candidate_proj.weight)))
        cell.bias_ih.zero_()
        cell.bias_ih[dim : 2 * dim] = gate.update_bias
        # torch resets after the projection, GTrXL before it: equal where r is constant
        cell.bias_hh.zero_()
        gate.input_proj.weight[:dim].zero_()
        gate.hidden_proj.weight[:dim].zero_()
        cell.weight_ih[:dim].zero_()
        cell.weight_hh[:dim].zero_()
    y, x = torch.randn(3, dim), torch.randn(3, dim)
    assert_close(gate(y, x), cell(y, x))


def test_residual_adds() -> None:
    x, y = torch.randn(3, 2), torch.randn(3, 2)
    assert torch.equal(make_gate("residual", 2)(y, x), x + y)


@pytest.mark.parametrize("gate", ["nbrc", "gru"])
def test_mogrifier_changes_the_gate(gate: str) -> None:
    torch.manual_seed(0)
    module = make_gate(gate, 8, mogrify=True)  # type: ignore[arg-type]
    x, y = torch.randn(3, 8), torch.randn(3, 8)
    assert not torch.allclose(module(y, x), module.gate(y, x))  # type: ignore[operator]
    assert_close(module(y, x), module.gate(*module.mogrifier(y, x)))  # type: ignore[operator]
