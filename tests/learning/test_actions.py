"""Distributions over actions of every supported space, and their embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

from agents.actions import ACTION_MASK, ActionHead, has_mask

SPACES = {
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "box": spaces.Box(-1, 1, (3,), np.float32),
}
NUM = 7


def make_head(name: str) -> ActionHead:
    torch.manual_seed(0)
    head = ActionHead(SPACES[name], 11, 13)
    with torch.no_grad():
        head.policy.weight.normal_()
    return head


@pytest.mark.parametrize("name", SPACES)
def test_samples_lie_in_the_space_and_have_one_log_prob(name: str) -> None:
    head = make_head(name)
    policy = head(torch.randn(NUM, 11))
    for action in (policy.sample(), policy.mode):
        assert action.shape == (NUM, *SPACES[name].shape)
        if name != "box":
            assert all(SPACES[name].contains(row.numpy()) for row in action)
        assert policy.log_prob(action).shape == (NUM,)
    assert policy.entropy().shape == (NUM,)
    assert (policy.log_prob(policy.mode) >= policy.log_prob(policy.sample()) - 1e-6).all()


def test_parts_of_a_multidiscrete_action_are_independent() -> None:
    head = make_head("multidiscrete")
    features = torch.randn(1, 11)
    policy = head(features)
    actions = torch.tensor([[a, b] for a in range(3) for b in range(2)])
    probabilities = head(features.expand(6, -1)).log_prob(actions).exp()
    assert_close(probabilities.sum(), torch.tensor(1.0))
    assert_close(policy.entropy()[0], -(probabilities * probabilities.log()).sum())
    assert (actions[probabilities.argmax()] == policy.mode[0]).all()


@pytest.mark.parametrize("name", SPACES)
def test_embedding_tells_actions_and_no_action_apart(name: str) -> None:
    head = make_head(name)
    if name == "box":
        actions = torch.randn(6, 3)
        assert (head.none(4) == 0).all()
    else:
        sizes = head.sizes
        grid = torch.cartesian_prod(*[torch.arange(size) for size in sizes])
        actions = torch.cat((grid, head.none(1)))
    embedded = head.embed(actions)
    assert embedded.shape == (len(actions), 13)
    assert len(embedded.unique(dim=0)) == len(actions)
    assert head.embed(actions[:, None]).shape == (len(actions), 1, 13)


BOUNDS = {
    "one": (-1.0, 1.0, 0.0, 1.0),
    "narrow and far off": (100.0, 101.0, 100.5, 0.5),
    "wide": (-100.0, 100.0, 0.0, 100.0),
    "one point": (3.0, 3.0, 3.0, 1.0),
    "from below": (2.0, np.inf, 3.0, 1.0),
    "from above": (-np.inf, -2.0, -3.0, 1.0),
    "none": (-np.inf, np.inf, 0.0, 1.0),
    "the largest numbers": (-3.4e38, 3.4e38, 0.0, 1.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_box_is_in_units_of_its_bounds(name: str) -> None:
    """At the start: the middle, give or take half their distance."""
    low, high, middle, unit = BOUNDS[name]
    torch.manual_seed(0)
    head = ActionHead(spaces.Box(low, high, (2,), np.float32), 11, 13)
    policy = head(torch.zeros(10_000, 11))
    assert_close(policy.mode, torch.full((10_000, 2), middle))
    actions = policy.sample()
    assert_close(actions.mean(0), torch.full((2,), middle), atol=0.05 * unit, rtol=0)
    assert_close(actions.std(0), torch.full((2,), unit), rtol=0.03, atol=0)
    assert (head.embed(head.none(3)) == 0).all()
    shifted = head.embed(torch.full((1, 2), middle + unit))
    assert_close(shifted, head.projection(torch.ones(1, 2)), atol=1e-4, rtol=1e-4)
    assert head.describe() == f"2 numbers in units of their bounds: {middle:g} ± {unit:g}"


@pytest.mark.parametrize("name", ["one", "narrow and far off", "wide", "from below"])
def test_log_prob_and_entropy_of_a_box_by_integration(name: str) -> None:
    """Over all pairs of numbers: the density's sum is 1, and that of -p log p the entropy."""
    low, high, _, unit = BOUNDS[name]
    torch.manual_seed(0)
    head = ActionHead(spaces.Box(low, high, (2,), np.float32), 11, 13)
    with torch.no_grad():
        head.policy.weight.normal_(std=0.2)
        head.log_std.copy_(torch.tensor([0.3, -0.9]))
    policy = head(torch.randn(1, 11))
    steps = torch.linspace(-7, 7, 401) * unit
    sides = (policy.mode[0, 0] + 1.4 * steps, policy.mode[0, 1] + 0.5 * steps)
    density = policy.log_prob(torch.cartesian_prod(*sides)).exp()
    area = 1.4 * 0.5 * (steps[1] - steps[0]).square()
    assert_close(density.sum() * area, torch.tensor(1.0), atol=1e-3, rtol=0)
    information = torch.special.entr(density).sum() * area
    assert_close(information, policy.entropy()[0], atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "mask"), [("discrete", [0, 1, 0, 1, 0]), ("multidiscrete", [1, 0, 1, 0, 1])]
)
def test_what_is_masked_has_no_probability(name: str, mask: list[int]) -> None:
    head = make_head(name)
    features = torch.randn(1, 11).expand(2000, -1)
    allowed = torch.tensor(mask, dtype=torch.bool).expand(2000, -1)
    policy = head(features, allowed)
    for actions in (policy.sample(), policy.mode):
        parts = actions.view(2000, -1) + torch.tensor([0, 3])[: actions.dim()]
        assert allowed.gather(1, parts).all()
    all_actions = torch.arange(5) if name == "discrete" else head_pairs()
    few = head(features[: len(all_actions)], allowed[: len(all_actions)])
    probabilities = few.log_prob(all_actions).exp()
    assert_close(probabilities.sum(), torch.tensor(1.0))
    assert (probabilities > 0).sum() == 2
    assert_close(policy.entropy()[0], torch.special.entr(probabilities).sum())
    (gradient,) = torch.autograd.grad(policy.entropy().sum(), head.policy.bias)
    assert gradient.isfinite().all()
    assert (gradient[~allowed[0]] == 0).all()


def head_pairs() -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(3), torch.arange(2))


def test_a_mask_of_another_size_is_refused() -> None:
    observations = spaces.Dict({ACTION_MASK: spaces.MultiBinary(4)})
    with pytest.raises(ValueError, match=r"'action_mask' is MultiBinary.*needs 5 numbers"):
        has_mask(observations, SPACES["discrete"])
    assert not has_mask(observations, SPACES["box"])
    fits = spaces.Dict({ACTION_MASK: spaces.Box(0, 1, (5,))})
    assert has_mask(fits, SPACES["discrete"])
    assert has_mask(fits, SPACES["multidiscrete"])


def test_rejects_a_space_it_cannot_take() -> None:
    with pytest.raises(ValueError, match="use Discrete, MultiDiscrete or Box"):
        ActionHead(spaces.MultiBinary(3), 11, 13)
