"""The contract of the backbone: two forms that are one function, and what it remembers."""

from __future__ import annotations

import itertools
import math
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
from step_by_step import NUM_STEPS, TOLERANCE, run_steps
from torch import Tensor
from torch.testing import assert_close

from mtxl_rl import Acting, MemoryState, MemoryTransformerXL
from mtxl_rl.core.parts.initialization import init_sinusoids
from mtxl_rl.core.parts.long_memory import GatedWrite
from mtxl_rl.core.transformer import TIMESTEP_STD


def run_pieces(
    core: MemoryTransformerXL, x: Tensor, reset: Tensor, sizes: list[int]
) -> tuple[Tensor, MemoryState]:
    state = core.initial_state(BATCH_SIZE)
    outputs = []
    pieces = zip(x.split(sizes, dim=1), reset.split(sizes, dim=1), strict=True)
    for x_piece, reset_piece in pieces:
        y, state = core(x_piece, state, reset_piece)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize("reset_rate", [0.0, 0.15, 0.6])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_step_equals_sequence(name: str, reset_rate: float) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate)
    expected_y, expected_state = core(x, core.initial_state(BATCH_SIZE), reset)
    y, state = run_steps(core, x, reset)
    assert_close(y, expected_y, **TOLERANCE)
    assert_close(visible(state), visible(expected_state), **TOLERANCE)


@pytest.mark.parametrize("sizes", [[3, 9, 1, 1, 3], [1, 4, 5, 7], [16, 1]])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_any_cutting_equals_any_other(name: str, sizes: list[int]) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.15)
    expected_y, expected_state = core(x, core.initial_state(BATCH_SIZE), reset)
    y, state = run_pieces(core, x, reset, sizes)
    assert_close(y, expected_y, **TOLERANCE)
    assert_close(visible(state), visible(expected_state), **TOLERANCE)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_gradients_do_not_depend_on_the_cutting(name: str) -> None:
    core = make_core(name).double()
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.1)
    x = x.double().requires_grad_()
    weight = torch.randn(BATCH_SIZE, NUM_STEPS, core.dim, dtype=torch.float64)

    def gradients(y: Tensor) -> list[Tensor]:
        inputs = [x, *core.parameters()]
        found = torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True)
        return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]

    expected = gradients(core(x, core.initial_state(BATCH_SIZE), reset)[0])
    assert_close(gradients(run_pieces(core, x, reset, [3, 9, 1, 4])[0]), expected)
    assert_close(gradients(run_pieces(core, x, reset, [1] * NUM_STEPS)[0]), expected)


@pytest.mark.parametrize("name", ["mem_len above seq_len", "mem_len below seq_len"])
def test_mixing_the_two_forms_equals_the_sequence(name: str) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.15)
    expected_y, expected_state = core(x, core.initial_state(BATCH_SIZE), reset)
    first, state = core(x[:, :8], core.initial_state(BATCH_SIZE), reset[:, :8])
    middle, state = run_steps(core, x[:, 8:12], reset[:, 8:12], state)
    last, state = core(x[:, 12:], state, reset[:, 12:])
    assert_close(torch.cat([first, middle, last], dim=1), expected_y, **TOLERANCE)
    assert_close(visible(state), visible(expected_state), **TOLERANCE)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_is_causal(name: str) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.05)
    y, _ = core(x, core.initial_state(BATCH_SIZE), reset)
    for position in range(1, NUM_STEPS):
        later, later_reset = x.clone(), reset.clone()
        later[:, position:] += 1.0
        later_reset[:, position:] ^= True
        other_y, _ = core(later, core.initial_state(BATCH_SIZE), later_reset)
        assert_close(other_y[:, :position], y[:, :position], **TOLERANCE)


def test_sees_its_whole_segment_and_both_memories() -> None:
    """The last step depends on the first through each memory alone."""
    for name, num_steps in (
        ("no memory but the segment", 5),
        ("no long memory", 8),
        ("no short memory", 17),
    ):
        core = make_core(name)
        x, reset = random_inputs(core, num_steps, reset_rate=0.0)
        y, _ = core(x, core.initial_state(BATCH_SIZE), reset)
        other = x.clone()
        other[:, 0] += 1.0
        other_y, _ = core(other, core.initial_state(BATCH_SIZE), reset)
        assert (other_y[:, -1] - y[:, -1]).abs().max() > 1e-5, name


