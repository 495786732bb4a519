"""What a run needs beside the weights to go on to the bit, as named tensors.

The optimizer's moments, the memories and the episodes in progress, the environments with their
random numbers, torch's generators, the last episodes and the schedule. It is taken between two
updates: nothing is in flight then.

It is of all ranks' envs, by their numbers, whatever the number of ranks: what has as many rows as
there are envs is of the envs, and of it each rank takes its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from agents import ranks
from agents.learning.acceleration import Trainer
from agents.trees import named_tensors, with_tensors


@runtime_checkable
class Stateful(Protocol):
    """A part of a run, or its environments, that says its state as tensors."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None: ...


def training_tensors(trainer: Trainer, parts: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """Return the state of a run between two updates; `parts` by the names they are saved under.

    Where environments cannot say their state, theirs and the episodes in progress are left out. Of
    several ranks the first has the whole.
    """
    named = {
        f"{prefix}.{name}": tensor
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }
    named |= _moments(trainer)
    if saves_episodes(trainer):
        assert isinstance(trainer.env, Stateful)
        of_envs = named_tensors(trainer.carry, "carry")
        state = trainer.env.state_dict()  # it may be what the agent has seen, which is saved too
        of_envs |= {f"env.{name}": tensor.clone() for name, tensor in state.items()}
        num_envs = trainer.env.num_envs
        named |= {name: ranks.gather_state(t, num_envs) for name, t in of_envs.items()}
    named["random.cpu"] = torch.get_rng_state()
    if trainer.agent.device.type == "cuda":
        named["random.cuda"] = torch.cuda.get_rng_state()
    return named


def saves_episodes(trainer: Trainer) -> bool:
    """Tell whether the environments can say their state, and that of all ranks' is one.

    It is not where, beside what is of single envs, there is something else on each rank, such as a
    generator: nobody could tell how other ranks would have to share it.
    """
    if not isinstance(trainer.env, Stateful):
        return False
    num_envs = trainer.env.num_envs
    return ranks.has_same_rest(trainer.env.state_dict(), num_envs)


def has_episodes(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether `training_tensors` could save the episodes in progress."""
    return any(name.startswith("env.") for name in tensors)


def restore_training_(
    trainer: Trainer,
    parts: Mapping[str, Stateful],
    tensors: Mapping[str, Tensor],
    with_episodes: bool = True,
) -> None:
    """Put everything back; `trainer` must not be accelerated yet.

    Args:
        trainer: of the run.
        parts: of the run, by the names they were saved under.
        tensors: from `training_tensors`.
        with_episodes: whether episodes and memories in progress go on.

    Raises:
        ValueError: for tensors that do not fit, naming one.
    """
    tensors = {name: tensor.to(_place(name, trainer)) for name, tensor in tensors.items()}
    try:
        for prefix, part in parts.items():
            part.load_state_dict(_under(f"{prefix}.", tensors))
        _load_moments_(trainer, tensors)
        if with_episodes and saves_episodes(trainer):
            assert isinstance(trainer.env, Stateful)
            num_envs = trainer.env.num_envs
            carry = _own(tensors, named_tensors(trainer.carry, "carry"), num_envs)
            trainer.carry = with_tensors(trainer.carry, carry, "carry")
            state = _own(_under("env.", tensors), trainer.env.state_dict(), num_envs)
            trainer.env.load_state_dict(state)
    except KeyError as error:
        raise ValueError(f"{error} is missing") from None
    try:
        torch.set_rng_state(_of(tensors, "random.cpu"))
        if trainer.agent.device.type == "cuda":
            torch.cuda.set_rng_state(_of(tensors, "random.cuda").cpu())
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"random is no state of the generators: {error}") from None


def _own(
    saved: Mapping[str, Tensor], here: Mapping[str, Tensor], num_envs: int
) -> dict[str, Tensor]:
    """Return of a state of all envs that of this rank's; `here` is the state that it has now."""
    return {
        name: ranks.own_state(tensor, here[name], num_envs) if name in here else tensor
        for name, tensor in saved.items()
    }


def _place(name: str, trainer: Trainer) -> torch.device:
    is_on_device = name.startswith(("carry.", "optimizer."))
    return trainer.agent.device if is_on_device else torch.device("cpu")


def _moments(trainer: Trainer) -> dict[str, Tensor]:
    state = trainer.ppo.optimizer.state
    return {
        f"optimizer.{name}.{kind}": tensor
        for name, parameter in trainer.agent.named_parameters()
        for kind, tensor in state.get(parameter, {}).items()
    }


def _load_moments_(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    moments = _under("optimizer.", tensors)
    if not moments:
        raise ValueError("optimizer is missing")
    for name, parameter in trainer.agent.named_parameters():
        kinds = ("step", "exp_avg", "exp_avg_sq")
        found = {kind: moments[f"{name}.{kind}"] for kind in kinds if f"{name}.{kind}" in moments}
        if not found:
            continue
        for kind in kinds:
            shape = () if kind == "step" else parameter.shape
            part = found.get(kind)
            if part is None or part.shape != shape or part.dtype != torch.float32:
                raise ValueError(
                    f"optimizer.{name}.{kind} is missing, or not {tuple(shape)} torch.float32"
                )
        trainer.ppo.optimizer.state[parameter] = {kind: t.clone() for kind, t in found.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _of(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    return tensors[name]
