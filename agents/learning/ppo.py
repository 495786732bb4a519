"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) of a recurrent agent.

Minibatches are made of whole envs, so that gradients flow through the segments of a rollout
(truncated backpropagation through time). The core goes on from the very state that acted, so the
first minibatch's probability ratio is 1 to rounding: it is checked in every update.

What is not finite is never learned from: such a minibatch, or every one of a rollout in which an
observation or a reward is not finite, changes neither weights nor the optimizer's moments.

On several ranks a minibatch is that of one rank, each of them with those of its envs that are in
it: gradients are added up, and means are of all. See `PPO._minibatches`.

Shapes: T steps, B envs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from agents import ranks
from agents.actor_critic import ActorCritic, AgentInput
from agents.learning.advantages import gae, level_error
from agents.learning.finite import is_finite
from agents.learning.rollout import Rollout
from agents.trees import map_tensors
from agents.uncompiled import uncompiled
from mtxl_rl.core.checks import divisors

RATIO_CHECKS = {
    torch.float32: ("ratio_error", 0.01),
    torch.bfloat16: ("mean_ratio_error", 0.01),
}
"""What of |ratio - 1| in the first minibatch is checked, and how large it may be.

Far above rounding: 1e-5 in float32. In bfloat16 the largest of thousands of steps can be rounding
too (0.17 was seen): there the mean is checked, which was 0.0016 at most in nine runs. A policy of
numbers may be off by more: see `PPO.ratio_tolerance`.
"""
FEATURE_ERROR = 4.0
"""Rounding of a feature that is allowed for, in the numbers of `RATIO_CHECKS`: .04 in bfloat16,
where .001 to .007 was seen with every core."""

STATISTICS = (
    "policy_loss", "value_loss", "entropy", "old_approx_kl", "approx_kl", "clipfrac", "ratio_error",
    "mean_ratio_error", "loss", "grad_norm", "skipped",
)  # fmt: skip
"""What a step on a minibatch reports."""
KL = STATISTICS.index("approx_kl")
SKIPPED_TAG = "losses/skipped"
"""Share of an update's minibatches that were skipped because something was not finite."""

