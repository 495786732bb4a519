"""The encoder takes every supported space, and reads all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.encoder import Encoder

SPACES: dict[str, tuple[spaces.Space, torch.Tensor]] = {
    "discrete": (spaces.Discrete(5), torch.randint(5, (2, 3))),
    "grid": (
        spaces.MultiDiscrete(np.broadcast_to((11, 6, 4), (7, 7, 3))),
        torch.randint(4, (2, 3, 7, 7, 3), dtype=torch.uint8),
    ),
    "words": (spaces.MultiDiscrete([13] * 5), torch.randint(1, 13, (2, 3, 5))),
    "vector": (spaces.Box(-np.inf, np.inf, (4,)), torch.randn(2, 3, 4)),
    "matrix": (spaces.Box(-1, 1, (4, 2)), torch.randn(2, 3, 4, 2)),
    "scalar": (spaces.Box(-1, 1, ()), torch.randn(2, 3)),
    "image": (spaces.Box(0, 255, (17, 19, 3), np.uint8), torch.randint(256, (2, 3, 17, 19, 3))),
    "channels first": (
        spaces.Box(0, 255, (3, 17, 19), np.uint8),
        torch.randint(256, (2, 3, 3, 17, 19)),
    ),
    "small image": (spaces.Box(0, 255, (5, 6, 1), np.uint8), torch.randint(256, (2, 3, 5, 6, 1))),
}


@pytest.mark.parametrize("name", SPACES)
def test_takes_sequences_and_steps_alike(name: str) -> None:
    torch.manual_seed(0)
    space, values = SPACES[name]
    encoder = Encoder(spaces.Dict({"part": space}), 8)
    prev_action, prev_reward = torch.randn(2, 3, 8), torch.randn(2, 3)
    sequence = encoder({"part": values}, prev_action, prev_reward)
    assert sequence.shape == (2, 3, 8)
    step = encoder({"part": values[:, 1]}, prev_action[:, 1], prev_reward[:, 1])
    torch.testing.assert_close(step, sequence[:, 1])


@pytest.mark.parametrize("name", SPACES)
def test_reads_every_entry(name: str) -> None:
    torch.manual_seed(0)
    space, values = SPACES[name]
    encoder = Encoder(spaces.Dict({"part": space}), 64)
    value = values[0, 0]
    before = encoder({"part": value[None]}, torch.zeros(1, 64), torch.zeros(1))
    for index in range(max(value.numel(), 1)):
        other = value.clone().reshape(-1)
        other[index] = other[index] - 1 if other[index] > 1 else other[index] + 1
        other = other.reshape(value.shape)
        after = encoder({"part": other[None]}, torch.zeros(1, 64), torch.zeros(1))
        assert not torch.equal(after, before), index


def test_reads_previous_action_and_reward() -> None:
    torch.manual_seed(0)
    encoder = Encoder(spaces.Dict({"part": spaces.Discrete(2)}), 8)
    observation = {"part": torch.zeros(1, dtype=torch.int64)}
    base = encoder(observation, torch.zeros(1, 8), torch.zeros(1))
    assert not torch.allclose(base, encoder(observation, torch.randn(1, 8), torch.zeros(1)))
    assert not torch.allclose(base, encoder(observation, torch.zeros(1, 8), torch.ones(1)))


def test_channels_have_embeddings_of_their_own() -> None:
    """Type 1 with colour 0 is not type 0 with colour 1."""
    torch.manual_seed(0)
    encoder = Encoder(spaces.Dict({"part": SPACES["grid"][0]}), 8)
    grids = torch.zeros(2, 7, 7, 3, dtype=torch.uint8)
    grids[0, 3, 3, 0] = 1
    grids[1, 3, 3, 1] = 1
    first, second = encoder({"part": grids}, torch.zeros(2, 8), torch.zeros(2))
    assert not torch.allclose(first, second)


def test_padding_of_a_text_means_nothing() -> None:
    torch.manual_seed(0)
    encoder = Encoder(spaces.Dict({"part": spaces.MultiDiscrete([13] * 5)}), 8)
    texts = torch.tensor([[3, 4, 0, 0, 0], [4, 3, 0, 0, 0]])
    first, second = encoder({"part": texts}, torch.zeros(2, 8), torch.zeros(2))
    assert not torch.allclose(first, second)  # the order of words matters
    with torch.no_grad():
        field = next(encoder.fields.children())
        field.get_parameter("embedding.weight")[0] += 1
    again = encoder({"part": texts}, torch.zeros(2, 8), torch.zeros(2))
    torch.testing.assert_close(again[0], first)


def test_rejects_a_space_it_cannot_take() -> None:
    space = spaces.Dict({"part": spaces.MultiBinary((2, 2))})
    with pytest.raises(ValueError, match="observation 'part' has space MultiBinary"):
        Encoder(space, 8)
