"""Numbers that are not finite: found without a synchronisation, and named once they are found."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from agents.rollout import Rollout
from agents.trees import named_tensors

MAX_NAMED_ENVS = 5


def is_finite(rollout: Rollout) -> Bool[Tensor, ""]:
    """Return, on the rollout's device, whether all that an update reads is finite."""
    checks = [tensor.isfinite().all() for tensor in _read(rollout).values()]
    return torch.stack(checks).all()


def describe(rollout: Rollout) -> str:
    """Return what is not finite in a rollout, in which envs and from which step on, for people.

    "" where all of it is finite. This synchronises.
    """
    for name, tensor in _read(rollout).items():
        wrong = ~tensor.isfinite()
        if not wrong.any():
            continue
        value = tensor[wrong][0].item()
        if name == "next_value":  # one step, not T
            wrong = wrong[None]
        wrong = wrong.flatten(2).any(-1) if wrong.dim() > 2 else wrong  # (T, B)
        envs = wrong.any(0).nonzero().squeeze(1).tolist()
        first = int(wrong.any(1).nonzero()[0])
        listed = ", ".join(map(str, envs[:MAX_NAMED_ENVS]))
        more = f" and {len(envs) - MAX_NAMED_ENVS} more" if len(envs) > MAX_NAMED_ENVS else ""
        return f"{name} is {value} in env {listed}{more}, from step {first} of the rollout on"
    return ""


def _read(rollout: Rollout) -> dict[str, Tensor]:
    """Return the floating tensors that an update reads, causes before consequences."""
    named = named_tensors(rollout.inputs.observation, "observation")
    for name in ("reward", "value", "log_prob", "final_value", "next_value"):
        named[name] = getattr(rollout, name)
    return {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}