def test_segment_only_forgets_what_is_before_the_segment() -> None:
    core = make_core("no memory but the segment")
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.0)
    y, _ = core(x, core.initial_state(BATCH_SIZE), reset)
    fresh, _ = core(x[:, 15:], core.initial_state(BATCH_SIZE), reset[:, 15:])
    assert_close(y[:, 15:], fresh, **TOLERANCE)


@pytest.mark.parametrize("memory_layers", [None, [2], [1, 3]])
@pytest.mark.parametrize("mem_len", [0, 2, 5, 7, 13])
def test_reach_is_how_far_back_an_input_matters(
    mem_len: int, memory_layers: list[int] | None
) -> None:
    options = {"mem_len": mem_len, "lmem_len": 0, "memory_layers": memory_layers}
    torch.manual_seed(0)
    core = MemoryTransformerXL(**(BASE | options)).double()
    num_steps = core.seq_len * (core.reach[1] // core.seq_len + 2)  # the last segment is seen
    x = torch.randn(1, num_steps, core.input_dim, dtype=torch.float64)
    # row t has another input at step t, the last row none
    changed = x.repeat(num_steps + 1, 1, 1)
    steps = torch.arange(num_steps)
    changed[steps, steps] += torch.randn(num_steps, core.input_dim, dtype=torch.float64)
    reset = torch.zeros(changed.shape[:2], dtype=torch.bool)
    y, _ = core(changed, core.initial_state(len(changed)), reset)
    matters = (y[:-1] - y[-1]).abs().amax(dim=2) > 1e-12  # (step of the input, of the output)
    last_segment = range(num_steps - core.seq_len, num_steps)
    furthest = [step - int(matters[:, step].nonzero().min()) for step in last_segment]
    first, last = core.reach
    assert furthest == list(range(first, last + 1))  # a step more at each step of the segment


@pytest.mark.parametrize("mem_len", [0, 3, 7, 17])
def test_memory_changes_when_fed_one_step_at_a_time(mem_len: int) -> None:
    options: dict[str, Any] = BASE | {"mem_len": mem_len}
    core = MemoryTransformerXL(**options)
    x, reset = random_inputs(core, 10, reset_rate=0.0)
    _, first = run_steps(core, x[:, :5], reset[:, :5])
    _, second = run_steps(core, x, reset)
    assert first.long_valid.all()
    assert not torch.equal(first.long, second.long)
    assert first.short_valid.sum(dim=1).tolist() == [min(5, mem_len)] * BATCH_SIZE
    assert second.short_valid.sum(dim=1).tolist() == [min(10, mem_len)] * BATCH_SIZE


def test_short_memory_holds_the_last_inputs_of_the_live_episode() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 15, reset_rate=0.0)
    reset[1, 11] = True
    _, state = core(x, core.initial_state(BATCH_SIZE), reset)
    assert state.short_valid[0].tolist() == [True] * 7
    assert state.short_valid[1].tolist() == [False] * 3 + [True] * 4
    assert_close(state.short[:, 0], core.input_proj(x)[:, -7:].detach())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_peek_is_a_step_that_is_not_taken(name: str) -> None:
    core = make_core(name)
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.15)
    acting, undisturbed = Acting(core, BATCH_SIZE), Acting(core, BATCH_SIZE)
    for t in range(NUM_STEPS):
        for other in range(3):
            acting.peek(x[:, other] + 1, torch.arange(BATCH_SIZE) == other)
        peeked = acting.peek(x[:, t], reset[:, t])
        y = acting.step(x[:, t], reset[:, t])
        assert torch.equal(y, peeked)
        assert torch.equal(y, undisturbed.step(x[:, t], reset[:, t]))
    assert_close(visible(acting.state), visible(undisturbed.state), atol=0, rtol=0)


def test_acting_asks_for_no_gradient() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 9, reset_rate=0.0)
    y, state = run_steps(core, x.requires_grad_(), reset)
    assert not y.requires_grad
    assert not state.long.requires_grad


def test_a_state_and_resets_may_be_left_out() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, 9, reset_rate=0.0)
    expected, _ = core(x, core.initial_state(BATCH_SIZE), reset)
    assert torch.equal(core(x)[0], expected)


