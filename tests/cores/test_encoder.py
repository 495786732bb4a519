"""The encoder takes every supported space, and reads all of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents.encoders import parts
from agents.encoders.encoder import Encoder
from agents.encoders.parts import GridEncoder, PixelEncoder, RepeatedEncoder, part_encoder

torch.manual_seed(0)  # the same values in every process
SPACES: dict[str, tuple[spaces.Space, torch.Tensor]] = {
    "discrete": (spaces.Discrete(5), torch.randint(5, (2, 3))),
    "grid": (
        spaces.MultiDiscrete(np.broadcast_to((11, 6, 4), (7, 7, 3))),
        torch.randint(4, (2, 3, 7, 7, 3), dtype=torch.uint8),
    ),
    "categories": (
        spaces.MultiDiscrete([5, 9, 4, 7]),
        torch.stack([torch.randint(size, (2, 3)) for size in (5, 9, 4, 7)], dim=-1),
    ),
    "words": (spaces.MultiDiscrete([1701] * 5), torch.randint(1, 1701, (2, 3, 5))),
    "vector": (spaces.Box(-np.inf, np.inf, (4,)), torch.randn(2, 3, 4)),
    "matrix": (spaces.Box(-1, 1, (4, 2)), torch.randn(2, 3, 4, 2)),
    "scalar": (spaces.Box(-1, 1, ()), torch.randn(2, 3)),
    "image": (spaces.Box(0, 255, (17, 19, 3), np.uint8), torch.randint(256, (2, 3, 17, 19, 3))),
    "channels first": (
        spaces.Box(0, 255, (3, 17, 19), np.uint8),
        torch.randint(256, (2, 3, 3, 17, 19)),
    ),
    "small image": (spaces.Box(0, 255, (5, 6, 1), np.uint8), torch.randint(256, (2, 3, 5, 6, 1))),
    "Nature's": (spaces.Box(0, 255, (37, 36, 1), np.uint8), torch.randint(256, (2, 3, 37, 36, 1))),
    "grey": (spaces.Box(0, 255, (29, 31), np.uint8), torch.randint(256, (2, 3, 29, 31))),
    "stack": (spaces.Box(0, 255, (2, 7, 11, 3), np.uint8), torch.randint(256, (2, 3, 2, 7, 11, 3))),
    "float image": (spaces.Box(0.0, 1.0, (13, 11, 3)), torch.rand(2, 3, 13, 11, 3)),
    "unbounded image": (spaces.Box(-np.inf, np.inf, (13, 11, 3)), torch.randn(2, 3, 13, 11, 3)),
    "planes": (spaces.Box(0, 255, (3, 5, 7), np.uint8), torch.randint(256, (2, 3, 3, 5, 7))),
    "no image": (spaces.Box(0, 255, (5, 5, 7), np.uint8), torch.randint(256, (2, 3, 5, 5, 7))),
    "map": (
        spaces.MultiDiscrete(np.full((13, 17, 1), 5977)),
        torch.randint(5976, (2, 3, 13, 17, 1), dtype=torch.int32),
    ),
    "bytes": (
        spaces.Box(0, 255, (11,), np.uint8),
        torch.randint(1, 256, (2, 3, 11), dtype=torch.uint8),
    ),
}
SPACES = {
    name: (space, value.to(torch.uint8) if space.dtype == np.uint8 else value)
    for name, (space, value) in SPACES.items()
}


def encode(
    encoder: Encoder,
    value: torch.Tensor,
    prev_action: torch.Tensor | None = None,
    prev_reward: torch.Tensor | None = None,
    num_axes: int = 1,
) -> torch.Tensor:
    """Encode a field named "part" as acting does; `num_axes` of its axes are those of a batch."""
    shape = value.shape[:num_axes]
    dim = encoder.reward.out_features
    prev_action = torch.zeros(*shape, dim) if prev_action is None else prev_action
    prev_reward = torch.zeros(shape) if prev_reward is None else prev_reward
    return encoder(encoder.see({"part": value}), prev_action, prev_reward)


@pytest.mark.parametrize("name", SPACES)
def test_takes_sequences_and_steps_alike(name: str) -> None:
    torch.manual_seed(0)
    space, values = SPACES[name]
    encoder = Encoder(spaces.Dict({"part": space}), 8)
    prev_action, prev_reward = torch.randn(2, 3, 8), torch.randn(2, 3)
    sequence = encode(encoder, values, prev_action, prev_reward, num_axes=2)
    assert sequence.shape == (2, 3, 8)
    step = encode(encoder, values[:, 1], prev_action[:, 1], prev_reward[:, 1])
    torch.testing.assert_close(step, sequence[:, 1])


@pytest.mark.parametrize("name", SPACES)
def test_reads_every_entry(name: str) -> None:
    torch.manual_seed(0)
    space, values = SPACES[name]
    encoder = Encoder(spaces.Dict({"part": space}), 64)
    value = values[0, 0]
    others = value.reshape(1, -1).repeat(1 + value.numel(), 1)
    entries = others[1:].diagonal()
    entries.copy_(torch.where(entries > 1, entries - 1, entries + 1))
    features = encode(encoder, others.reshape(-1, *value.shape))
    assert ((features[1:] - features[0]).abs().amax(dim=-1) > 1e-6).all()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(0, 255, (84, 84, 3), np.uint8), "image uint8 84x84x3 channels last -> CNN"),
        (spaces.Box(0, 255, (12, 84, 84), np.uint8), "image uint8 12x84x84 channels first -> CNN"),
        (spaces.Box(0, 255, (84, 84, 12), np.uint8), "image uint8 84x84x12 channels last -> CNN"),
        (spaces.Box(0, 255, (3, 3, 3), np.uint8), "image uint8 3x3x3 channels last -> CNN"),
        (
            spaces.Box(0, 255, (210, 160), np.uint8),
            "image uint8 210x160 grey, made 84x64 -> CNN",
        ),
        (
            spaces.Box(0, 255, (4, 84, 84, 3), np.uint8),
            "image uint8 4x84x84x3 channels last, a stack of 4 -> CNN",
        ),
        (
            spaces.Box(0, 255, (4, 1, 96, 128), np.uint8),
            "image uint8 4x1x96x128 channels first, a stack of 4, made 63x84 -> CNN",
        ),
        (spaces.Box(0, 1, (64, 64, 3)), "image float32 64x64x3 channels last -> CNN"),
        (spaces.Box(0, 1, (7, 7, 3)), "vector float32 7x7x3 -> symlog -> layer"),
        (spaces.Box(0, 255, (7, 7, 20), np.uint8), "vector uint8 7x7x20 -> symlog -> layer"),
        (spaces.Box(0, 1, (27, 300)), "vector float32 27x300 -> symlog -> layer"),
        (spaces.Box(-1, 1, ()), "vector float32 1 -> symlog -> layer"),
        (spaces.Box(0, 255, (20,), np.uint8), "text of up to 20 bytes -> embeddings -> CNN"),
        (spaces.Discrete(4), "one of 4 -> embedding"),
        (
            spaces.MultiDiscrete(np.broadcast_to((11, 6, 4), (7, 9, 3))),
            "grid 7x9 of categories (11, 6, 4) -> an embedding for each place, and one for "
            "anywhere",
        ),
        (
            spaces.MultiDiscrete(np.full((21, 79, 1), 5977)),
            "grid 21x79 of categories (5977) -> embeddings -> CNN",
        ),
        (
            spaces.MultiDiscrete([3, 2, 1000]),
            "vector of categories (3, 2, 1000) -> an embedding for each place",
        ),
        (
            spaces.MultiDiscrete([3] * 52),
            "vector of categories (3, 3, 3, 3, 3, 3, ...) -> an embedding for each place",
        ),
        (
            spaces.MultiDiscrete([8191, 1]),
            "vector of categories (8191, 1) -> an embedding for each place",
        ),
        (spaces.MultiDiscrete([8192, 1]), "2 symbols of 8192 (0 is none) -> embeddings"),
        (spaces.MultiDiscrete([707] * 32), "32 symbols of 707 (0 is none) -> embeddings"),
    ],
)
def test_says_how_it_reads(space: spaces.Space, words: str) -> None:
    assert Encoder(spaces.Dict({"part": space}), 8).reads == {"part": words}


@pytest.mark.parametrize("name", ["image", "channels first", "grey", "stack", "float image"])
def test_a_layout_is_no_more_than_an_order(name: str) -> None:
    """Channels last, frame by frame: any other layout of the same picture is the same to it."""
    space, values = SPACES[name]
    encoder = Encoder(spaces.Dict({"part": space}), 8).fields[0]
    assert isinstance(encoder, PixelEncoder)
    seen = encoder.see(values)
    for index in np.ndindex(*values.shape):
        batch, place = index[:2], index[2:]
        if name == "image" or name == "float image":
            expected = place
        elif name == "channels first":
            expected = (place[1], place[2], place[0])
        elif name == "grey":
            expected = (*place, 0)
        else:
            frame, row, column, channel = place
            expected = (row, column, frame * 3 + channel)
        assert seen[(*batch, *expected)] == values[index]


def test_makes_large_pictures_smaller() -> None:
    """Each of the picture's parts is the mean of what it covers, and bytes stay bytes."""
    space = spaces.Box(0, 255, (20, 30, 3), np.uint8)
    encoder = Encoder(spaces.Dict({"part": space}), 8, image_size=10).fields[0]
    assert isinstance(encoder, PixelEncoder)
    picture = torch.randint(256, (2, 20, 30, 3), dtype=torch.uint8)
    small = encoder.see(picture)
    assert small.shape == (2, 7, 10, 3)
    assert small.dtype == torch.uint8
    rows = slice(2, 6)  # the second of seven, over 20 rows: 2.86 to 5.71
    expected = picture[:, rows, 27:30].float().mean(dim=(1, 2)).round()
    torch.testing.assert_close(small[:, 1, 9].float(), expected, atol=1, rtol=0)


