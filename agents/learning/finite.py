"""Numbers that are not finite: found without a synchronisation, and named once they are found."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from agents import ranks
from agents.learning.rollout import Rollout
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
    named = _read(rollout)
    named["next_value"] = named["next_value"][None]  # one step, not T
    first_env = ranks.share().rows(rollout.reward.shape[1]).start
    return _describe(named, 0, "the rollout", first_env)


class FiniteWatch:
    """Looks at what environments give while an agent plays, where no update would.

    An observation that is not finite spoils what an agent does in that episode, and without a word
    the success rate.

    Args:
        whole: what is played, in words.
    """

    def __init__(self, whole: str = "the evaluation"):
        self._whole = whole
        self.what = ""
        """What was found first, for people; "" for nothing."""
        self.num_episodes = 0
        """Episodes in which something was not finite."""
        self._is_damaged = torch.zeros(0, dtype=torch.bool)
        self._num_steps = 0

    def start(self, num_envs: int) -> None:
        """Look at other envs, in new episodes."""
        self._is_damaged = torch.zeros(num_envs, dtype=torch.bool)

    def look(
        self,
        observation: dict[str, Tensor],
        reward: Tensor,
        done: Bool[Tensor, " B"],
        counts: Bool[Tensor, " B"],
    ) -> None:
        """Look at one step of B envs. This synchronises.

        Args:
            observation: what was seen, before the action.
            reward: what came of it.
            done: whether the episode ended with it.
            counts: whether it is an episode that counts.
        """
        named = named_tensors(observation, "observation") | {"reward": reward}
        floats = {name: t[None] for name, t in named.items() if t.is_floating_point()}
        for tensor in floats.values():
            self._is_damaged |= _wrong_envs(tensor)[0].cpu()
        if not self.what and self._is_damaged.any():
            self.what = _describe(floats, self._num_steps, self._whole)
        self.num_episodes += int((self._is_damaged & done & counts).sum())
        self._is_damaged &= ~done
        self._num_steps += 1


def _wrong_envs(tensor: Tensor) -> Bool[Tensor, "T B"]:
    """Return in which envs and at which steps something in (T, B, ...) is not finite."""
    wrong = ~tensor.isfinite()
    return wrong.flatten(2).any(-1) if wrong.dim() > 2 else wrong


def _describe(named: dict[str, Tensor], start: int, whole: str, first_env: int = 0) -> str:
    """Return what is not finite in tensors (T, B, ...) of which the first step is `start`."""
    for name, tensor in named.items():
        wrong = _wrong_envs(tensor)
        if not wrong.any():
            continue
        value = tensor[~tensor.isfinite()][0].item()
        envs = (first_env + wrong.any(0).nonzero().squeeze(1)).tolist()
        first = start + int(wrong.any(1).nonzero()[0])
        listed = ", ".join(map(str, envs[:MAX_NAMED_ENVS]))
        more = f" and {len(envs) - MAX_NAMED_ENVS} more" if len(envs) > MAX_NAMED_ENVS else ""
        return f"{name} is {value} in env {listed}{more}, from step {first} of {whole} on"
    return ""


def _read(rollout: Rollout) -> dict[str, Tensor]:
    """Return the floating tensors that an update reads, causes before consequences."""
    named = named_tensors(rollout.inputs.observation, "observation")
    for name in ("reward", "value", "log_prob", "final_value", "next_value"):
        named[name] = getattr(rollout, name)
    return {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}
