"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438).

Shapes: T steps, B envs.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


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
