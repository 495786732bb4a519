"""Distributions over actions of every supported space, and their embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

from agents.actions import ActionHead

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


def test_rejects_a_space_it_cannot_take() -> None:
    with pytest.raises(ValueError, match="use Discrete, MultiDiscrete or Box"):
        ActionHead(spaces.MultiBinary(3), 11, 13)
