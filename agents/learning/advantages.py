"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438).

Shapes: T steps, B envs.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agents import ranks


def gae(
    reward: Float[Tensor, "T B"],
    value: Float[Tensor, "T B"],
    next_value: Float[Tensor, " B"],
    terminated: Bool[Tensor, "T B"],
    truncated: Bool[Tensor, "T B"],
    final_value: Float[Tensor, "T B"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "T B"]:
    """Return the advantages A_t.

    The bootstrap rule: after a terminal step nothing follows, so the value of what follows is 0;
    after a truncated step it is the value of the episode's final observation; otherwise it is the
    value of the next step. An advantage never reaches over the end of an episode.

    Args:
        reward: r_t, after action a_t.
        value: V(o_t).
        next_value: V(o_T), of the observation after the last step.
        terminated: the episode ended in a terminal state with step t.
        truncated: it was cut off with step t; both may be True, then it is terminal.
        final_value: V of the final observation, read where truncated and not terminated.
        gamma: discount per step.
        gae_lambda: decay of the estimator, from one-step errors (0) to whole returns (1).
    """
    done = terminated | truncated
    following = torch.cat((value[1:], next_value[None]))
    following = torch.where(done, final_value, following)
    following = torch.where(terminated, 0.0, following)
    delta = reward + gamma * following - value
    decay = gamma * gae_lambda * (~done).to(reward.dtype)
    advantage = torch.zeros_like(next_value)
    advantages = []
    for t in reversed(range(len(reward))):
        advantage = delta[t] + decay[t] * advantage
        advantages.append(advantage)
    return torch.stack(advantages[::-1])


def level_error(
    advantage: Float[Tensor, "T B"], per_unit: Float[Tensor, "T B"]
) -> Float[Tensor, ""]:
    """Return the constant by which all values are too low, as far as the envs agree on it.

    Bootstrapping alone takes 1 / ((1 - gamma) horizon) updates to bring the sum of an offset of all
    rewards into the values, and until then advantages depend on how far the end of the rollout is.
    Values that are higher by 1 change the advantages by `per_unit`: so this is what brings their
    mean to 0. Of a mean of two standard errors between envs or fewer, nothing is taken for an
    error, nor of one env; of t standard errors, 1 - 4 / t^2.

    Args:
        advantage: from `gae`.
        per_unit: from `gae` of rewards of 0 and values of 1.
    """
    means = ranks.gather(advantage.mean(dim=0))  # of all envs
    num_envs = len(means)
    if num_envs == 1:
        return means.new_zeros(())
    error = means.mean()
    t_square = error.square() * num_envs / means.var(correction=1)
    share = (1 - 4 / t_square).clamp(0.0, 1.0)
    level = -share * error / ranks.mean(per_unit.mean())
    return torch.where(level.isfinite(), level, 0.0)