def test_scales_pictures_by_their_bounds() -> None:
    torch.manual_seed(0)
    bytes_, unit = (
        Encoder(spaces.Dict({"part": spaces.Box(0, high, (11, 13, 3), kind)}), 8)
        for high, kind in ((255, np.uint8), (1.0, np.float32))
    )
    unit.load_state_dict(bytes_.state_dict())
    picture = torch.randint(256, (5, 11, 13, 3), dtype=torch.uint8)
    torch.testing.assert_close(encode(unit, picture / 255), encode(bytes_, picture))


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


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.int16, np.uint8])
def test_a_vector_is_read_as_one_indicator_for_each_value_at_each_place(kind: Any) -> None:
    torch.manual_seed(0)
    sizes = [5, 9, 4, 7]
    encoder = GridEncoder(spaces.MultiDiscrete(sizes, dtype=kind), 8)
    torch.testing.assert_close(
        encoder.mean, torch.cat([torch.full((size,), 1 / size) for size in sizes])
    )
    values = torch.stack([(torch.rand(3000) ** 2 * size).long() for size in sizes], dim=1)
    each = [torch.nn.functional.one_hot(values[:, i], size) for i, size in enumerate(sizes)]
    indicators = torch.cat(each, dim=1).double()
    observed = values.to(torch.from_numpy(np.zeros(0, kind)).dtype)
    encoder.observe_(observed)
    mean = indicators.mean(0)
    torch.testing.assert_close(encoder.mean.double(), mean, atol=1e-3, rtol=0)
    deviation = (mean * (1 - mean)).sqrt().clamp_min(0.1)
    expected = (indicators - mean) / deviation @ encoder.weight.double().T
    torch.testing.assert_close(encoder(observed).double(), expected, atol=2e-2, rtol=0)


