"""The interface of a task: what it adds to the rules that every MiniGrid task shares."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Int64
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor, nn

from envs.counter_random import CounterRandom
from envs.minigrid.geometry import Geometry
from envs.minigrid.transition import GridState, Mechanics, Transition


class Outcome(NamedTuple):
    """How a step of B envs ended."""

    terminated: Bool[Tensor, " B"]
    success: Bool[Tensor, " B"]  # rewarded with 1 - 0.9 step_count / max_steps
    penalty: Bool[Tensor, " B"] | None = None  # rewarded with -1


class Task(nn.Module):
    """Reach the goal, and do not step into lava: MiniGrid's own rules and nothing more.

    Attributes:
        changes_cells: whether an action can change a cell, or what the agent carries.
    """

    changes_cells = True

    def registers(self, env: MiniGridEnv, geometry: Geometry) -> list[int]:
        """Return the numbers that the rules need of an episode; always as many.

        Positions are flat (`Geometry.flat`). They are read at any step of an episode.
        """
        return []

    def step_(
        self,
        mechanics: Mechanics,
        state: GridState,
        action: Int64[Tensor, " B"],
        random: CounterRandom,
    ) -> tuple[GridState, Outcome]:
        """Return the state after an action, and how the step ended.

        Writes `state.cells` in place.

        Args:
            mechanics: the rules that every task shares.
            state: before the action.
            action: 0 to 6.
            random: of the episode, for tasks in which something moves by itself.
        """
        transition = mechanics(state, action, self.changes_cells)
        return transition.state, self.outcome(transition)

    def outcome(self, transition: Transition) -> Outcome:
        """Return how a step ended; the time limit is not the task's matter."""
        return Outcome(transition.ends, transition.reaches_goal)
