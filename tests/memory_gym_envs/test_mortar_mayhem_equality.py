"""Mortar Mayhem as tensors against the package: pip install --no-deps memory-gym==1.0.2.

(Its own requirements are of other versions of Gymnasium and NumPy; pygame comes with MiniGrid.)
Every step of whole episodes by players of all skills. The endless form is compared with Memory
Gym's own rules, of which only the way to move is another: by tiles.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from chi_squared import are_alike
from mortar_player import ENDLESS, GRID, STAY, right_action, tensors

from envs.memory_gym.mortar_mayhem import (
    COMMANDS,
    DIRECTIONS,
    FORWARD,
    TURN_LEFT,
    TURN_RIGHT,
    EndlessMortarMayhemGrid,
)

grid_module = pytest.importorskip(
    "memory_gym.mortar_mayhem_grid", reason="pip install --no-deps memory-gym==1.0.2"
)
endless_module = pytest.importorskip("memory_gym.endless_mortar_mayhem")

SKILLS = (0.5, 0.9, 0.97, 1.0, 1.0, 1.0)
"""How often each env's player does what is right."""
NAMES = list(COMMANDS)


def action_of(single: Any, env: Any) -> int:
    """Return what a player who sees everything does."""
    place = [int(part) for part in single.normalized_agent_position]
    target = [int(part) for part in single._target_pos]
    size = None if env.task.has_success else env.task.arena_size
    return right_action(place, single.agent.rotation // 90, target, size)


def play(env: Any, singles: list[Any], seed: int, max_steps: int = 10**6) -> Counter[str]:
    """Compare every step until each episode has ended; return how they did."""
    rng = np.random.default_rng(seed)
    is_playing = [True] * len(singles)
    ends: Counter[str] = Counter()
    for _ in range(max_steps):
        actions = []
        for index, single in enumerate(singles):
            action = action_of(single, env)
            is_right = rng.random() < SKILLS[index % len(SKILLS)]
            actions.append(action if is_right else int(rng.integers(4)))
        step = env.step(torch.tensor(actions))
        for index in np.flatnonzero(is_playing):
            single, is_over = singles[index], bool(step.terminated[index])
            shows = bool(single._command_visualization)
            shown = single._command_visualization[0] if shows else ""
            _, reward, done, _, info = single.step(actions[index])
            np.testing.assert_allclose(step.reward[index], np.float32(reward), 0, 1e-7)
            assert is_over == bool(done)
            assert not step.truncated[index]
            fields = step.final_observation if is_over else step.observation
            assert fields is not None
            seen = fields["observation"][index].tolist()
            assert seen[:2] == [int(part) for part in single.normalized_agent_position]
            assert seen[2] == single.agent.rotation // 90
            assert seen[3] == (1 + NAMES.index(shown) if shown else 0)
            column, row = (int(part) for part in single._target_pos)
            safe = 1 + column * env.task.arena_size + row
            assert seen[4] == (safe if single.arena.tiles_on else 0)
            if is_over:
                is_playing[index] = False
                ends["ended"] += 1
                ends["obeyed"] += round(10 * info["reward"])
                if env.task.has_success:  # theirs says it also where the last command was failed
                    is_success = bool(info["success"]) and reward > 0
                    assert bool(step.success[index]) == is_success
                    ends["success"] += is_success
                    ends["failed at the last"] += bool(info["success"]) and not is_success
        if not any(is_playing):
            break
    return ends


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"arena_size": 2, "allowed_commands": 9, "command_count": 3},
        {"arena_size": 6, "allowed_commands": 9, "explosion_delay": 5, "explosion_duration": 1},
        {"command_show_duration": 1, "command_show_delay": 0, "explosion_duration": 5},
        {"explosion_delay": 1, "allowed_commands": 5, "arena_size": 3, "command_count": 4},
    ],
)
def test_steps_equal_memory_gyms(options: dict[str, int]) -> None:
    lists = ("command_count", "command_show_duration", "command_show_delay")
    lists += ("explosion_duration", "explosion_delay")
    resets = {name: [value] if name in lists else value for name, value in options.items()}
    singles = [grid_module.GridMortarMayhemEnv() for _ in range(12)]
    env = tensors(GRID, len(singles), env_kwargs=options)
    env.keeps_final = True
    rng = np.random.default_rng(0)
    ends: Counter[str] = Counter()
    num_in_fire = 0
    for round_ in range(3):
        for index, single in enumerate(singles):
            single.reset(seed=100 * round_ + index, options=resets)
            # also from the middle: while commands are shown, on the way, in the fire
            for _ in range(round_ * int(rng.integers(env.task.num_steps // 2))):
                if single.step(action_of(single, env))[2]:
                    single.reset(options=resets)
        num_in_fire += sum(single.arena.tiles_on for single in singles)
        seen = env.load(singles)["observation"]
        assert env.observation_space["observation"].contains(seen[0].numpy())
        ends += play(env, singles, round_)
    assert ends["ended"] == 3 * len(singles)
    assert num_in_fire
    if options.get("explosion_delay") != 1:  # there nobody is in time
        assert ends["success"] >= 3
        assert ends["ended"] - ends["success"] >= 3


class ByTiles:
    """The character of the endless form, moved by tiles."""

    def __init__(self, speed: float, scale: float):
        self.tile, self.rotation = round(56 * 0.25), 0
        self.rect = SimpleNamespace(center=(0, 0))

    def get_rotated_sprite(self, angle: int) -> tuple[None, Any]:
        return None, self.rect

    def step(self, action: int, boundary_rect: Any = None) -> tuple[None, Any]:
        turn = (action == TURN_LEFT) - (action == TURN_RIGHT)
        self.rotation = (self.rotation + 90 * turn) % 360
        if action == FORWARD:
            step = DIRECTIONS[self.rotation // 90]
            self.rect.center = tuple(
                (here + self.tile * part) % 84
                for here, part in zip(self.rect.center, step, strict=True)
            )
        return None, self.rect


@pytest.mark.parametrize("options", [{}, {"explosion_duration": 3, "command_show_delay": 0}])
def test_endless_rules_equal_memory_gyms(
    options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endless_module, "ScreenWrapCharacterController", ByTiles)
    singles = [endless_module.EndlessMortarMayhemEnv() for _ in range(12)]
    env = tensors(ENDLESS, len(singles), env_kwargs=options)
    task = env.task
    assert isinstance(task, EndlessMortarMayhemGrid)
    env.keeps_final = True
    env.reset()
    given = {"explosion_duration": 2, "explosion_delay": 6, **options}
    resets = {name: [value] for name, value in given.items()}
    for index, single in enumerate(singles):
        state = {name: value[index : index + 1] for name, value in env._buffers.items()}
        numbers = iter(range(10**6))

        def commands(count: int, state: Any = state, numbers: Any = numbers) -> list[str]:
            drawn = [torch.tensor([next(numbers)]) for _ in range(count)]
            return [NAMES[int(task.command(state, number))] for number in drawn]

        single._generate_commands = commands
        state["deal"] = state["deal"].clone()  # of this episode, also after it
        single.reset(seed=index, options=resets)
        for name, value in (
            ("place", single.normalized_agent_position),
            ("target", single._target_pos),
        ):
            state[name].copy_(torch.tensor([[int(part) for part in value]]))
    ends = play(env, singles, seed=0, max_steps=700)
    assert ends["ended"] >= 3
    alive = [single for single in singles if len(single._commands) > 8]
    assert len(alive) >= 5  # they obeyed 36 commands and more


def test_starts_are_distributed_as_memory_gyms() -> None:
    """The tile, and the first and last commands, of which none leads into a wall."""
    env = tensors(GRID, 4_000, seed=1, env_kwargs={"arena_size": 3, "allowed_commands": 9})
    env.reset()
    single = grid_module.GridMortarMayhemEnv()
    single.reset(seed=0, options={"arena_size": 3, "allowed_commands": 9})
    theirs: Counter[Any] = Counter()
    last: Counter[Any] = Counter()
    for _ in range(4_000):
        single.reset(options={"arena_size": 3, "allowed_commands": 9})
        place = tuple(int(part) for part in single.normalized_agent_position)
        commands = [NAMES.index(name) for name in single._commands]
        theirs[place, commands[0]] += 1
        last[tuple(commands[-2:])] += 1
    state = env.state_dict()
    places, commands = state["place"].tolist(), state["commands"].tolist()
    ours = Counter((tuple(place), drawn[0]) for place, drawn in zip(places, commands, strict=True))
    assert are_alike(ours, theirs)
    assert are_alike(Counter(tuple(drawn[-2:]) for drawn in commands), last)


def test_load_names_what_does_not_fit() -> None:
    env, single = tensors(GRID, 1), grid_module.GridMortarMayhemEnv()
    with pytest.raises(ValueError, match="an environment without an episode; reset"):
        env.load([single])
    single.reset(seed=0, options={"command_count": [4]})
    with pytest.raises(ValueError, match=r"command_count=4\), but this batch is .*count=10"):
        env.load([single])
    single.reset(seed=0, options={"command_count": [4, 10]})
    with pytest.raises(ValueError, match=r"'command_count': \[4, 10\].*one number"):
        env.load([single])
    single.reset(seed=0, options={"reward_command_success": 1.0})
    with pytest.raises(ValueError, match=r"'reward_command_success': 1.0.*but here it is"):
        env.load([single])
    single.reset(seed=0, options={"arena_size": np.int64(5)})
    env.load([single])
    for _ in range(200):
        if single.step(STAY)[2]:
            break
    with pytest.raises(ValueError, match="an environment without an episode; reset"):
        env.load([single])
    with pytest.raises(ValueError, match="but this batch is of Memory Gym's GridMortarMayhemEnv"):
        env.load([env.prototype])
    with pytest.raises(ValueError, match=r"Memory Gym has no EndlessMortarMayhemGrid .*use reset"):
        tensors(ENDLESS, 1).load([single])