@pytest.mark.parametrize("length", [3, 60])
def test_categories_may_be_of_any_whole_type(length: int) -> None:
    """Below and above the number of symbols from which on a vector is a sequence."""
    torch.manual_seed(0)
    encoder, _ = part_encoder("part", spaces.MultiDiscrete([200] * length, dtype=np.uint8), 8, 84)
    values = torch.randint(200, (300, length))
    expected = encoder(values)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        torch.testing.assert_close(encoder(values.to(dtype)), expected)


def test_is_of_the_default_dtype() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        parts = {name: SPACES[name][0] for name in ("grid", "categories", "words")}
        encoder = Encoder(spaces.Dict(parts), 8)
        observation = {name: SPACES[name][1] for name in parts}
        features = encoder(observation, torch.zeros(2, 3, 8), torch.zeros(2, 3))
        assert features.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


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
    quiet[0, 6, 6] = 1  # so that both symbols are there before and after
    common, rare = quiet.clone(), quiet.clone()
    common[0, 0, 0] = rare[0, 3, 3] = 1
    change = [(encoder(grid) - encoder(quiet)).norm().item() for grid in (common, rare)]
    # deviations .5 and .14
    assert 2.5 < change[1] / change[0] < 4.5


def test_an_object_is_read_alike_wherever_it_is() -> None:
    """From the start most of what it changes is its presence, which is the same in every place."""
    torch.manual_seed(0)
    encoder = GridEncoder(spaces.MultiDiscrete(np.full((7, 7, 2), 5)), 64)
    grids = torch.randint(3, (4000, 7, 7, 2))
    is_there = torch.rand(4000) < 0.2
    places = torch.randint(49, (4000,))
    grids.view(4000, 49, 2)[is_there, places[is_there], 0] = 4
    encoder.observe_(grids[:1000])
    encoder.observe_(grids[1000:])
    present = [is_there.float().mean() if symbol == 4 else float(symbol < 3) for symbol in range(5)]
    torch.testing.assert_close(encoder.presence_mean[:5], torch.tensor(present), atol=1e-3, rtol=0)
    empty = torch.randint(3, (7, 7, 2)).expand(49, 7, 7, 2)
    cells = torch.arange(49)
    objects, others = empty.clone(), empty.clone()
    objects.view(49, 49, 2)[cells, cells, 0] = 4
    others.view(49, 49, 2)[cells, cells, 1] = 4  # of the other channel: another symbol
    change, other = encoder(objects) - encoder(empty), encoder(others) - encoder(empty)
    likeness = torch.nn.functional.cosine_similarity
    assert likeness(change[:1], change[1:]).min() > 0.9
    assert likeness(change, other).abs().max() < 0.4
    assert not torch.allclose(change[:1], change[1:], atol=1e-2)  # and where it is counts, too


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 4, 1), (3, 3, 2)])
def test_presence_is_the_share_of_grids_that_have_a_symbol(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are counted at once, and of one grid alone."""
    torch.manual_seed(0)
    monkeypatch.setattr(parts, "COUNTED_AT_ONCE", 100)
    encoder = GridEncoder(spaces.MultiDiscrete(np.full(shape, 7)), 8)
    grids = torch.randint(6, (500, *shape)) * torch.randint(2, (500, *shape))
    for part in (*grids[:3], grids[3:90], grids[90:].unflatten(0, (41, 10))):
        encoder.observe_(part)
    encoder(grids[0])
    if math.prod(shape[:2]) == 1:
        assert not hasattr(encoder, "presence_mean")
        return
    kinds = torch.nn.functional.one_hot(grids, 7).flatten(1, 2).amax(1).double()
    expected = kinds.mean(0).flatten()
    found = encoder.presence_mean.double()
    torch.testing.assert_close(found, (500 * expected + 0.5) / 501, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SPACES)
def test_can_be_made_where_there_are_no_numbers(name: str) -> None:
    """As who looks for a width does, to count parameters."""
    with torch.device("meta"):
        encoder, _ = part_encoder(name, SPACES[name][0], 8, 84)
    made, _ = part_encoder(name, SPACES[name][0], 8, 84)
    assert {k: t.shape for k, t in encoder.state_dict().items()} == {
        k: t.shape for k, t in made.state_dict().items()
    }


def test_observing_leaves_other_fields_alone() -> None:
    torch.manual_seed(0)
    names = ("discrete", "words", "vector", "image")
    encoder = Encoder(spaces.Dict({name: SPACES[name][0] for name in names}), 8)
    observation = encoder.see({name: SPACES[name][1] for name in names})
    before = encoder(observation, torch.zeros(2, 3, 8), torch.zeros(2, 3))
    encoder.observe_(observation)
    assert torch.equal(encoder(observation, torch.zeros(2, 3, 8), torch.zeros(2, 3)), before)


REPEATED = ("grid", "categories", "words", "map", "bytes")


class Sizes:
    """How many observations an encoder was given at each call, while it encodes as before."""

    def __init__(self, encoder: RepeatedEncoder, num_axes: int):
        self.seen: list[int] = []
        self._encode, self._num_axes = encoder.encode, num_axes
        encoder.encode = self  # type: ignore[method-assign]

    def __call__(self, observation: torch.Tensor) -> torch.Tensor:
        self.seen.append(math.prod(observation.shape[: -self._num_axes]))
        return self._encode(observation)


@pytest.mark.parametrize("name", REPEATED)
def test_equal_observations_are_encoded_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    space, values = SPACES[name]
    encoder, _ = part_encoder(name, space, 8, 84)
    assert isinstance(encoder, RepeatedEncoder)
    encoder.double()
    monkeypatch.setattr(type(encoder), "min_repeated", 2)
    values = values.flatten(0, 1)[torch.randint(6, (5, 4))]
    results = []
    for form in (encoder.encode, encoder):
        features = form(values)
        encoder.zero_grad()
        (features * torch.arange(8)).square().sum().backward()
        results.append([features, *(p.grad for p in encoder.parameters())])
    torch.testing.assert_close(*results)
    sizes = Sizes(encoder, encoder.num_axes)
    encoder(values)
    assert sizes.seen == [len(values.flatten(0, 1).unique(dim=0))]
    encoder(values[0, :1].expand(2, *values.shape[2:]))
    assert sizes.seen[1:] == [1]
    encoder(values.flatten(0, 1).unique(dim=0))  # all of them different: as they are
    assert sizes.seen[2:] == [sizes.seen[0]]
    monkeypatch.setattr(parts, "GOLDEN_RATIO", 0.0)  # sums that tell nothing apart
    torch.testing.assert_close(encoder(values), results[0][0])
    assert sizes.seen[3:] == [20]


@pytest.mark.parametrize("name", REPEATED)
def test_gradients_of_many_equal_observations_add_up_in_bfloat16(name: str) -> None:
    torch.manual_seed(0)
    space, values = SPACES[name]
    encoder, _ = part_encoder(name, space, 8, 84)
    values = values.flatten(0, 1)[torch.randint(6, (3000,))]
    weights = torch.randn(3000, 8) + torch.arange(8)
    grads = []
    for is_low in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_low, cache_enabled=False):
            features = encoder(values)
        (features * weights).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))  # type: ignore[union-attr]
    # .06 is rounding where values are unlucky; sums in bfloat16 are off by .25 to .45
    assert (grads[1] - grads[0]).norm() < 0.1 * grads[0].norm()


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of vmap itself
@pytest.mark.parametrize("name", ["grid", "categories", "words"])
def test_repeated_observations_are_counted_only_where_shapes_may_depend_on_them(name: str) -> None:
    torch.manual_seed(0)
    space, values = SPACES[name]
    encoder, _ = part_encoder(name, space, 8, 84)
    values = values.flatten(0, 1)[torch.randint(6, (10, 2))]
    expected = encoder(values)
    torch.testing.assert_close(torch.func.vmap(encoder)(values), expected)
    weights: dict[str, torch.Tensor] = dict(encoder.named_parameters())

    def total(weights: dict[str, torch.Tensor], value: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(encoder, weights, (value,)).sum()

    each = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(weights, values)
    whole = torch.func.grad(total)(weights, values)
    torch.testing.assert_close({name: grad.sum(dim=0) for name, grad in each.items()}, whole)
    with torch.device("meta"):
        torch.testing.assert_close(encoder(values), expected)


def test_padding_of_a_text_means_nothing() -> None:
    torch.manual_seed(0)
    encoder = Encoder(spaces.Dict({"part": SPACES["words"][0]}), 8)
    texts = torch.tensor([[3, 4, 0, 0, 0], [4, 3, 0, 0, 0]])
    first, second = encoder({"part": texts}, torch.zeros(2, 8), torch.zeros(2))
    assert not torch.allclose(first, second)  # the order of words matters
    with torch.no_grad():
        field = next(encoder.fields.children())
        field.get_parameter("embedding.weight")[0] += 1
    again = encoder({"part": texts}, torch.zeros(2, 8), torch.zeros(2))
    torch.testing.assert_close(again[0], first)


def test_padding_of_bytes_means_nothing() -> None:
    torch.manual_seed(0)
    short, long = (
        Encoder(spaces.Dict({"part": spaces.Box(0, 255, (length,), np.uint8)}), 8)
        for length in (4, 9)
    )
    weights = long.state_dict()
    weights["fields.0.position"] = weights["fields.0.position"][:4]
    short.load_state_dict(weights)
    text = torch.tensor([[3, 200, 7, 0]], dtype=torch.uint8)
    padded = torch.nn.functional.pad(text, (0, 5))
    torch.testing.assert_close(encode(long, padded), encode(short, text))
    assert not torch.allclose(encode(short, text), encode(short, text[:, [1, 0, 2, 3]]))
    encode(short, torch.zeros_like(text)).sum().backward()  # an empty text is one, too
    assert all(p.grad is None or p.grad.isfinite().all() for p in short.parameters())


def test_rejects_a_space_it_cannot_take() -> None:
    space = spaces.Dict({"part": spaces.MultiBinary((2, 2))})
    with pytest.raises(ValueError, match="observation 'part' has space MultiBinary"):
        Encoder(space, 8)