def _long_gradients(bptt_segments: int | None) -> list[bool]:
    """Return, for each write, whether the last output's gradient reaches the slots it began with.

    Four segments; the probe is the long memory that the first segment is given.
    """
    core = make_core("no short memory")
    x, reset = random_inputs(core, 4 * core.seq_len + 1, reset_rate=0.0)
    _, state = core(x[:, : core.seq_len], core.initial_state(BATCH_SIZE), reset[:, : core.seq_len])
    reached = []
    for num_segments in range(1, 4):
        stop = (num_segments + 1) * core.seq_len + 1
        long = state.long.detach().requires_grad_()
        begun = MemoryState.from_dict(state.detach().to_dict() | {"long": long})
        y, _ = core(x[:, core.seq_len : stop], begun, reset[:, core.seq_len : stop], bptt_segments)
        # the last step reads slots written num_segments times; detach what it reads directly
        (grad,) = torch.autograd.grad(y[:, -1].sum(), long, allow_unused=True)
        reached.append(bool(grad is not None and grad.abs().max() > 0))
    return reached


def test_gradient_through_the_long_memory_is_cut_every_n_segments() -> None:
    assert _long_gradients(None) == [True, True, True]
    assert _long_gradients(1) == [False, False, False]
    assert _long_gradients(2) == [True, False, False]
    assert _long_gradients(3) == [True, True, False]


def test_cutting_the_gradient_keeps_the_values() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.1)
    y, state = core(x, core.initial_state(BATCH_SIZE), reset)
    cut_y, cut_state = core(x, core.initial_state(BATCH_SIZE), reset, bptt_segments=1)
    assert_close(cut_y, y, atol=0, rtol=0)
    assert_close(cut_state.long, state.long, atol=0, rtol=0)


def test_dropout_acts_in_training_only() -> None:
    for option in ("attn_dropout", "ff_dropout", "attn_layer_dropout"):
        options: dict[str, Any] = BASE | {option: 0.5}
        core = MemoryTransformerXL(**options)
        x, reset = random_inputs(core, 10, reset_rate=0.0)
        outputs = [core(x, core.initial_state(BATCH_SIZE), reset)[0] for _ in range(2)]
        assert not torch.allclose(*outputs), option
        core.eval()
        outputs = [core(x, core.initial_state(BATCH_SIZE), reset)[0] for _ in range(2)]
        assert torch.equal(*outputs), option


def test_runs_under_bfloat16_autocast() -> None:
    names = ("mem_len above seq_len", "the seed's write", "gru", "mogrify", "one_kv_head",
             "persistent slots")  # fmt: skip
    for name in names:
        core = make_core(name)
        x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.1)
        expected, _ = core(x, core.initial_state(BATCH_SIZE), reset)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, state = core(x, core.initial_state(BATCH_SIZE), reset)
            stepped, _ = run_steps(core, x, reset)
        assert state.long.dtype == torch.float32
        assert_close(y.float(), expected, atol=0.15, rtol=0.15)
        assert_close(stepped.float(), expected, atol=0.15, rtol=0.15)
        y.float().sum().backward()


