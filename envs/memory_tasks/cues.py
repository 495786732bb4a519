"""Which cue a single Gymnasium environment shows, where its task has one."""

from __future__ import annotations

from typing import Any

import gymnasium
from minigrid.envs.memory import MemoryEnv

from envs.memory_tasks.t_maze import MIDDLE, TMazeEnv

CUES = ["key", "ball"]


def has_cue(env: gymnasium.Env) -> bool:
    """Return whether it is known when the environment, without its wrappers, shows a cue.

    It is for MiniGrid's Memory, for our own tasks, and for an environment with an attribute
    `cue_in_view` of its class: the number of the cue that its last observation shows, -1 for none.
    """
    # of the class: before the first reset there is no cue yet
    return hasattr(type(env), "cue_in_view") or isinstance(env, MemoryEnv | TMazeEnv)


def cue_in_view(env: Any) -> int:
    """Return the number of the cue in view, or -1, of an environment that `has_cue`."""
    if hasattr(type(env), "cue_in_view"):
        return int(env.cue_in_view)
    row = MIDDLE if isinstance(env, TMazeEnv) else env.height // 2
    place = 1, row - 1
    cue = env.grid.get(*place)
    assert cue is not None
    return CUES.index(cue.type) if env.agent_sees(*place) else -1
