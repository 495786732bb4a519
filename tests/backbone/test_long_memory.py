"""The writes by gates, property by property."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mtxl_rl.core.parts.long_memory import (
    GatedWrite,
    PartedWrite,
    hard_sigmoid,
    steep_sigmoid,
)

BATCH_SIZE, NUM_LAYERS, NUM_SLOTS, SHORT_LEN, SEQ_LEN, DIM = 2, 3, 5, 4, 7, 12


PARTED = [False, True]


def make_write(seq_len: int = SEQ_LEN, cost: float = 0.0, is_parted: bool = False) -> GatedWrite:
    torch.manual_seed(0)
    sizes = (NUM_SLOTS, SHORT_LEN + seq_len)
    write = PartedWrite(DIM, *sizes) if is_parted else GatedWrite(DIM, NUM_LAYERS, *sizes, cost)
    with torch.no_grad():  # gates that are shut, open and between
        write.gate.weight.mul_(0.3 if is_parted else 2)
        write.gate.bias.fill_(0.5 if is_parted else -1.0)
    return write.double()


def opened(write: GatedWrite, z: Tensor) -> Tensor:
    if isinstance(write, PartedWrite):
        return (8 / (1 + (2 - 3.5 * z).exp()) - 3.5).clamp(0, 1)
    return (1.2 / (1 + (-z).exp()) - 0.1).clamp(0, 1)


def inputs(write: GatedWrite, seq_len: int = SEQ_LEN) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    slots = torch.randn(BATCH_SIZE, NUM_SLOTS, DIM, dtype=torch.float64)
    hidden = torch.randn(BATCH_SIZE, write.num_layers, seq_len, DIM, dtype=torch.float64)
    return slots, hidden, torch.rand(BATCH_SIZE, SHORT_LEN + seq_len) < 0.7


def step_by_step(write: GatedWrite, slots: Tensor, hidden: Tensor, valid: Tensor) -> Tensor:
    """Write the steps one after the other."""
    written = []
    for slot, layers, is_valid in zip(slots, hidden, valid, strict=True):
        place = SHORT_LEN - int((~is_valid[:SHORT_LEN]).sum())
        for h, counts in zip(layers.transpose(0, 1), is_valid[SHORT_LEN:], strict=True):
            if counts:
                normed = (h - h.mean(1, keepdim=True)) / (h.var(1, False, True) + 1e-5).sqrt()
                x = normed.flatten() + write.place[place]
                w = opened(write, write.gate.weight @ x + write.gate.bias)
                w = w.repeat_interleave(DIM // write.num_parts).view(NUM_SLOTS, DIM)
                slot = (1 - w) * slot + w * torch.tanh(write.value.weight @ x + write.value.bias)
                place += 1
        written.append(slot)
    return torch.stack(written)


def rewritten(write: GatedWrite, slots: Tensor, hidden: Tensor, valid: Tensor) -> Tensor:
    retention, written = write(hidden, valid, len(hidden))
    return retention * slots + written


@pytest.mark.parametrize("is_parted", PARTED)
@pytest.mark.parametrize("seq_len", [1, 2, 7, 16])
def test_equals_steps_that_write_one_after_the_other(seq_len: int, is_parted: bool) -> None:
    write = make_write(seq_len, is_parted=is_parted)
    slots, hidden, valid = inputs(write, seq_len)
    written = rewritten(write, slots, hidden, valid)
    assert_close(written, step_by_step(write, slots, hidden, valid), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("is_parted", PARTED)
def test_the_gradient_of_both_forms_is_one(is_parted: bool) -> None:
    write = make_write(is_parted=is_parted)
    slots, hidden, valid = inputs(write)
    gates, _ = write.gates_and_values(hidden, valid)
    is_shut, is_open = gates == 0, gates == 1
    assert is_shut.any()
    assert is_open.any()
    assert (~is_shut & ~is_open).any()
    weights = torch.randn_like(slots)
    slots.requires_grad_()
    parameters = [slots, write.place, write.value.weight]
    ours = torch.autograd.grad((rewritten(write, slots, hidden, valid) * weights).sum(), parameters)
    theirs = (step_by_step(write, slots, hidden, valid) * weights).sum()
    expected = torch.autograd.grad(theirs, parameters)
    assert_close(ours[0], expected[0])
    assert_close(ours[2], expected[2])
    # through the gates it is straight through: it differs from that of the clipped gate
    assert not torch.allclose(ours[1], expected[1])


def test_a_write_costs_what_the_number_of_open_gates_would_in_the_loss() -> None:
    write = make_write(cost=0.25)
    _, hidden, valid = inputs(write)
    parameters = [write.gate.weight, write.gate.bias, write.place]

    def cost(hidden: Tensor, valid: Tensor) -> Tensor:
        gates, _ = write.gates_and_values(hidden, valid)
        normed = torch.layer_norm(hidden, hidden.shape[-1:]).transpose(1, 2).flatten(2)
        place = (valid.long().cumsum(1) - 1).clamp_min(0)[:, SHORT_LEN:]
        is_valid = valid[:, SHORT_LEN:, None]
        soft = 1.2 * write.gate(normed * is_valid + write.place[place]).sigmoid() - 0.1
        assert_close(torch.where(is_valid, soft.clamp(0, 1), 0.0), gates)
        soft = torch.where(is_valid, soft, -1.0)
        number = torch.where(soft > 0, soft / (soft + 0.02), soft / 0.02)
        open_ = soft.detach().clamp(0, 1)  # beyond 1 it counts as 1 does
        beyond = soft * 0.02 / (open_ + 0.02) ** 2
        number = torch.where(soft > 1, beyond, number)
        is_near = soft.detach() > -0.06
        assert (is_near & (soft < 0)).any()
        assert (~is_near & is_valid).any()
        return 0.25 * (number * is_near).sum() / soft.numel()

    def charged(num_envs: int) -> tuple[Tensor, ...]:
        retention, written = write(hidden, valid, num_envs)
        return torch.autograd.grad(0 * (retention.sum() + written.sum()), parameters)

    assert_close(charged(BATCH_SIZE), torch.autograd.grad(cost(hidden, valid), parameters))
    # rows may be segments of fewer envs: then it is the sum over the segments
    once = torch.autograd.grad(cost(hidden, valid), parameters)
    assert_close(charged(1), tuple(BATCH_SIZE * gradient for gradient in once))


def test_what_the_task_does_not_need_is_shut_with_a_margin() -> None:
    write = make_write(cost=1e-4).float()
    slots, hidden, valid = (tensor.float() for tensor in inputs(write))
    with torch.no_grad():
        write.gate.weight.mul_(0.2)  # a gate that is wide open is moved too little for a test
    optimizer = torch.optim.Adam(write.parameters(), lr=0.02, eps=1e-12)
    for _ in range(400):
        (0 * rewritten(write, slots, hidden, valid.bool()).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    near = hidden + 0.01 * torch.randn_like(hidden)
    assert torch.equal(rewritten(write, slots, near, valid.bool()), slots)
    with torch.no_grad():
        write.gate.bias.add_(0.5)  # short of the margin
    assert torch.equal(rewritten(write, slots, hidden, valid.bool()), slots)


def test_a_gate_that_is_needed_is_pushed_less_than_one_that_leaks() -> None:
    write = make_write(cost=1.0)
    _, hidden, valid = inputs(write)
    gates, _ = write.gates_and_values(hidden, valid)
    pushes = []
    write.gate.register_full_backward_hook(lambda _, given, got: pushes.append(got[0]))
    retention, written = write(hidden, valid, BATCH_SIZE)
    (0 * (retention.sum() + written.sum())).backward()
    (push,) = pushes
    assert (push >= 0).all()
    leaking, needed = (gates > 0) & (gates < 0.1), gates > 0.5
    assert leaking.any()
    assert needed.any()
    assert push[leaking].min() > 5 * push[needed].max()
    assert not push[~valid[:, SHORT_LEN:]].any()


@pytest.mark.parametrize("is_parted", PARTED)
def test_a_shut_gate_leaves_the_slots_as_they_are_to_the_bit(is_parted: bool) -> None:
    write = make_write(is_parted=is_parted).float()
    slots, hidden, valid = (tensor.float() for tensor in inputs(write))
    with torch.no_grad():
        write.gate.bias.fill_(-100.0)
    slots.requires_grad_()
    written = slots
    for _ in range(1000):
        written = rewritten(write, written, hidden, valid.bool())
    assert torch.equal(written, slots)
    (gradient,) = torch.autograd.grad(written.sum(), slots)
    assert torch.equal(gradient, torch.ones_like(slots))


@pytest.mark.parametrize("is_parted", PARTED)
def test_an_open_gate_leaves_nothing_of_what_was_there(is_parted: bool) -> None:
    write = make_write(is_parted=is_parted)
    slots, hidden, valid = inputs(write)
    with torch.no_grad():
        write.gate.bias.fill_(100.0)
    written = rewritten(write, slots, hidden, torch.ones_like(valid))
    _, values = write.gates_and_values(hidden, torch.ones_like(valid))
    assert torch.equal(written, values[:, -1:].expand_as(written))


def test_a_gate_that_is_shut_can_be_learned() -> None:
    z = torch.tensor([-9.0, -3.0, 0.0, 3.0], requires_grad=True)
    weights = hard_sigmoid(z)
    assert weights[:2].tolist() == [0.0, 0.0]
    assert weights[3] == 1.0
    (gradient,) = torch.autograd.grad(weights.sum(), z)
    assert_close(gradient, 1.2 * z.sigmoid() * (1 - z.sigmoid()))


def test_a_steep_gate_opens_within_half_a_unit_without_a_jump() -> None:
    z = torch.linspace(-1, 1, 2001, dtype=torch.float64, requires_grad=True)
    weights = steep_sigmoid(z)
    assert (weights[z < -0.26] == 0).all()
    assert (weights[z > 0.26] == 1).all()
    assert (weights.diff() >= 0).all()
    assert weights.diff().max() < 0.0021  # in steps of .001
    (gradient,) = torch.autograd.grad(weights.sum(), z)
    assert_close(gradient, z.sigmoid() * (1 - z.sigmoid()))


@pytest.mark.parametrize(("dim", "num_parts"), [(64, 16), (12, 4), (6, 2), (7, 1)])
def test_a_slot_has_as_many_parts_as_divide_it(dim: int, num_parts: int) -> None:
    write = PartedWrite(dim, NUM_SLOTS, SEQ_LEN)
    assert write.num_parts == num_parts
    hidden, valid = torch.randn(2, 1, SEQ_LEN, dim), torch.ones(2, SEQ_LEN, dtype=torch.bool)
    retention, written = write(hidden, valid, 2)
    assert written.shape == (2, NUM_SLOTS, dim)
    parts = retention.expand(-1, -1, dim).unflatten(2, (num_parts, -1))
    assert torch.equal(parts, parts[..., :1].expand_as(parts))


@pytest.mark.parametrize("is_parted", PARTED)
def test_places_are_counted_from_the_oldest_valid_step(is_parted: bool) -> None:
    write = make_write(is_parted=is_parted)
    _, hidden, _ = inputs(write)
    same = hidden[:, :, :1].expand_as(hidden)
    valid = torch.ones(BATCH_SIZE, SHORT_LEN + SEQ_LEN, dtype=torch.bool)
    valid[1, : SHORT_LEN + 2] = False
    gates, _ = write.gates_and_values(same[:1].expand_as(same), valid)
    fresh = torch.zeros(1, SHORT_LEN + SEQ_LEN, dtype=torch.bool)
    fresh[:, SHORT_LEN:] = True
    from_start, _ = write.gates_and_values(same[:1], fresh)
    assert_close(gates[1, 2:], from_start[0, : SEQ_LEN - 2])
    assert not torch.allclose(gates[0], from_start[0])


@pytest.mark.parametrize("is_parted", PARTED)
def test_what_is_not_valid_is_not_written(is_parted: bool) -> None:
    write = make_write(is_parted=is_parted)
    slots, hidden, valid = inputs(write)
    expected = rewritten(write, slots, hidden, valid)
    for pollution in (1e4, torch.nan, torch.inf, 1e200):
        polluted = torch.where(valid[:, None, SHORT_LEN:, None], hidden, pollution)
        assert torch.equal(rewritten(write, slots, polluted, valid), expected), pollution


@pytest.mark.parametrize("is_parted", PARTED)
def test_gradient_reaches_the_slots_and_not_the_layer_inputs(is_parted: bool) -> None:
    write = make_write(is_parted=is_parted)
    slots, hidden, valid = inputs(write)
    slots.requires_grad_()
    hidden.requires_grad_()
    rewritten(write, slots, hidden, valid).sum().backward()
    assert slots.grad is not None
    assert (slots.grad != 0).any()
    assert hidden.grad is None


@pytest.mark.parametrize("is_parted", PARTED)
def test_slots_start_different(is_parted: bool) -> None:
    write = make_write(is_parted=is_parted)
    assert len(write.initial_slot.unique(dim=0)) == NUM_SLOTS


def test_the_gradient_of_a_place_is_summed_over_envs_without_bfloat16() -> None:
    def gradient(dtype: torch.dtype) -> Tensor:
        write = make_write().float()
        generator = torch.Generator().manual_seed(1)
        slots = torch.randn(1024, NUM_SLOTS, DIM, generator=generator)
        hidden = torch.randn(1024, NUM_LAYERS, SEQ_LEN, DIM, generator=generator)
        valid = torch.ones(1024, SHORT_LEN + SEQ_LEN, dtype=torch.bool)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            rewritten(write, slots, hidden, valid).float().mean(dim=0).sum().backward()
        assert write.place.grad is not None
        return write.place.grad

    exact = gradient(torch.float32)
    assert (gradient(torch.bfloat16) - exact).norm() < 0.03 * exact.norm()
