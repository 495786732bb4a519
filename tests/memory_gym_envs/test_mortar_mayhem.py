"""Mortar Mayhem as tensors: what a player sees and earns, options, and what is refused.

That it is Memory Gym's is in `test_mortar_mayhem_equality`; its forms (single, resets, seeds,
states) are tested with POPGym's in `test_popgym_tensors`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest
import torch
from mortar_player import ENDLESS, GRID, STAY, right_action, tensors
from torch import Tensor

import envs
from envs.memory_gym.mortar_mayhem import COMMANDS

OFFSETS = list(COMMANDS.values())


def remembering_players(env: Any, size: int, is_endless: bool) -> Tensor:
    """Play by observations alone, with the commands written down; return the returns."""
    num_envs = env.num_envs
    seen = env.reset()["observation"]
    commands: list[list[int]] = [[] for _ in range(num_envs)]
    before, targets = [0] * num_envs, [None] * num_envs
    judged, was_fire = [0] * num_envs, [False] * num_envs
    returns, alive = torch.zeros(num_envs), torch.ones(num_envs, dtype=torch.bool)
    num_shown = torch.zeros(num_envs, dtype=torch.long)
    while alive.any() and num_shown.max() < 2_000:
        actions = []
        for index, (column, row, direction, command, safe) in enumerate(seen.tolist()):
            num_shown[index] += 1
            if command and not before[index]:
                commands[index].append(command - 1)
                if safe:  # the endless form begins again when this fire is out
                    judged[index] = -1
            before[index] = command
            if was_fire[index] and not safe:  # the fire is out: the next command
                judged[index] += 1
                targets[index] = None
            was_fire[index] = safe > 0
            target: Any = targets[index]
            if target is None and not command and judged[index] < len(commands[index]):
                offset = OFFSETS[commands[index][judged[index]]]
                target = [column + offset[0], row + offset[1]]
                target = [part % size for part in target] if is_endless else target
                targets[index] = target
            here = [column, row]
            wraps = size if is_endless else None
            action = STAY
            if target is not None and not safe:
                action = right_action(here, direction, target, wraps)
            actions.append(action)
        step = env.step(torch.tensor(actions))
        returns += step.reward * alive
        alive &= ~(step.terminated | step.truncated)
        seen = step.observation["observation"]
    return returns


def test_who_remembers_the_commands_obeys_all() -> None:
    assert remembering_players(tensors(GRID, 20), 5, False).allclose(torch.ones(20))


def test_who_remembers_obeys_to_the_limit_of_the_endless_form() -> None:
    """1 + 2 + ... + k commands fit into the steps; each is worth .1."""
    returns = remembering_players(tensors(ENDLESS, 6, env_kwargs={"max_steps": 1_000}), 6, True)
    assert (returns > 9).all()
    assert returns.max() - returns.min() < 0.01


def test_without_memory_hardly_a_command_is_obeyed() -> None:
    env = tensors(GRID, 500)
    env.reset()
    returns, num_ended = 0.0, 0
    for _ in range(200):
        step = env.step(torch.randint(4, (500,), generator=torch.Generator().manual_seed(_)))
        returns += float(step.reward.sum())
        num_ended += int(step.terminated.sum())
        assert not step.success.any()
    assert num_ended > 500
    assert returns / num_ended < 0.05


def test_the_limit_of_steps_cuts_the_endless_form() -> None:
    env = tensors(ENDLESS, 3, env_kwargs={"max_steps": 5})
    env.reset()
    for number in range(1, 11):
        step = env.step(torch.zeros(3, dtype=torch.long))
        assert step.truncated.tolist() == [number % 5 == 0] * 3
        assert not step.terminated.any()


def test_both_forms_say_success_where_there_is_one() -> None:
    assert tensors(GRID, 1).has_success
    assert not tensors(ENDLESS, 1).has_success
    assert envs.make(GRID, 1, backend="gymnasium").has_success
    assert not envs.make(ENDLESS, 1, backend="gymnasium").has_success
    single = gymnasium.make(GRID)
    single.reset(seed=0)
    info: dict[str, Any] = {}
    while "is_success" not in info:
        *_, info = single.step(1)
    assert info["is_success"] is False


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        (GRID, {"arena_size": 7}, "arena_size=7 must be a whole number from 2 to 6"),
        (GRID, {"allowed_commands": 3}, "allowed_commands=3 must be .* from 4 to 9"),
        (GRID, {"command_count": 0}, "command_count=0 must be .* from 1 to 1000"),
        (GRID, {"command_show_delay": -1}, "command_show_delay=-1 must be .* from 0 to 1000"),
        (GRID, {"explosion_delay": True}, "explosion_delay=True must be a whole number"),
        (GRID, {"max_steps": 5}, "has no option max_steps; it has arena_size, allowed_commands"),
        (GRID, {"command_cuont": 5}, "has no option command_cuont; it has arena_size, "),
        (ENDLESS, {"explosion_duration": 0}, "explosion_duration=0 must be .* from 1 to 1000"),
        (ENDLESS, {"max_steps": 0}, "max_steps=0 must be .* from 1 to 1000000000"),
    ],
)
def test_options_that_cannot_be_are_named(env_id: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.make(env_id, 1, env_kwargs=options)
