"""The seed's memory network, property by property."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from mtxl_rl.core.parts.memory_network import KeySummary, MemoryNetwork

BATCH_SIZE, NUM_LAYERS, NUM_SLOTS, NUM_POSITIONS, DIM, HEADS = 2, 3, 5, 7, 12, 4
SHORT_LEN = 4


def make_network() -> MemoryNetwork:
    torch.manual_seed(0)
    return MemoryNetwork(DIM, HEADS, NUM_LAYERS, NUM_SLOTS, 2, mem_write_iters=2)


def write(
    network: MemoryNetwork, slots: torch.Tensor, memories: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return the new slots; the first memories are the short memory, the others the segment."""
    return network(slots, memories[:, :, SHORT_LEN:], valid, memories[:, :, :SHORT_LEN])[0]


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
    expected = write(network, slots, memories, valid)[:, order]
    assert_close(write(network, slots[:, order], memories, valid), expected)


def test_is_invariant_to_a_permutation_of_the_positions() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    order = torch.randperm(NUM_POSITIONS)
    expected = write(network, slots, memories, valid)
    assert_close(write(network, slots, memories[:, :, order], valid[:, order]), expected)


def test_adds_to_the_slots_what_tells_them_apart() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    with torch.no_grad():
        for parameter in network.gate.parameters():
            parameter.zero_()
        network.gate.hidden_proj.bias.fill_(20.0)  # retention 1
    moved = write(network, slots, memories, valid) - slots
    assert_close(moved, network.slot_embedding.expand_as(slots), atol=1e-6, rtol=0)


def test_what_is_not_valid_is_not_written() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    polluted = torch.where(valid[:, None, :, None], memories, 1e4)
    expected = write(network, slots, memories, valid)
    assert torch.equal(write(network, slots, polluted, valid), expected)


def test_layers_are_told_apart_by_a_vector() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    assert network.layer_embedding.shape == (NUM_LAYERS, 1, DIM)
    swapped = memories[:, [1, 0, 2]]
    assert not torch.allclose(
        write(network, slots, swapped, valid),
        write(network, slots, memories, valid),
    )


def test_gradient_reaches_the_slots_and_not_the_layer_inputs() -> None:
    network = make_network()
    slots, memories, valid = inputs()
    slots.requires_grad_()
    memories.requires_grad_()
    write(network, slots, memories, valid).sum().backward()
    assert slots.grad is not None
    assert (slots.grad != 0).any()
    assert memories.grad is None
