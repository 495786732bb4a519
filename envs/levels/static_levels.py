"""Levels that never change: those of Memory, of the T-mazes and of the junctions, all of them.

Shapes: G levels of a group, N flat cells, E ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from minigrid.envs.memory import MemoryEnv as StockMemoryEnv
from minigrid.minigrid_env import MiniGridEnv

from envs.memory_tasks.junctions import JunctionsEnv, junction_columns
from envs.memory_tasks.junctions import time_limit as junctions_time_limit
from envs.memory_tasks.memory import MemoryEnv
from envs.memory_tasks.t_maze import MIDDLE, TMazeEnv, time_limit
from envs.minigrid.cells import BALL, EMPTY, KEY, WALL
from envs.minigrid.geometry import Geometry

_GREEN = 1
_GREEN_KEY, _GREEN_BALL = KEY | _GREEN << 8, BALL | _GREEN << 8


@dataclass(frozen=True)
class StaticLevels:
    """Levels with the same walls, drawn equally often; every start faces east.

    They are sorted by their cue, each number of which has as many. The second half are the levels
    of the first with another object for the last one of the cue: a ball for a key.
    """

    geometry: Geometry
    cells: np.ndarray  # (G, N) int32 words
    ends: np.ndarray  # (G, E) flat positions of the right end and of the wrong ones
    starts: list[int]  # flat positions, drawn equally often
    max_steps: int
    weight: float  # how often an episode has a level of this group
    num_cues: int = 2


STATIC_CLASSES: tuple[type[MiniGridEnv], ...] = (
    StockMemoryEnv,
    MemoryEnv,
    TMazeEnv,
    JunctionsEnv,
)
"""The environments whose levels are listed here."""

LevelGroup = Callable[[], StaticLevels]
"""Makes a group anew: the cells of large mazes are not kept."""


def static_levels(env: MiniGridEnv) -> list[LevelGroup]:
    """Return all levels of an environment of `STATIC_CLASSES`, in groups."""
    if isinstance(env, TMazeEnv):
        weight = 1 / len(env.lengths)
        return [
            partial(
                t_maze_levels,
                length,
                env.is_active,
                time_limit(length) if env.has_time_limit_of_length else env.max_steps,
                weight,
            )
            for length in env.lengths
        ]
    if isinstance(env, JunctionsEnv):
        weight = 1 / len(env.delays)
        own_limit = None if env.has_time_limit_of_delay else env.max_steps
        return [
            partial(junction_levels, delay, env.num_junctions, own_limit, weight)
            for delay in env.delays
        ]
    assert isinstance(env, StockMemoryEnv)
    sizes, starts_at_cue, max_steps = (env.size,), False, env.max_steps
    if isinstance(env, MemoryEnv):
        sizes, starts_at_cue = env.sizes, env.starts_at_cue
        max_steps = None if env.has_time_limit_of_size else env.max_steps
    groups: list[LevelGroup] = []
    for size in sizes:
        hallway_ends = range(4, size - 2) if env.random_length else [size - 3]
        weight = 1 / (len(sizes) * len(hallway_ends))
        limit = max_steps or 5 * size**2
        groups += [
            partial(memory_levels, size, end, starts_at_cue, limit, weight) for end in hallway_ends
        ]
    return groups


def memory_levels(
    size: int, hallway_end: int, starts_at_cue: bool, max_steps: int, weight: float
) -> StaticLevels:
    """Return the four levels of MiniGrid's Memory with a hallway (cue, order of the ends)."""
    middle, ends_x = size // 2, hallway_end + 1
    walls = np.full((size, size), EMPTY, dtype=np.int32)
    walls[[0, -1], :] = walls[:, [0, -1]] = WALL
    walls[[middle - 2, middle + 2], 1:5] = WALL  # the first room
    walls[[middle - 1, middle + 1], 4:hallway_end] = WALL
    walls[np.arange(size) != middle, hallway_end] = WALL
    walls[:, hallway_end + 2] = WALL
    geometry = Geometry(size, size)
    up, down = geometry.flat(ends_x, middle - 1), geometry.flat(ends_x, middle + 1)
    words, ends = [], []
    for cue in (_GREEN_KEY, _GREEN_BALL):
        for top, bottom in ((_GREEN_BALL, _GREEN_KEY), (_GREEN_KEY, _GREEN_BALL)):
            level = walls.copy()
            level[middle - 1, 1] = cue
            level[middle - 2, ends_x], level[middle + 2, ends_x] = top, bottom
            words.append(level)
            ends.append((up, down) if cue == top else (down, up))
    starts = range(1, 2 if starts_at_cue else hallway_end + 1)
    return StaticLevels(
        geometry,
        geometry.pad(np.stack(words)),
        np.array(ends),
        [geometry.flat(x, middle) for x in starts],
        max_steps,
        weight,
    )


def t_maze_levels(
    length: int, is_active: bool, max_steps: int, weight: float = 1.0
) -> StaticLevels:
    """Return the two levels of a T-maze (a key, a ball)."""
    junction = length + 1
    walls = np.full((2 * MIDDLE + 1, length + 3), WALL, dtype=np.int32)
    walls[MIDDLE, 1:junction] = EMPTY
    walls[MIDDLE - 1 : MIDDLE + 2, junction] = EMPTY
    geometry = Geometry(length + 3, 2 * MIDDLE + 1)
    up, down = geometry.flat(junction, MIDDLE - 1), geometry.flat(junction, MIDDLE + 1)
    words = np.stack([walls, walls])
    words[:, MIDDLE - 1, 1] = _GREEN_KEY, _GREEN_BALL
    return StaticLevels(
        geometry,
        geometry.pad(words),
        np.array([(up, down), (down, up)]),
        [geometry.flat(2 if is_active else 1, MIDDLE)],
        max_steps,
        weight,
    )


def junction_levels(
    delay: int, num_junctions: int, max_steps: int | None = None, weight: float = 1.0
) -> StaticLevels:
    """Return the levels of a number of junctions: all combinations of keys and balls.

    The number of a level is that of its cue: bit i is 1 where the i-th object is a ball.
    """
    columns = np.array(junction_columns(delay, num_junctions))
    last, num_levels = int(columns[-1]), 1 << num_junctions
    walls = np.full((2 * MIDDLE + 1, last + 2), WALL, dtype=np.int32)
    walls[MIDDLE, 1 : last + 1] = EMPTY
    walls[[MIDDLE - 1, MIDDLE + 1], columns[0] : last + 1] = EMPTY
    walls[MIDDLE, columns + 1] = WALL
    is_ball = (np.arange(num_levels)[:, None] >> np.arange(num_junctions) & 1).astype(bool)
    words = np.repeat(walls[None], num_levels, axis=0)
    words[:, MIDDLE - 1, 1 : num_junctions + 1] = np.where(is_ball, _GREEN_BALL, _GREEN_KEY)
    geometry = Geometry(last + 2, 2 * MIDDLE + 1)
    middle = geometry.flat(columns, np.full_like(columns, MIDDLE))
    up, down = middle - geometry.stride, middle + geometry.stride
    right, wrong = np.where(is_ball, down, up), np.where(is_ball, up, down)
    return StaticLevels(
        geometry,
        geometry.pad(words),
        np.concatenate([right[:, -1:], wrong], axis=1),
        [geometry.flat(1, MIDDLE)],
        max_steps or junctions_time_limit(delay, num_junctions),
        weight,
        num_cues=num_levels,
    )
