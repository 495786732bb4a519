"""Tasks with a right and a wrong end: Memory and the T-mazes."""

from __future__ import annotations

from minigrid.envs.memory import MemoryEnv as StockMemoryEnv
from minigrid.minigrid_env import MiniGridEnv

from envs.geometry import Geometry
from envs.t_maze import TMazeEnv
from envs.tasks.task import Outcome, Task
from envs.transition import Transition


class TwoEnds(Task):
    """Go to the right end; the wrong one ends the episode too. Registers: right, wrong.

    Nothing can be picked up: MiniGrid's Memory takes `pickup` for `toggle`, which does nothing to a
    key or a ball. So no cell ever changes.
    """

    changes_cells = False

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, StockMemoryEnv | TMazeEnv)
        return [geometry.flat(*map(int, end)) for end in (env.success_pos, env.failure_pos)]

    def outcome(self, transition: Transition) -> Outcome:
        right, wrong = transition.state.registers.unbind(1)
        position = transition.state.position
        is_right = position == right
        return Outcome(terminated=is_right | (position == wrong), success=is_right)
