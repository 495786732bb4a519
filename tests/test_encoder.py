"""The encoder takes every supported space, and reads all of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.encoder import Encoder, GridEncoder

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


def test_what_never_changes_is_not_seen() -> None:
    """Indicators are standardised by their running mean: a constant grid becomes 0."""
    torch.manual_seed(0)
    grid_encoder = Encoder(spaces.Dict({"part": SPACES["grid"][0]}), 8).fields[0]
    assert isinstance(grid_encoder, GridEncoder)
    grid = torch.randint(4, (7, 7, 3), dtype=torch.uint8)
    before = grid_encoder(grid[None])
    for _ in range(3):
        grid_encoder.observe_(grid.expand(5, 1000, -1, -1, -1))
    torch.testing.assert_close(grid_encoder(grid[None]), torch.zeros(1, 8), atol=0.1, rtol=0)
    assert (before.abs() > 0.1).any()


def test_statistics_are_of_all_that_was_observed() -> None:
    torch.manual_seed(0)
    space = SPACES["grid"][0]
    encoder = GridEncoder(spaces.MultiDiscrete(space.nvec), 8)  # type: ignore[attr-defined]
    grids = torch.randint(3, (6000, 7, 7, 3))
    for part in grids.split([1000, 2000, 3000]):
        encoder.observe_(part)
    types = torch.nn.functional.one_hot(grids[..., 0], 11).float().mean(0).flatten(0, 1)
    mean = encoder.mean.view(49, -1)[:, :11]
    torch.testing.assert_close(mean, types, atol=1e-3, rtol=0)
    # standardised indicators through orthonormal rows: unit variance at most, mean 0
    features = encoder(grids)
    torch.testing.assert_close(features.mean(0), torch.zeros(8), atol=2e-2, rtol=0)
    assert 0.2 < features.std() < 1.2


def test_a_rare_symbol_changes_more_than_a_common_one() -> None:
    torch.manual_seed(0)
    encoder = GridEncoder(spaces.MultiDiscrete(np.full((7, 7, 1), 3)), 64)
    grids = torch.randint(2, (4000, 7, 7, 1))
    grids[:, 3, 3] = (torch.arange(4000) % 50 == 0)[:, None].long()  # 2 in 100
    encoder.observe_(grids)
    quiet = torch.zeros(1, 7, 7, 1, dtype=torch.int64)
    common, rare = quiet.clone(), quiet.clone()
    common[0, 0, 0] = rare[0, 3, 3] = 1
    change = [(encoder(grid) - encoder(quiet)).norm().item() for grid in (common, rare)]
    # deviations .5 and .14
    assert 2.5 < change[1] / change[0] < 4.5


def test_observing_leaves_other_fields_alone() -> None:
    torch.manual_seed(0)
    names = ("discrete", "words", "vector", "image")
    encoder = Encoder(spaces.Dict({name: SPACES[name][0] for name in names}), 8)
    observation = {name: SPACES[name][1] for name in encoder.names}
    before = encoder(observation, torch.zeros(2, 3, 8), torch.zeros(2, 3))
    encoder.observe_(observation)
    assert torch.equal(encoder(observation, torch.zeros(2, 3, 8), torch.zeros(2, 3)), before)


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
