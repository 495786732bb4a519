"""Running statistics, so that no unit and no offset decides what is learned.

They are buffers: a checkpoint holds them, and acting, training and evaluation read the same ones.
They change between rollouts only, by sums over a rollout, which ranks add up first (never what was
seen before: that would count again at every rollout), and nothing here looks at the data: on a GPU
nothing synchronises.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents import ranks

HALF_LIFE = 2**14
"""Steps after which what was seen of returns and advantages counts half: they change while an agent
learns."""
MIN_ADVANTAGE = 0.3
"""Unit of advantages, as a share of their size where there are rewards: less would be noise."""
MIN_SCALE = 1e-4
"""Of returns, as a share of the largest reward: less is noise of the values."""
MIN_DEVIATION = 1e-6
"""Of an input, as a share of its mean: less is rounding."""


def _replace_(module: nn.Module, new: dict[str, Tensor], is_usable: Bool[Tensor, ""]) -> None:
    """Give buffers new values, unless these are not usable."""
    for name, value in new.items():
        buffer = module.get_buffer(name)
        buffer.copy_(torch.where(is_usable, value, buffer))


class ReturnScale(nn.Module):
    """Where returns lie and how far apart: a critic learns (return - mean) / scale.

    As the value normalisation of MAPPO (Yu et al. 2021, arXiv 2103.01955) and PopArt (van Hasselt
    et al. 2016, arXiv 1602.07714), with two deviations. The values move with the statistics
    (PopArt's rewriting of the last layer would hold them in place): so an offset of all rewards
    reaches the values by the mean, in the updates that its discounted sum takes to be
    bootstrapped, and not by the steps of an optimizer. And the scale is E d^2 / E |d| of the
    distances d from the mean, 1.25 deviations where they are normal: of returns that are nearly
    always 0 it is half of those that are not, however rare.

    Until some reward is not 0 it is the identity.
    """

    num: Tensor  # of steps, each of which counts less and less
    mean: Tensor
    square: Tensor  # sum of d^2 over these steps
    absolute: Tensor  # sum of |d|
    peak: Tensor  # the largest |reward| so far
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("num", "mean", "square", "absolute", "peak"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, normalised: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """Return values in the unit of the rewards."""
        return self.mean + self.scale * normalised

    @torch.no_grad()
    def observe_(
        self,
        return_: Float[Tensor, "T B"],
        reward: Float[Tensor, "T B"],
        is_usable: Bool[Tensor, ""],
    ) -> None:
        """Take a rollout's returns in, unless it is not usable."""
        num_new = return_.numel() * ranks.size()
        keep = 0.5 ** (num_new / HALF_LIFE)
        peak = torch.maximum(self.peak, ranks.largest(reward.abs().max()))
        num = keep * self.num + num_new
        mean = self.mean + (ranks.mean(return_.mean()) - self.mean) * (num_new / num)
        distance = return_ - mean
        sums = ranks.total(torch.stack((distance.square().sum(), distance.abs().sum())))
        square, absolute = keep * self.square + sums[0], keep * self.absolute + sums[1]
        tiny = torch.finfo(absolute.dtype).tiny
        scale = (square / absolute.clamp_min(tiny)).clamp_min(MIN_SCALE * peak)
        new = {"num": num, "mean": mean, "square": square, "absolute": absolute, "peak": peak,
               "scale": scale}  # fmt: skip
        is_usable = is_usable & (peak > 0) & scale.isfinite()
        _replace_(self, new, is_usable)


class AdvantageScale(nn.Module):
    """How large advantages are where there are rewards, so that others are not taken for large.

    A policy learns from advantages in units of their deviation. Where nothing was rewarded they are
    what the critic is wrong by, and in units of that they would move the policy as far as a reward
    does. So the unit is at least `MIN_ADVANTAGE` times the root mean square of those of the last
    rollouts that had a reward which is not 0. Where each has one, that is hardly ever more than the
    deviation.

    Until some reward is not 0, advantages are left in the unit of the values.
    """

    num: Tensor  # of steps, each of which counts less and less
    size: Tensor  # sum of the root mean squares over these steps

    def __init__(self) -> None:
        super().__init__()
        for name in ("num", "size"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, deviation: Float[Tensor, ""], scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the unit of advantages.

        Args:
            deviation: of these advantages, divided by `scale`.
            scale: of returns.
        """
        least = MIN_ADVANTAGE * self.size / self.num.clamp_min(1.0) / scale
        return torch.where(self.num > 0, torch.maximum(deviation, least) + 1e-8, 1.0)

    @torch.no_grad()
    def observe_(
        self,
        advantage: Float[Tensor, "T B"],
        reward: Float[Tensor, "T B"],
        is_usable: Bool[Tensor, ""],
    ) -> None:
        """Take a rollout's advantages in if it has a reward, unless they are not usable."""
        num_new = advantage.numel() * ranks.size()
        keep = 0.5 ** (num_new / HALF_LIFE)
        size = ranks.mean(advantage.square().mean()).sqrt()
        is_usable = is_usable & (ranks.largest(reward.abs().max()) > 0) & size.isfinite()
        new = {"num": keep * self.num + num_new, "size": keep * self.size + num_new * size}
        _replace_(self, new, is_usable)


class Standardised(nn.Module):
    """Inputs less their mean, in units of their deviation, over all that was observed.

    As observation normalisation of Andrychowicz et al. 2020 (arXiv 2006.05990). Until something is
    observed it is the identity; what has always been the same is 0.

    Args:
        shape: of one input.
    """

    num: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, shape: tuple[int, ...] = ()):
        super().__init__()
        self.register_buffer("num", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))

    def forward(self, x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """Standardise (*N, *shape)."""
        deviation = torch.maximum(self.variance.sqrt(), MIN_DEVIATION * self.mean.abs())
        return (x - self.mean) / torch.where(self.variance > 0, deviation, 1.0)

    @torch.no_grad()
    def observe_(self, x: Float[Tensor, "*N"]) -> None:
        """Take (*N, *shape) into mean and variance (Chan et al. 1979)."""
        flat = x.reshape(-1, *self.mean.shape)
        own_variance, own_mean = torch.var_mean(flat, dim=0, correction=0)
        mean, variance = ranks.mean(own_mean), ranks.variance(own_mean, own_variance)
        num_new = len(flat) * ranks.size()
        total = self.num + num_new
        share, delta = num_new / total, mean - self.mean
        within = self.variance * (1 - share) + variance * share
        self.variance.copy_(within + delta.square() * share * (1 - share))
        self.mean.add_(delta * share)
        self.num.copy_(total)
