"""The memory network, property by property."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from mtxl_rl import MemoryTransformerXL
from mtxl_rl.long_memory import KeySummary, LongMemory

BATCH_SIZE, NUM_LAYERS, NUM_SLOTS, NUM_POSITIONS, DIM, HEADS = 2, 3, 5, 7, 12, 4


def make_network(num_positions: int = 0, holds: bool = False) -> LongMemory:
    torch.manual_seed(0)
    return LongMemory(
        DIM,
        HEADS,
        NUM_LAYERS,
        NUM_SLOTS,
        2,
        mem_write_iters=2,
        num_positions=num_positions,
        holds=holds,
    )


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    slots = torch.randn(BATCH_SIZE, NUM_SLOTS, DIM)
    memories = torch.randn(BATCH_SIZE, NUM_LAYERS, NUM_POSITIONS, DIM)
    return slots, memories, torch.rand(BATCH_SIZE, NUM_POSITIONS) < 0.6


def test_linear_attention_equals_its_definition_on_the_valid_keys() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 7, 4), torch.randn(1, 2, 7, 4)
    key[..., 3, :] += 200.0  # exp would overflow
    mask = torch.tensor([[True, False, True, True, False, True, True]])
    valid = mask[0]
    weights = query.softmax(-1) @ key[:, :, valid].softmax(-2).transpose(-1, -2)
    expected = weights @ value[:, :, valid]
    assert_close(KeySummary.of(key, value, mask).attend(query), expected)
    first = KeySummary.of(key[:, :, :3], value[:, :, :3], mask[:, :3])
    last = KeySummary.of(key[:, :, 3:], value[:, :, 3:], mask[:, 3:])
    assert_close((first + last).attend(query), expected)


def test_is_equivariant_to_a_permutation_of_the_slots() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    with torch.no_grad():
        network.slot_embedding.copy_(network.slot_embedding[:1].expand(NUM_SLOTS, -1))
    order = torch.tensor([3, 0, 4, 1, 2])
    expected = network(slots, network.project(memories), valid)[0][:, order]
    assert_close(network(slots[:, order], network.project(memories), valid)[0], expected)


def test_is_invariant_to_a_permutation_of_the_positions() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    order = torch.randperm(NUM_POSITIONS)
    expected = network(slots, network.project(memories), valid)[0]
    assert_close(
        network(slots, network.project(memories[:, :, order]), valid[:, order])[0], expected
    )


def test_places_are_told_apart_by_a_vector_that_is_added_to_the_inputs() -> None:
    network = make_network(num_positions=NUM_POSITIONS)
    plain = make_network()
    plain.load_state_dict(network.state_dict(), strict=False)
    slots, memories, _ = inputs()
    valid = torch.tensor([[True] * NUM_POSITIONS, [False] * 3 + [True] * (NUM_POSITIONS - 3)])
    vectors = network.position_embedding
    assert vectors is not None
    # the second env has three places that are not valid: its fourth is the first that counts
    by_env = torch.stack((vectors, torch.cat((vectors[:3], vectors[: NUM_POSITIONS - 3]))))
    written = network(slots, network.project(memories), valid)[0]
    expected = plain(slots, plain.project(memories + by_env[:, None]), valid)[0]
    assert_close(written, expected)
    assert not torch.allclose(written, plain(slots, plain.project(memories), valid)[0])


def test_a_write_that_holds_leaves_the_slots_as_they_are_where_the_gate_keeps_them() -> None:
    slots, memories, valid = inputs()
    moved = []
    for holds in (True, False):
        network = make_network(holds=holds)
        with torch.no_grad():
            for parameter in network.gate.parameters():
                parameter.zero_()
            network.gate.hidden_proj.bias.fill_(20.0)  # retention 1
        moved.append(network(slots, network.project(memories), valid)[0] - slots)
    assert_close(moved[0], torch.zeros_like(slots), atol=1e-6, rtol=0)
    assert_close(moved[1], network.slot_embedding.expand_as(slots), atol=1e-6, rtol=0)


def test_a_write_that_holds_tells_slots_apart() -> None:
    network = make_network(holds=True)
    slots, memories, valid = inputs()
    written = network(slots[:, :1].expand_as(slots), network.project(memories), valid)[0]
    assert not torch.allclose(written[:, 0], written[:, 1])
    core = MemoryTransformerXL(DIM, 1, 2, 2, NUM_SLOTS, heads=HEADS, mem_write_holds=True)
    assert core.long_memory is not None
    initial = core.long_memory.slots(core.initial_state(BATCH_SIZE))
    expected = core.long_memory.initial_slot + core.long_memory.slot_embedding
    assert_close(initial, expected.expand(BATCH_SIZE, -1, -1))


def test_the_gradient_of_a_place_is_summed_over_envs_without_bfloat16() -> None:
    def gradient(dtype: torch.dtype) -> torch.Tensor:
        network = make_network(num_positions=NUM_POSITIONS)
        generator = torch.Generator().manual_seed(1)
        slots = torch.randn(1024, NUM_SLOTS, DIM, generator=generator)
        memories = torch.randn(1024, NUM_LAYERS, NUM_POSITIONS, DIM, generator=generator)
        valid = torch.ones(1024, NUM_POSITIONS, dtype=torch.bool)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            network(slots, network.project(memories), valid)[0].float().mean(dim=0).sum().backward()
        assert network.position_embedding is not None
        assert network.position_embedding.grad is not None
        return network.position_embedding.grad

    exact = gradient(torch.float32)
    assert (gradient(torch.bfloat16) - exact).norm() < 0.03 * exact.norm()


def test_what_is_not_valid_is_not_written() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    polluted = torch.where(valid[:, None, :, None], memories, 1e4)
    expected = network(slots, network.project(memories), valid)[0]
    assert torch.equal(network(slots, network.project(polluted), valid)[0], expected)


def test_layers_are_told_apart_by_a_vector() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    assert network.layer_embedding.shape == (NUM_LAYERS, 1, DIM)
    swapped = memories[:, [1, 0, 2]]
    assert not torch.allclose(
        network(slots, network.project(swapped), valid)[0],
        network(slots, network.project(memories), valid)[0],
    )


def test_gradient_reaches_the_slots_and_not_the_layer_inputs() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    slots.requires_grad_()
    memories.requires_grad_()
    network(slots, network.project(memories), valid)[0].sum().backward()
    assert slots.grad is not None
    assert (slots.grad != 0).any()
    assert memories.grad is None
