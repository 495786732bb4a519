"""Tasks with a right end and wrong ones: Memory, the T-mazes and the junctions."""

from __future__ import annotations

from minigrid.envs.memory import MemoryEnv as StockMemoryEnv
from minigrid.minigrid_env import MiniGridEnv

from envs.memory_tasks.t_maze import CorridorEnv
from envs.minigrid.geometry import Geometry
from envs.minigrid.tasks.task import Outcome, Task
from envs.minigrid.transition import Transition


class Ends(Task):
    """Go to the right end; a wrong one ends the episode too. Registers: right, then the wrong ones.

    Nothing can be picked up: MiniGrid's Memory takes `pickup` for `toggle`, which does nothing to a
    key or a ball. So no cell ever changes.
    """

    changes_cells = False

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, StockMemoryEnv | CorridorEnv)
        wrong = env.failure_positions if isinstance(env, CorridorEnv) else [env.failure_pos]
        return [geometry.flat(*map(int, end)) for end in (env.success_pos, *wrong)]

    def outcome(self, transition: Transition) -> Outcome:
        registers = transition.state.registers  # (B, right and wrong ends)
        is_there = transition.state.position.unsqueeze(1) == registers
        return Outcome(terminated=is_there.any(dim=1), success=is_there[:, 0])
