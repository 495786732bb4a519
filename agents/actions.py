"""Actions of Discrete, MultiDiscrete and Box spaces: distributions, and embeddings as inputs.

An action is (B,) int64 for Discrete, (B, n) int64 for MultiDiscrete, (B, n) float for Box, in the
environment's unit. Policies of a Box think in units of its bounds: 0 is their middle, 1 half of
their distance. An action beyond them is the environment's to clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from agents.cores.initialization import small_embedding
from agents.ranks import ALONE, Share
from agents.spaces import space_words

NO_BOUND = 1e18
"""A bound of a Box beyond this is none: 3.4e38, the largest float32, is often meant so."""


MAX_NAMED = 6
"""Different units of an action's numbers that are printed."""
ACTION_MASK = "action_mask"
"""The part of an observation that says which actions may be taken: above 0 those that may."""


@runtime_checkable
class ActionDistribution(Protocol):
    """What a policy returns; log_prob and entropy are summed over an action's parts.

    Of several ranks each samples its own envs' part of what is drawn for all: `share`.
    """

    @property
    def mode(self) -> Tensor: ...

    def sample(self, *, share: Share = ALONE) -> Tensor: ...

    def log_prob(self, value: Tensor, /) -> Tensor: ...

    def entropy(self) -> Tensor: ...


class RacingCategorical(Categorical):
    """A categorical distribution that samples without looking at its probabilities.

    The first of exponential clocks with rates p: the argmax of p / Exp(1). torch.multinomial
    does the same, but reads the probabilities back first, which stops a GPU.
    """

    def sample(self, sample_shape: Sequence[int] = (), share: Share = ALONE) -> Tensor:
        probs = self.probs.expand(*sample_shape, *self.probs.shape)
        return (probs / share.draw(probs, Tensor.exponential_)).argmax(dim=-1)


class IndependentNormal(Independent):
    """Independent normal distributions, one for each number of an action (*N, n)."""

    base_dist: Normal

    def sample(self, sample_shape: Sequence[int] = (), share: Share = ALONE) -> Tensor:
        mean = self.base_dist.loc.expand(*sample_shape, *self.base_dist.loc.shape)
        with torch.no_grad():
            return share.draw(mean, Tensor.normal_) * self.base_dist.scale + mean


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

    def sample(self, *, share: Share = ALONE) -> Tensor:
        return torch.stack([part.sample(share=share) for part in self.parts], dim=-1)

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
    middle: Tensor
    unit: Tensor

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
            middle, unit = _box_units(space)
            self.register_buffer("middle", middle, persistent=False)
            self.register_buffer("unit", unit, persistent=False)
            self.log_std = nn.Parameter(torch.zeros(num_outputs))
            self.projection = nn.Linear(num_outputs, embed_dim, bias=False)
        self.num_outputs = num_outputs
        self.policy = nn.Linear(feature_dim, num_outputs)
        nn.init.orthogonal_(self.policy.weight, gain=0.01)
        nn.init.zeros_(self.policy.bias)

    def forward(
        self, features: Float[Tensor, "*N D"], mask: Bool[Tensor, "*N total"] | None = None
    ) -> ActionDistribution:
        """Return the distribution over actions.

        Args:
            features: what the policy reads.
            mask: True where a category may be chosen, those of all parts one after the other. What
                comes of a row without any means nothing.
        """
        outputs = self.policy(features)
        if mask is not None:  # not -inf: 0 * -inf in the entropy is nan
            outputs = outputs.masked_fill(~mask, torch.finfo(outputs.dtype).min)
        if not self.sizes:
            mean, deviation = self.middle + self.unit * outputs, self.unit * self.log_std.exp()
            normal = Normal(mean, deviation, validate_args=False)
            return IndependentNormal(normal, 1, validate_args=False)
        if self.is_scalar:
            return RacingCategorical(logits=outputs, validate_args=False)
        return MultiCategorical(outputs, self.sizes)

    def sensitivity(self, gain: Float[Tensor, " D"]) -> Float[Tensor, ""]:
        """Return |gain w / std| of a Box's policy, by which log-probabilities follow the features.

        0 for choices: their logits are no further off than features are.

        Args:
            gain: what the features have been multiplied by since they had deviation 1.
        """
        if self.sizes:
            return gain.new_zeros(())
        return (gain * self.policy.weight / self.log_std.exp()[:, None]).norm()

    @property
    def has_units(self) -> bool:
        """Whether a policy's numbers are others than the environment's."""
        return not self.sizes and bool(((self.middle != 0) | (self.unit != 1)).any())

    def describe(self) -> str:
        """Return what a policy's 0 and 1 are in each number of a Box, for people; "" for others."""
        if self.sizes:
            return ""
        pairs = zip(self.middle.tolist(), self.unit.tolist(), strict=True)
        distinct = list(dict.fromkeys(f"{middle:g} ± {unit:g}" for middle, unit in pairs))
        named = ", ".join(distinct[:MAX_NAMED]) + (", ..." if len(distinct) > MAX_NAMED else "")
        what = "numbers in units of their" if self.num_outputs > 1 else "number in units of its"
        return f"{self.num_outputs} {what} bounds: {named}"

    def none(self, batch_size: int) -> Shaped[Tensor, "B ..."]:
        """Return what stands for the previous action at the start of an episode."""
        if not self.sizes:
            return self.middle.expand(batch_size, -1)
        none = self.no_action.expand(batch_size, -1)
        return none[:, 0] if self.is_scalar else none

    def embed(self, action: Shaped[Tensor, "*N"]) -> Float[Tensor, "*M E"]:
        """Return features of an action, summed over its parts."""
        if not self.sizes:
            return self.projection((action - self.middle) / self.unit)
        if self.is_scalar:
            return self.embedding(action)
        return self.embedding(action + self.offsets).sum(dim=-2)


def has_mask(observation_space: spaces.Dict, action_space: spaces.Space) -> bool:
    """Return whether observations hold a mask of the actions.

    It has one entry for each choice, those of a MultiDiscrete's parts one after the other.

    Raises:
        ValueError: for a mask of another size.
    """
    size, space = sum(_category_sizes(action_space)), observation_space.get(ACTION_MASK)
    if not size or space is None:
        return False
    if not isinstance(space, spaces.Box | spaces.MultiDiscrete) or math.prod(space.shape) != size:
        raise ValueError(
            f"observation {ACTION_MASK!r} is {space_words(space)}, but {space_words(action_space)} "
            f"needs {size} numbers, one for each choice: mend it, or give it another name if it is "
            "no mask"
        )
    return True


def _box_units(space: spaces.Box) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return for each number of an action what a policy's 0 is, and how much its 1 is.

    Where one bound is missing, 0 is a unit of 1 away from the other; without any, 0 is 0.
    """
    low, high = (np.asarray(b, np.float64).flatten() for b in (space.low, space.high))
    low = np.where(low > -NO_BOUND, low, -np.inf)
    high = np.where(high < NO_BOUND, high, np.inf)
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    unit = np.where(has_low & has_high & (high > low), (high - low) / 2, 1.0)
    middle = np.where(has_low, low + unit, np.where(has_high, high - unit, 0.0))
    middle = np.where(high == low, low, middle)
    return torch.tensor(middle, dtype=torch.float32), torch.tensor(unit, dtype=torch.float32)


def _category_sizes(space: spaces.Space) -> list[int]:
    """Return the number of values of each discrete part; [] for a continuous space."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec]
    if isinstance(space, spaces.Box):
        return []
    raise ValueError(
        f"action space {space_words(space)} is not supported; use Discrete, MultiDiscrete or Box"
    )
