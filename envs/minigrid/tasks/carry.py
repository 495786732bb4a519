"""Tasks that are about carrying: pick up an object, fetch one, put one near another."""

from __future__ import annotations

from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs.blockedunlockpickup import BlockedUnlockPickupEnv
from minigrid.envs.fetch import FetchEnv
from minigrid.envs.keycorridor import KeyCorridorEnv
from minigrid.envs.obstructedmaze import ObstructedMazeEnv
from minigrid.envs.putnear import PutNearEnv
from minigrid.envs.unlockpickup import UnlockPickupEnv
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.minigrid.cells import EMPTY, SYMBOL_MASK
from envs.minigrid.geometry import Geometry
from envs.minigrid.tasks.task import Outcome, Task
from envs.minigrid.transition import DROP, Transition


class PickUp(Task):
    """Pick up an object. Register: its type and colour.

    MiniGrid asks for the object itself; in the levels of these tasks no other has its type and
    colour.
    """

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(
            env, UnlockPickupEnv | BlockedUnlockPickupEnv | KeyCorridorEnv | ObstructedMazeEnv
        )
        target = _symbol(env.obj.type, env.obj.color)
        things = [thing for thing in (*env.grid.grid, env.carrying) if thing is not None]
        things += [thing.contains for thing in things if thing.contains is not None]
        if sum(_symbol(thing.type, thing.color) == target for thing in things) > 1:
            raise ValueError(
                f"this level has two {env.obj.color} {env.obj.type}s, which tensors cannot tell "
                "apart; use backend='gymnasium', or other options"
            )
        return [target]

    def outcome(self, transition: Transition) -> Outcome:
        (target,) = transition.state.registers.unbind(1)
        has_it = transition.is_action(Actions.pickup) & (_carried(transition) == target)
        return Outcome(terminated=has_it, success=has_it)


class Fetch(Task):
    """Pick up an object of the right type and colour, and no other. Register: type and colour."""

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, FetchEnv)
        return [_symbol(env.targetType, env.targetColor)]

    def outcome(self, transition: Transition) -> Outcome:
        (target,) = transition.state.registers.unbind(1)
        return Outcome(
            terminated=transition.is_carrying,
            success=_carried(transition) == target,
        )


class PutNear(Task):
    """Drop an object within a cell of another. Registers: type and colour, the other's place.

    To pick up another object ends the episode, and so does `drop` with full hands wherever it is.
    """

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, PutNearEnv)
        symbol = _symbol(env.move_type, env.moveColor)
        return [symbol, geometry.flat(*map(int, env.target_pos))]

    def outcome(self, transition: Transition) -> Outcome:
        moved, target = transition.state.registers.unbind(1)
        is_wrong = transition.is_carrying & (_carried(transition) != moved)
        had_something = transition.carried_before != EMPTY
        distance = (transition.front - target).abs()
        is_near = (distance <= 1) | ((distance - transition.stride).abs() <= 1)
        return Outcome(
            terminated=(transition.is_action(Actions.pickup) & is_wrong)
            | (transition.is_action(Actions.drop) & had_something),
            success=(transition.effect == DROP) & is_near,
        )


def _symbol(kind: str, colour: str) -> int:
    return OBJECT_TO_IDX[kind] | COLOR_TO_IDX[colour] << 8


def _carried(transition: Transition) -> Tensor:
    return transition.state.carrying & SYMBOL_MASK