STATISTICS_ENVS = 16
"""Envs whose memory writes are measured each update."""
DEALT_ENVS = 512
"""From so many on minibatches are dealt out evenly: see `PPO._minibatches`."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Proximal policy optimisation."""

    rollout_len: int = 64
    """Steps of each env between updates; the reach of backpropagation through time."""
    learning_rate: float = 1e-3
    """Adam's step size at the start."""
    learning_rate_end: float | None = 0.0
    """Adam's step size at the end; it changes linearly with frames. None: constant."""
    gamma: float = 0.995
    """Discount of rewards per step, in (0, 1]."""
    gae_lambda: float = 0.8
    """Decay of generalised advantage estimation, in [0, 1]. Where the end of an episode is a matter
    of luck until memory is used, a larger one blames the luck on every step before."""
    clip_coef: float = 0.2
    """Clipping range of the probability ratio."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus at the start."""
    ent_coef_end: float | None = None
    """Weight of the entropy bonus at the end; it changes linearly. Left out: constant."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    norm_adv: bool = True
    """Normalise advantages in each minibatch: by their deviation, or, if that is more, by .3 of
    their size in the last rollouts that had a reward; before the first one they are left alone."""
    num_epochs: int = 6
    """Passes over each rollout, at most."""
    num_minibatches: int = 2
    """Minibatches of each pass, over envs; must divide num_envs."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    target_kl: float | None = 0.02
    """End an update after the pass at whose end the approximate KL divergence exceeds this. None:
    never."""

    def __post_init__(self) -> None:
        for name in ("rollout_len", "num_epochs", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        for name in ("clip_coef", "max_grad_norm", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be above 0")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0 and at most 1")
        if not 0 <= (self.learning_rate_end or 0.0) <= 1:
            raise ValueError(
                f"learning_rate_end={self.learning_rate_end} must be 0 or more and at most 1, or "
                "None for no change"
            )
        for name in ("ent_coef", "ent_coef_end", "vf_coef"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be 0 or more, and finite")


@dataclass(frozen=True)
class Minibatch:
    """Whole sequences of some envs, batch-major: (B, T, ...)."""

    inputs: AgentInput
    initial_state: Any
    action: Tensor
    log_prob: Float[Tensor, "B T"]
    advantage: Float[Tensor, "B T"]
    return_: Float[Tensor, "B T"]
    weight: float = 1.0  # the share of it that is on this rank


def check_minibatches(num_envs: int, num_minibatches: int) -> None:
    """Raise ValueError unless minibatches of whole envs are of one size."""
    if num_envs % num_minibatches:
        fitting = ", ".join(map(str, divisors(num_envs)))
        raise ValueError(
            f"num_envs={num_envs} must be divisible by num_minibatches={num_minibatches}; set "
            f"--ppo.num-minibatches to one of {fitting}, or change --num-envs"
        )


def ppo_loss(
    agent: ActorCritic, batch: Minibatch, config: PPOConfig, ent_coef: float | Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a minibatch and scalars to log (detached).

    All but `ratio_error` are means over the envs here, with advantages normalised by those of all
    ranks: the sum over ranks, by their weights, is that of the whole minibatch.
    """
    policy, value, _ = agent(batch.inputs, batch.initial_state)
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = log_ratio.exp()
    scale = agent.returns.scale
    advantage = batch.advantage / scale
    if config.norm_adv:
        mean, deviation = ranks.mean_and_deviation(advantage, batch.weight)
        advantage = (advantage - mean) / agent.advantages(deviation, scale)
    clipped_ratio = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
    policy_loss = -torch.min(advantage * ratio, advantage * clipped_ratio).mean()

    value_loss = 0.5 * ((value - batch.return_) / scale).square().mean()
    entropy = policy.entropy().mean()
    loss = policy_loss + config.vf_coef * value_loss - ent_coef * entropy
    statistics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "old_approx_kl": -log_ratio.mean(),
        "approx_kl": (ratio - 1 - log_ratio).mean(),
        "clipfrac": ((ratio - 1).abs() > config.clip_coef).float().mean(),
        "ratio_error": (ratio - 1).abs().max(),
        "mean_ratio_error": (ratio - 1).abs().mean(),
    }
    return loss, {name: tensor.detach() for name, tensor in statistics.items()}


class RatioError(RuntimeError):
    """Acting and training have computed different functions; the update is done all the same."""


class PPO:
    """Updates an agent from rollouts.

    Args:
        agent: the agent, trained in place.
        config: of PPO.
    """

    def __init__(self, agent: ActorCritic, config: PPOConfig):
        self.agent = agent
        self.config = config
        learning_rate: float | Tensor = config.learning_rate
        if agent.device.type == "cuda":  # a tensor, which a graph can read anew
            learning_rate = torch.tensor(learning_rate, device=agent.device)
        self.optimizer = torch.optim.Adam(
            agent.parameters(), lr=learning_rate, eps=1e-5, fused=True
        )
        self.ent_coef = torch.tensor(config.ent_coef, device=agent.device)
        self.level = torch.zeros((), device=agent.device)  # see `level_error`
        self.is_rollout_finite = torch.tensor(True, device=agent.device)
        self._skip = torch.zeros((), device=agent.device)
        # the fused Adam's own: where it is 1, a step changes nothing
        self.optimizer.found_inf = self._skip  # type: ignore[attr-defined]
        self.train_minibatch = self.train_minibatch_

    def update(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Train on one rollout and return what to log, by tag.

        The encoder's running statistics take in the rollout last, so that acting and training
        are one function within an update.

        Args:
            rollout: from `collect`, with the agent as it is now.
            progress: share of training done, in [0, 1], for the schedules.

        Raises:
            RatioError: when the first minibatch's ratio is not 1.
        """
        config = self.config
        tolerance = self.ratio_tolerance()
        self.is_rollout_finite.copy_(ranks.every(is_finite(rollout)))
        advantage = self._advantages(rollout)
        return_ = advantage + rollout.value + self.level
        returns, advantages = self.agent.returns, self.agent.advantages
        returns.observe_(return_, rollout.reward, self.is_rollout_finite)
        advantages.observe_(advantage, rollout.reward, self.is_rollout_finite)
        learning_rate = _linear(config.learning_rate, config.learning_rate_end, progress)
        ent_coef = _linear(config.ent_coef, config.ent_coef_end, progress)
        self._set_learning_rate(learning_rate)
        self.ent_coef.fill_(ent_coef)
        history: list[Tensor] = []
        for _ in range(config.num_epochs):
            history += [
                self.train_minibatch(rollout, advantage, envs)
                for envs in self._minibatches(advantage.shape[1])
            ]
            if config.target_kl is not None and history[-1][KL] > config.target_kl:
                break
        scalars = self._summary(rollout, advantage, torch.stack(history))
        if not scalars[SKIPPED_TAG]:
            self.agent.observe_(rollout.inputs.observation, rollout.reward)
            self._check_ratio(scalars, float(tolerance))
        return scalars | {"charts/learning_rate": learning_rate, "charts/ent_coef": ent_coef}

    def train_minibatch_(
        self, rollout: Rollout, advantage: Float[Tensor, "T B"], envs: Int64[Tensor, " E"]
    ) -> Float[Tensor, " statistics"]:
        """Take one step of the optimizer on some envs and return what to log (`STATISTICS`).

        On a GPU nothing here synchronises, and no shape depends on the data.

        Args:
            rollout: of this rank.
            advantage: of this rank.
            envs: those of this rank that are in the minibatch; there may be none.
        """
        num_all = rollout.reward.shape[1] * ranks.size() // self.config.num_minibatches
        weight = ranks.weight(len(envs), num_all)
        batch = take_envs(rollout, advantage, envs if weight else envs.new_zeros(1))
        batch = replace(batch, return_=batch.return_ + self.level, weight=weight)
        loss, statistics = ppo_loss(self.agent, batch, self.config, self.ent_coef)
        self.optimizer.zero_grad()
        loss.backward()
        largest = {"ratio_error": statistics.pop("ratio_error")}  # of this rank, see `_summary`
        statistics["loss"] = loss.detach()
        means = torch.stack(list(statistics.values()))
        means = ranks.add_gradients_(self.agent.parameters(), means, weight)
        statistics = largest | dict(zip(statistics, means, strict=True))
        grad_norm = nn.utils.clip_grad_norm_(self.agent.parameters(), self.config.max_grad_norm)
        is_usable = self.is_rollout_finite & statistics["loss"].isfinite() & grad_norm.isfinite()
        self._skip.copy_(~is_usable)
        self.optimizer.step()
        statistics |= {"grad_norm": grad_norm, "skipped": self._skip.clone()}
        return torch.stack([statistics[name] for name in STATISTICS])

    def _set_learning_rate(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(learning_rate)
            else:
                group["lr"] = learning_rate

    def _advantages(self, rollout: Rollout) -> Float[Tensor, "T B"]:
        """Return the advantages of values that are right on the average, and set `level`."""
        one = torch.ones_like(rollout.value)
        both = gae(
            reward=torch.cat((rollout.reward, 0 * one), dim=1),
            value=torch.cat((rollout.value, one), dim=1),
            next_value=torch.cat((rollout.next_value, one[0])),
            terminated=rollout.terminated.repeat(1, 2),
            truncated=rollout.truncated.repeat(1, 2),
            final_value=torch.cat((rollout.final_value, one), dim=1),
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        advantage, per_unit = both.chunk(2, dim=1)
        self.level.copy_(level_error(advantage, per_unit))
        return advantage + self.level * per_unit

    def _minibatches(self, num_envs: int) -> list[Int64[Tensor, " E"]]:
        """Return the envs of each minibatch of a pass: those of them that are on this rank.

        The minibatches of all envs do not depend on the number of ranks: each draws the same ones
        and takes its own, so that an update is that of one rank, to rounding. Fewer than
        `DEALT_ENVS` are one random permutation cut in pieces, of which a rank has as many as
        chance will have it. Of more, each minibatch gets one of every K neighbours, drawn anew
        each time: envs know nothing of each other, so that it is as good, and ranks whose envs
        are a multiple of K have as many in each. That is quicker than to wait for the one with
        the most, and compiled code and CUDA graphs need it (`has_equal_minibatches`).
        """
        num_all, number = num_envs * ranks.size(), self.config.num_minibatches
        device = self.ent_coef.device
        if num_all < DEALT_ENVS or num_all % number:
            parts = torch.randperm(num_all, device=device).chunk(number)
        else:
            places = torch.rand(num_all // number, number, device=device).argsort(dim=1)
            first = torch.arange(0, num_all, number, device=device)
            parts = (first.unsqueeze(1) + places).unbind(1)
        return [ranks.share().own(part, num_envs) for part in parts]

    def has_equal_minibatches(self, num_envs: int) -> bool:
        """Return whether each minibatch has as many envs of each rank, which has `num_envs`."""
        is_dealt = num_envs * ranks.size() >= DEALT_ENVS
        return ranks.size() == 1 or (is_dealt and num_envs % self.config.num_minibatches == 0)

    def _summary(
        self,
        rollout: Rollout,
        advantage: Float[Tensor, "T B"],
        history: Float[Tensor, "steps statistics"],
    ) -> dict[str, float]:
        """Return scalars by tag, with one synchronisation."""
        scalars = {}
        for name, first, mean in zip(STATISTICS, history[0], history.mean(dim=0), strict=True):
            if name == "ratio_error":
                scalars[f"losses/first_{name}"] = ranks.largest(first)
            elif name == "mean_ratio_error":
                scalars[f"losses/first_{name}"] = first
            else:
                scalars[f"losses/{name}"] = mean
        scalars["losses/explained_variance"] = self._explained_variance(rollout, advantage)
        scalars |= {f"memory/{name}": x for name, x in self._memory_statistics(rollout).items()}
        values = torch.stack([scalar.float() for scalar in scalars.values()]).tolist()
        return dict(zip(scalars, values, strict=True))

    def _explained_variance(self, rollout: Rollout, advantage: Float[Tensor, "T B"]) -> Tensor:
        """Return the share of the returns' variance that values have: 1 where they are right."""
        # correction 0: there may be one step
        left, all_ = (
            ranks.variance(x.mean(), x.var(correction=0))
            for x in (advantage, advantage + rollout.value)
        )
        return 1 - left / all_.clamp_min(torch.finfo(all_.dtype).tiny)

    def ratio_tolerance(self) -> Tensor:
        """Return how far the first ratio may be off, with the weights as they are.

        Features that are off by e move the log-probability of an action that is a number by some
        e |w| / std, however healthy the agent: it is the error of the features that is bounded.
        """
        _, tolerance = RATIO_CHECKS[self.agent.precision]
        return tolerance * (FEATURE_ERROR * self.agent.sensitivity()).clamp_min(1.0)

    def _check_ratio(self, scalars: dict[str, float], tolerance: float) -> None:
        name, _ = RATIO_CHECKS[self.agent.precision]
        error = scalars[f"losses/first_{name}"]
        if not error <= tolerance:
            precision = str(self.agent.precision).removeprefix("torch.")
            cause = "This is a defect: please report it"
            if own := " or ".join(self.agent.own):
                cause = (
                    "To act step by step and to train on sequences must be one function, and "
                    f"{own} seems not to be: look there for BatchNorm, Dropout or a mean over "
                    "time (docs/your_own_core.md, docs/your_own_encoder.md)"
                )
            raise RatioError(
                f"the first minibatch's probability ratio is off by {error:.2g} (in {precision} at "
                f"most {tolerance:.2g} is rounding): acting and training computed different "
                f"functions. {cause}"
            )

    @uncompiled()
    @torch.no_grad()
    def _memory_statistics(self, rollout: Rollout) -> dict[str, Tensor]:
        num_envs = min(STATISTICS_ENVS, rollout.reward.shape[1])
        envs = torch.arange(num_envs, device=rollout.reward.device)
        inputs = _batch_major(rollout.inputs, envs)
        encoded = self.agent.encode(inputs)
        return self.agent.core.statistics(encoded, rollout.initial_state[envs], inputs.reset)


def take_envs(
    rollout: Rollout, advantage: Float[Tensor, "T B"], envs: Int64[Tensor, " E"]
) -> Minibatch:
    """Return the sequences of some envs, batch-major."""
    return Minibatch(
        inputs=_batch_major(rollout.inputs, envs),
        initial_state=rollout.initial_state[envs],
        action=_batch_major(rollout.action, envs),
        log_prob=_batch_major(rollout.log_prob, envs),
        advantage=_batch_major(advantage, envs),
        return_=_batch_major(advantage + rollout.value, envs),
    )


def _batch_major(item: Any, envs: Tensor) -> Any:
    """Take envs of time-major tensors (T, B, ...): (E, T, ...)."""
    return map_tensors(lambda tensor: tensor[:, envs].transpose(0, 1), item)


def _linear(start: float, end: float | None, progress: float) -> float:
    return start if end is None else start + (end - start) * progress
