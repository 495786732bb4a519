"""Actions of Discrete, MultiDiscrete and Box spaces: distributions, and embeddings as inputs.

An action is (B,) int64 for Discrete, (B, n) int64 for MultiDiscrete, (B, n) float for Box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from gymnasium import spaces
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from agents.initialization import small_embedding


@runtime_checkable
class ActionDistribution(Protocol):
    """What a policy returns; log_prob and entropy are summed over an action's parts."""

    @property
    def mode(self) -> Tensor: ...

    def sample(self) -> Tensor: ...

    def log_prob(self, value: Tensor, /) -> Tensor: ...

    def entropy(self) -> Tensor: ...


class RacingCategorical(Categorical):
    """A categorical distribution that samples without looking at its probabilities.

    The first of exponential clocks with rates p: the argmax of p / Exp(1). torch.multinomial
    does the same, but reads the probabilities back first, which stops a GPU.
    """

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        probs = self.probs.expand(*sample_shape, *self.probs.shape)
        return (probs / torch.empty_like(probs).exponential_()).argmax(dim=-1)


class MultiCategorical:
    """Independent categorical distributions, one for each part of a MultiDiscrete action."""

    def __init__(self, logits: Float[Tensor, "*N total"], sizes: list[int]):
        self.parts = [
            RacingCategorical(logits=part, validate_args=False)
            for part in logits.split(sizes, dim=-1)
        ]

    @property
    def mode(self) -> Tensor:
        return torch.stack([part.mode for part in self.parts], dim=-1)

    def sample(self) -> Tensor:
        return torch.stack([part.sample() for part in self.parts], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        values = value.unbind(dim=-1)
        log_probs = [part.log_prob(v) for part, v in zip(self.parts, values, strict=True)]
        return torch.stack(log_probs).sum(dim=0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(dim=0)


class ActionHead(nn.Module):
    """Maps features to a distribution over actions, and actions to features.

    Args:
        space: the action space of one env.
        feature_dim: width of the features that the policy reads.
        embed_dim: width of an embedded action.
    """

    offsets: Tensor
    no_action: Tensor

    def __init__(self, space: spaces.Space, feature_dim: int, embed_dim: int):
        super().__init__()
        self.sizes = _category_sizes(space)
        if self.sizes:
            num_outputs = sum(self.sizes)
            offsets = torch.tensor([0, *self.sizes[:-1]]).cumsum(0) + torch.arange(len(self.sizes))
            self.register_buffer("offsets", offsets, persistent=False)
            self.register_buffer("no_action", torch.tensor(self.sizes), persistent=False)
            # one more row for each part: no action yet
            self.embedding = small_embedding(num_outputs + len(self.sizes), embed_dim)
            self.is_scalar = isinstance(space, spaces.Discrete)
        else:
            assert isinstance(space, spaces.Box)
            num_outputs = math.prod(space.shape)
            self.log_std = nn.Parameter(torch.zeros(num_outputs))
            self.projection = nn.Linear(num_outputs, embed_dim, bias=False)
        self.num_outputs = num_outputs
        self.policy = nn.Linear(feature_dim, num_outputs)
        nn.init.orthogonal_(self.policy.weight, gain=0.01)
        nn.init.zeros_(self.policy.bias)

    def forward(self, features: Float[Tensor, "*N D"]) -> ActionDistribution:
        """Return the distribution over actions."""
        outputs = self.policy(features)
        if not self.sizes:
            return Independent(
                Normal(outputs, self.log_std.exp(), validate_args=False), 1, validate_args=False
            )
        if self.is_scalar:
            return RacingCategorical(logits=outputs, validate_args=False)
        return MultiCategorical(outputs, self.sizes)

    def none(self, batch_size: int) -> Shaped[Tensor, "B ..."]:
        """Return what stands for the previous action at the start of an episode."""
        if not self.sizes:
            return self.policy.weight.new_zeros(batch_size, self.num_outputs)
        none = self.no_action.expand(batch_size, -1)
        return none[:, 0] if self.is_scalar else none

    def embed(self, action: Shaped[Tensor, "*N"]) -> Float[Tensor, "*M E"]:
        """Return features of an action, summed over its parts."""
        if not self.sizes:
            return self.projection(action)
        if self.is_scalar:
            return self.embedding(action)
        return self.embedding(action + self.offsets).sum(dim=-2)


def _category_sizes(space: spaces.Space) -> list[int]:
    """Return the number of values of each discrete part; [] for a continuous space."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec]
    if isinstance(space, spaces.Box):
        return []
    raise ValueError(f"action space {space} is not supported; use Discrete, MultiDiscrete or Box")
