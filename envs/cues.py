"""Which cue a single Gymnasium environment shows, where its task has one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.envs.memory import MemoryEnv
from minigrid.minigrid_env import MiniGridEnv

from envs.t_maze import MIDDLE, TMazeEnv

CUES = [OBJECT_TO_IDX["key"], OBJECT_TO_IDX["ball"]]


def has_cue(env: gymnasium.Env) -> bool:
    """Return whether it is known when the environment shows a cue.

    It is for MiniGrid's Memory, for our own tasks, and for an environment with an attribute
    `cue_in_view` of its class: the number of the cue that its last observation shows, -1 for none.
    """
    # of the class: before the first reset there is no cue yet
    return isinstance(env, MemoryEnv | TMazeEnv) or hasattr(type(env), "cue_in_view")


def cue_in_view(env: Any, image: np.ndarray | None) -> int:
    """Return the number of the cue in view, or -1.

    Args:
        env: for which `has_cue`.
        image: of its last observation, MiniGrid's (7, 7, 3).
    """
    if not isinstance(env, MiniGridEnv):
        return int(env.cue_in_view)
    assert image is not None
    row = MIDDLE if isinstance(env, TMazeEnv) else env.height // 2
    place = env.relative_coords(1, row - 1)
    symbol = image[place][0] if place else 0
    return CUES.index(symbol) if symbol in CUES else -1
