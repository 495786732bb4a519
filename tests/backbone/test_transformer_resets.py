"""Resets of the backbone shield: from what was before, from other envs, from what is not finite."""

from __future__ import annotations

import pytest
import torch
from memory_configurations import BATCH_SIZE, CONFIGURATIONS, make_core, random_inputs, visible
from step_by_step import NUM_STEPS, TOLERANCE, run_steps
from torch.testing import assert_close

pytestmark = pytest.mark.unchecked  # test_transformer checks types and shapes


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_reset_shields_by_value_at_every_position(name: str) -> None:
    """After a reset, outputs and memories are those of a fresh start."""
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.1)
    for position in range(NUM_STEPS):  # every place in a segment, and first, second, later ones
        reset_here = reset.clone()
        reset_here[0, position] = True
        other = x.clone()
        other[0, :position] = 100 * torch.randn(position, core.input_dim)
        y, state = core(x, core.initial_state(BATCH_SIZE), reset_here)
        other_y, other_state = core(other, core.initial_state(BATCH_SIZE), reset_here)
        assert torch.equal(other_y[0, position:], y[0, position:])
        for field, tensor in visible(state).items():
            assert torch.equal(visible(other_state)[field], tensor), field


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_reset_shields_by_gradient_at_every_position(name: str) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.0)
    x.requires_grad_()
    for position in range(1, NUM_STEPS):
        reset_here = reset.clone()
        reset_here[:, position] = True
        y, state = core(x, core.initial_state(BATCH_SIZE), reset_here)
        loss = y[:, position:].square().sum()
        if state.long_valid.all():
            loss = loss + state.long.square().sum()
        (grad,) = torch.autograd.grad(loss, x)
        assert torch.equal(grad[:, :position], torch.zeros_like(grad[:, :position]))
        assert (grad[:, position] != 0).any()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_envs_of_any_age_do_not_touch_each_other(name: str) -> None:
    """An env in a batch of mixed ages gives what it gives alone."""
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.15)
    y, state = core(x, core.initial_state(BATCH_SIZE), reset)
    for env in range(BATCH_SIZE):
        rows = [env]
        alone_y, alone = core(x[rows], core.initial_state(1), reset[rows])
        assert_close(alone_y, y[rows], **TOLERANCE)
        assert_close(visible(alone), visible(state[rows]), **TOLERANCE)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_episode_equals_itself_started_on_a_segment_boundary(name: str) -> None:
    """What a mid-segment reset starts equals, until the segment ends, a fresh start."""
    core = make_core(name)
    x, reset = random_inputs(core, core.seq_len, reset_rate=0.0)
    for position in range(core.seq_len):
        reset_here = reset.clone()
        reset_here[:, position] = True
        y, _ = core(x, core.initial_state(BATCH_SIZE), reset_here)
        fresh, _ = core(x[:, position:], core.initial_state(BATCH_SIZE), reset[:, position:])
        assert_close(y[:, position:], fresh, **TOLERANCE)


@pytest.mark.parametrize("damage", [torch.nan, torch.inf, 1e20])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_not_finite_stops_at_a_reset(name: str, damage: float) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, 2 * NUM_STEPS, reset_rate=0.0)
    first, restart = 4, 18  # the damaged steps of env 0, several segments long
    reset[0, restart] = True
    damaged = x.clone()
    damaged[0, first : restart - 1, ::2] = damage
    expected, expected_state = core(x, core.initial_state(BATCH_SIZE), reset)
    y, state = core(damaged, core.initial_state(BATCH_SIZE), reset)
    stepped, stepped_state = run_steps(core, damaged, reset)
    is_untouched = torch.ones_like(reset)
    is_untouched[0, first:restart] = False
    for outputs in (y, stepped):
        assert_close(outputs[is_untouched], expected[is_untouched], **TOLERANCE)
    for after in (state, stepped_state):
        assert_close(visible(after), visible(expected_state), **TOLERANCE)


@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
def test_a_step_that_is_not_finite_is_not_remembered(damage: float) -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 2 * NUM_STEPS, reset_rate=0.0)
    x[0, 4] = damage
    y, state = core(x, core.initial_state(BATCH_SIZE), reset)
    is_finite = y.isfinite().all(dim=2)
    assert not is_finite[0, 4]
    is_finite[0, 4] = True
    assert is_finite.all()
    assert state.long.isfinite().all()