def test_write_statistics_measure_the_writes() -> None:
    core = make_core("mem_len above seq_len")
    x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.1)
    statistics = core.write_statistics(x, core.initial_state(BATCH_SIZE), reset)
    assert statistics["write_size"] > 0
    assert 0 < statistics["gate_openness"] < 1
    assert isinstance(core.long_memory, GatedWrite)
    with torch.no_grad():
        core.long_memory.gate.bias.fill_(-100.0)
    closed = core.write_statistics(x, core.initial_state(BATCH_SIZE), reset)
    assert closed == {"write_size": 0.0, "gate_openness": 0.0}
    assert core.write_statistics(x[:, :4], core.initial_state(BATCH_SIZE), reset[:, :4]) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "heads=5 must divide dim=12; set heads to 4 or 6, or dim to 15"),
        ({"dim": 0}, "dim=0 must be 1 or more"),
        ({"seq_len": 0}, "seq_len=0 must be 1 or more"),
        ({"mem_len": -1}, "mem_len=-1 must be 0 or more"),
        ({"dim": 2**31 - 1, "heads": 2**31 - 2}, "set heads to 1 or 2147483647"),
        ({"dim": 10**20}, "dim=1.* must be at most 2,147,483,647"),
        ({"mem_len": 10**20}, "mem_len=1.* must be at most 2,147,483,647"),
        ({"memory_layers": [4]}, r"memory_layers=\(4,\) must name layers from 1 to depth=3"),
        ({"memory_layers": []}, "at least one"),
        ({"gate": "residual", "mogrify": True}, "set gate to nbrc or gru"),
        ({"dim": 16.0}, "dim=16.0 must be a whole number"),
        ({"depth": True}, "depth=True must be a whole number"),
        ({"memory_layers": 1}, "memory_layers=1 must be a list of layers"),
        ({"memory_layers": [1.5]}, r"memory_layers=\[1.5\] must be a list of layers"),
        ({"memory_layers": iter([1])}, "memory_layers=.* must be a list of layers"),
        ({"mem_write": "seed", "mem_write_gain": math.nan}, "mem_write_gain=nan must be above 0"),
        ({"mem_write": "seed", "mem_write_gain": math.inf}, "mem_write_gain=inf .* at most 1000"),
        ({"mem_write": "seed", "mem_write_gain": 1e300}, "must be above 0 and at most 1000"),
        ({"timesteps": True, "mem_len": 0}, "timesteps=True has no effect without a short memory"),
    ],
)
def test_rejects_what_cannot_be_built(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which refuses types first
    with pytest.raises(ValueError, match=message):
        MemoryTransformerXL(**(BASE | options))


def test_timesteps_start_so_that_a_layer_can_count_shift_and_mirror_them() -> None:
    """Of 129 random vectors of width 64 no layer could: their numbers are half as many."""
    core = MemoryTransformerXL(
        64, depth=1, seq_len=4, mem_len=128, lmem_len=0, heads=2, timesteps=True
    )
    assert core.timesteps is not None
    vectors = core.timesteps.detach().double()
    assert_close(vectors.std(), torch.tensor(TIMESTEP_STD, dtype=torch.float64), atol=0.05, rtol=0)
    ages = torch.arange(129, dtype=torch.float64)[:, None] / 129
    for start, wanted in (
        (vectors, ages),
        (vectors[:-7], vectors[7:]),
        (vectors, vectors.flip(0)),
    ):
        weight = torch.linalg.lstsq(start, wanted, driver="gelsd").solution
        assert_close(start @ weight, wanted, atol=0.02, rtol=0)
    size = TIMESTEP_STD * 2**0.5
    for wave, column in ((4, 0), (4 * 129, 31)):  # the shortest and the longest, in steps
        expected = size * (2 * math.pi * 129 * ages[:, 0] / wave).sin()
        assert_close(vectors[:, column], expected, atol=1e-5, rtol=0)


def test_timesteps_are_as_exact_as_the_default_dtype() -> None:
    """Their angles are not: of thousands of steps bfloat16 tells none from the next."""
    expected = init_sinusoids(5000, 6, 0.4)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            vectors = init_sinusoids(5000, 6, 0.4)
        finally:
            torch.set_default_dtype(torch.float32)
        assert vectors.dtype == dtype
        assert_close(vectors.float(), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("num_before", [0, 4, 9])
def test_timesteps_tell_how_old_an_episode_is(num_before: int) -> None:
    """As far as the short memory reaches; without them a mean of what is alike is always the same.

    Wherever in a segment the episode starts.
    """
    outputs = {}
    for timesteps in (False, True):
        core = MemoryTransformerXL(
            12, depth=1, seq_len=5, mem_len=7, lmem_len=0, heads=2, timesteps=timesteps
        )
        x = torch.randn(12).expand(1, num_before + 40, 12)
        reset = torch.arange(num_before + 40)[None] == num_before
        outputs[timesteps] = core(x, None, reset)[0][0, num_before:]
        assert_close(outputs[timesteps][:8], core(x[:, :8])[0][0], **TOLERANCE)
    plain, told = outputs[False], outputs[True]
    assert_close(plain, plain[:1].expand_as(plain), **TOLERANCE)
    changes = (told[1:] - told[:-1]).abs().amax(dim=1)
    assert (changes[:7] > 1e-3).all()
    last_of_others = 7 - 1 + 7 + 5 - 1  # the youngest step that is told apart, as far as it is seen
    assert (changes[last_of_others:] < 1e-6).all()


def test_every_option_changes_the_function() -> None:
    """No option is silently ignored: each pair of configurations computes something different."""
    outputs = {}
    for name in CONFIGURATIONS:
        core = make_core(name)
        x, reset = random_inputs(core, NUM_STEPS, reset_rate=0.05)
        outputs[name] = core(x, core.initial_state(BATCH_SIZE), reset)[0]
    for first, second in itertools.combinations(outputs, 2):
        assert not torch.allclose(outputs[first], outputs[second]), (first, second)
