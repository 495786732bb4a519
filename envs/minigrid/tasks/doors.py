"""Tasks that are about doors: RedBlueDoors and Unlock."""

from __future__ import annotations

from minigrid.core.actions import Actions
from minigrid.core.world_object import Door
from minigrid.envs.redbluedoors import RedBlueDoorEnv
from minigrid.envs.unlock import UnlockEnv
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.minigrid.cells import OPEN
from envs.minigrid.geometry import Geometry
from envs.minigrid.tasks.task import Outcome, Task
from envs.minigrid.transition import FLIP_DOOR, Transition


class RedBlueDoors(Task):
    """Open the red door, then the blue one. Registers: red door, blue door."""

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, RedBlueDoorEnv)
        return [_position(env, door, geometry) for door in (env.red_door, env.blue_door)]

    def outcome(self, transition: Transition) -> Outcome:
        red, blue = transition.state.registers.unbind(1)
        flips = transition.effect == FLIP_DOOR
        red_is_open, blue_is_open = _is_open(transition, red), _is_open(transition, blue)
        red_was_open = red_is_open ^ (flips & (transition.front == red))
        blue_was_open = blue_is_open ^ (flips & (transition.front == blue))
        return Outcome(
            terminated=blue_is_open | (red_is_open & blue_was_open),
            success=blue_is_open & red_was_open,
        )


class Unlock(Task):
    """Open the door. Register: the door."""

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, UnlockEnv)
        return [_position(env, env.door, geometry)]

    def outcome(self, transition: Transition) -> Outcome:
        (door,) = transition.state.registers.unbind(1)
        is_open = transition.is_action(Actions.toggle) & _is_open(transition, door)
        return Outcome(terminated=is_open, success=is_open)


def _position(env: MiniGridEnv, door: Door, geometry: Geometry) -> int:
    y, x = divmod(next(i for i, thing in enumerate(env.grid.grid) if thing is door), env.width)
    return geometry.flat(x, y)


def _is_open(transition: Transition, door: Tensor) -> Tensor:
    return (transition.cell(door) >> 16 & 0xFF) == OPEN
