"""Go to something and say `done`: GoToDoor and GoToObject."""

from __future__ import annotations

from minigrid.core.actions import Actions
from minigrid.envs.gotodoor import GoToDoorEnv
from minigrid.envs.gotoobject import GoToObjectEnv
from minigrid.minigrid_env import MiniGridEnv

from envs.minigrid.geometry import Geometry
from envs.minigrid.tasks.task import Outcome, Task
from envs.minigrid.transition import Transition


class GoTo(Task):
    """Say `done` beside the target; `toggle` ends the episode too. Register: the target.

    As in MiniGrid, the target of GoToObject is where the object was at first, also after somebody
    has carried it away.
    """

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        assert isinstance(env, GoToDoorEnv | GoToObjectEnv)
        return [geometry.flat(*map(int, env.target_pos))]

    def outcome(self, transition: Transition) -> Outcome:
        (target,) = transition.state.registers.unbind(1)
        is_done = transition.is_action(Actions.done)
        return Outcome(
            terminated=is_done | transition.is_action(Actions.toggle),
            success=is_done & transition.is_beside(target),
        )
