"""A scripted player of stock Minigrid tasks that sees the whole state.

Tests use it to reach the success paths that random play never reaches. It is closed-loop: it keeps
nothing between calls and plans anew from the state it finds, so that it may share an episode with
another player. Where it can, it chooses by what does not change as it walks, lest it undo in one
call what it did in the one before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Set

import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.world_object import Box, Door, Goal, Key, Lava, WorldObj
from minigrid.envs.dynamicobstacles import DynamicObstaclesEnv
from minigrid.envs.fetch import FetchEnv
from minigrid.envs.gotodoor import GoToDoorEnv
from minigrid.envs.gotoobject import GoToObjectEnv
from minigrid.envs.memory import MemoryEnv
from minigrid.envs.putnear import PutNearEnv
from minigrid.envs.redbluedoors import RedBlueDoorEnv
from minigrid.envs.unlock import UnlockEnv
from minigrid.minigrid_env import MiniGridEnv

from envs.memory_tasks.junctions import JunctionsEnv

Cell = tuple[int, int]

DIRECTIONS: tuple[Cell, ...] = ((1, 0), (0, 1), (-1, 0), (0, -1))  # by agent_dir
CLOSED_COST = 2  # a step and a toggle
MOVABLE_COST = 300  # more than any detour
# Far more than any walk and, per place of the door, again more than any walk: which of two locked
# doors is cheaper must not depend on where the player is, or it would turn back half-way to a key.
LOCKED_COST = 1_000_000
LOCKED_PLACE_COST = 1_000

# Picking up what is not asked for ends the episode, or is impossible.
IMMOVABLE_TASKS = (FetchEnv, PutNearEnv, MemoryEnv, GoToDoorEnv, DynamicObstaclesEnv)


def next_action(env: MiniGridEnv) -> int:
    """The next action toward success; a turn, which does no harm, where there is no plan."""
    action = _plan(env, _Planner(env))
    return int(Actions.left if action is None else action)


def _plan(env: MiniGridEnv, planner: _Planner) -> Actions | None:
    """The task of `env`, told to the planner as cells to reach and what to do there."""
    wanted = getattr(env, "obj", None)  # of UnlockPickup, KeyCorridor and ObstructedMaze
    if wanted is not None:
        return planner.pursue(planner.find(lambda thing: thing is wanted), Actions.pickup)
    if isinstance(env, FetchEnv):
        return planner.pursue(planner.find_kind(env.targetType, env.targetColor), Actions.pickup)
    if isinstance(env, PutNearEnv):
        return _plan_put_near(env, planner)
    if isinstance(env, UnlockEnv):
        return planner.pursue(planner.find(lambda thing: thing is env.door), Actions.toggle)
    if isinstance(env, RedBlueDoorEnv):
        door = env.blue_door if env.red_door.is_open else env.red_door
        blue = planner.find(lambda thing: thing is env.blue_door)
        return planner.pursue(planner.find(lambda thing: thing is door), Actions.toggle, blue)
    if isinstance(env, GoToDoorEnv | GoToObjectEnv):
        doors = planner.find(lambda thing: isinstance(thing, Door))  # a toggle ends the episode
        return planner.pursue({_cell(env.target_pos)}, Actions.done, doors)
    if isinstance(env, MemoryEnv):
        failure = {_cell(env.failure_pos)}
        return planner.pursue({_cell(env.success_pos)}, Actions.forward, failure)
    if isinstance(env, JunctionsEnv):
        failures = {_cell(place) for place in env.failure_positions}
        return planner.pursue({_cell(env.success_pos)}, Actions.forward, failures)
    return planner.pursue(planner.find(lambda thing: isinstance(thing, Goal)), Actions.forward)


def _plan_put_near(env: PutNearEnv, planner: _Planner) -> Actions | None:
    if planner.carrying is None:
        return planner.pursue(planner.find_kind(env.move_type, env.moveColor), Actions.pickup)
    x, y = _cell(env.target_pos)
    nearby = {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
    return planner.pursue(nearby & planner.empty_cells(), Actions.drop)


def _cell(position: np.ndarray | tuple[int, int]) -> Cell:
    return int(position[0]), int(position[1])  # Minigrid also keeps positions as arrays


def _neighbors(cell: Cell) -> list[Cell]:
    return [(cell[0] + dx, cell[1] + dy) for dx, dy in DIRECTIONS]


def _contains_key(thing: WorldObj | None, color: str) -> bool:
    return isinstance(thing, Box) and _is_key(thing.contains, color)


def _is_key(thing: WorldObj | None, color: str) -> bool:
    return isinstance(thing, Key) and thing.color == color


class _Planner:
    """Finds the way to a cell, and first whatever is needed to clear that way."""

    def __init__(self, env: MiniGridEnv):
        self.width = env.width
        self.position = _cell(env.agent_pos)
        self.direction = int(env.agent_dir)
        self.carrying = env.carrying
        self.can_move_things = not isinstance(env, IMMOVABLE_TASKS)
        self.things: dict[Cell, WorldObj | None] = {
            (index % env.width, index // env.width): thing
            for index, thing in enumerate(env.grid.grid)
        }
        self.free = {
            cell
            for cell, thing in self.things.items()
            if thing is None or (thing.can_overlap() and not isinstance(thing, Lava))
        }

    def find(self, matches: Callable[[WorldObj], bool]) -> set[Cell]:
        return {cell for cell, thing in self.things.items() if thing is not None and matches(thing)}

    def find_kind(self, kind: str, color: str) -> set[Cell]:
        return self.find(lambda thing: (thing.type, thing.color) == (kind, color))

    def empty_cells(self) -> set[Cell]:
        return {cell for cell, thing in self.things.items() if thing is None} - {self.position}

    def pursue(
        self,
        targets: Set[Cell],
        final_action: Actions,
        barred: Set[Cell] = frozenset(),
        keep_clear: Set[Cell] = frozenset(),
    ) -> Actions | None:
        """The next action toward `final_action` in front of the nearest target, None without a way.

        The way does not cross barred cells; things are put down outside the cells to keep clear.
        The final action `forward` enters the target.
        """
        while (path := self._find_path(targets, barred)) is not None:
            path_clear = keep_clear | set(path)
            way = self._until_obstacle(path)
            action = final_action if len(way) == len(path) else Actions.pickup
            obstacle = self.things[way[-1]]
            if isinstance(obstacle, Door) and obstacle.is_locked:
                action = Actions.toggle
                if not _is_key(self.carrying, obstacle.color):
                    barred = barred | {way[-1]}  # its key is not behind it
                    if (action := self._fetch_key(obstacle.color, barred, path_clear)) is None:
                        continue
                    return action
            if action == Actions.pickup and self.carrying is not None:
                return self._drop_aside(path_clear, way)
            return self._approach(way, action)
        return None

    def _fetch_key(self, color: str, barred: Set[Cell], keep_clear: Set[Cell]) -> Actions | None:
        if _contains_key(self.carrying, color):
            return self._drop_aside(keep_clear, [])  # a box opens only on the floor
        action = self.pursue(self.find_kind("key", color), Actions.pickup, barred, keep_clear)
        if action is None:
            boxes = self.find(lambda thing: _contains_key(thing, color))
            action = self.pursue(boxes, Actions.toggle, barred, keep_clear)
        return action

    def _drop_aside(self, keep_clear: Set[Cell], way: list[Cell]) -> Actions:
        """Drops what is carried where it parts nothing; else, in a corridor, off the way."""
        harmless = {cell for cell in self.empty_cells() if self._parts_nothing(cell)}
        # The harmless cells come first since they, unlike the way, do not change with each step.
        for cells in (harmless, self.empty_cells() - keep_clear):
            path = self._find_path(cells, frozenset())
            if path is not None and self._until_obstacle(path) == path:
                return self._approach(path, Actions.drop)
        # All there is lies ahead: go there, and what then lies behind is off the way.
        return self._approach(way, Actions.left) if way else Actions.left

    def _parts_nothing(self, cell: Cell) -> bool:
        """Whether all around an empty cell stays reachable once something lies there."""
        x, y = cell
        free = {(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)} & self.free - {cell}
        if len(free) == 8:
            return True
        around = _neighbors(cell)
        for neighbor in around:
            thing = self.things.get(neighbor)
            if isinstance(thing, Door):
                return False
            is_cornered = not self.free & set(_neighbors(neighbor)) - {cell}
            if thing is not None and thing.can_pickup() and is_cornered:
                return False
        entries = free & set(around)
        connected = set(list(entries)[:1])
        while grown := {n for c in connected for n in _neighbors(c)} & free - connected:
            connected |= grown
        return entries <= connected

    def _approach(self, path: list[Cell], final_action: Actions) -> Actions:
        """Follows a path without obstacles; acts in front of its last cell."""
        x, y = self.position
        toward = DIRECTIONS.index((path[0][0] - x, path[0][1] - y))
        if toward != self.direction:
            return Actions.left if (self.direction - toward) % 4 == 1 else Actions.right
        if len(path) == 1:
            return final_action
        return Actions.forward if path[0] in self.free else Actions.toggle  # a closed door

    def _find_path(self, targets: Set[Cell], barred: Set[Cell]) -> list[Cell] | None:
        """Dijkstra's cheapest path to a target, without the player's cell; crosses obstacles."""
        targets = targets - {self.position}
        if not targets:
            return None
        costs = {self.position: 0}
        previous: dict[Cell, Cell] = {}
        frontier = [(0, self.position)]
        while frontier:
            cost, cell = heapq.heappop(frontier)
            if cell in targets:
                path = [cell]
                while previous[path[-1]] != self.position:
                    path.append(previous[path[-1]])
                return path[::-1]
            if cost > costs[cell]:
                continue
            for neighbor in _neighbors(cell):
                # What stands on a target costs nothing: it is acted on, not crossed.
                step = 1 if neighbor in targets else self._crossing_cost(neighbor, barred)
                if step is None or cost + step >= costs.get(neighbor, cost + step + 1):
                    continue
                costs[neighbor] = cost + step
                previous[neighbor] = cell
                heapq.heappush(frontier, (cost + step, neighbor))
        return None

    def _crossing_cost(self, cell: Cell, barred: Set[Cell]) -> int | None:
        """Roughly the number of actions to cross a cell, None where that is impossible."""
        if cell in barred:
            return None
        if cell in self.free:
            return 1
        thing = self.things.get(cell)
        if isinstance(thing, Door):
            if thing.is_locked and not _is_key(self.carrying, thing.color):
                return LOCKED_COST + LOCKED_PLACE_COST * (cell[1] * self.width + cell[0])
            return CLOSED_COST
        is_movable = thing is not None and thing.can_pickup() and self.can_move_things
        return MOVABLE_COST if is_movable else None

    def _until_obstacle(self, path: list[Cell]) -> list[Cell]:
        """The path up to the first locked door or thing to carry aside."""
        for index, cell in enumerate(path):
            thing = self.things[cell]
            if thing and (thing.can_pickup() or (isinstance(thing, Door) and thing.is_locked)):
                return path[: index + 1]
        return path
