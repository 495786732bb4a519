"""Memory, T-mazes and junctions as a table: a step is a few look-ups. Shapes: B envs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.batched_env import Observation
from envs.counter_random import CounterRandom
from envs.grids.minigrid_tensor_env import MiniGridTensorEnv
from envs.grids.table import FAILURE, SUCCESS, Atlas
from envs.levels.level import read_level
from envs.levels.static_levels import static_levels
from envs.minigrid.cells import unpack_grid
from envs.minigrid.geometry import Geometry
from envs.minigrid.tasks.task import Outcome
from envs.minigrid.transition import NUM_ACTIONS

EPISODES_AHEAD = 16


class TableEnv(MiniGridTensorEnv):
    """Environments whose levels never change."""

    has_cue = True

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        super()._set_up(level_seeds)
        self._atlas = Atlas(static_levels(self.prototype))
        self._table = self._atlas.table.to(self.device)
        if level_seeds is not None:
            starts = [self._read_seed(seed) for seed in level_seeds]
            self._table.starts, self._table.start_max_steps = torch.tensor(
                starts, device=self.device
            ).unbind(1)
        self._buffers["state"] = torch.zeros_like(self._every_row)
        self._ahead: dict[str, Tensor] = {}
        self._taken = torch.zeros_like(self._every_row)

    @property
    def start_shares(self) -> Float[Tensor, " Q"]:
        """How often an episode begins at each of the starts; on the host."""
        limits = self._atlas.table.start_limits
        counts = torch.diff(limits, prepend=limits.new_zeros(1))
        return counts.double() / counts.sum()

    def play_each_start(self) -> None:
        """Let the k-th episode of env i have start i + k B, from the first again after the last."""
        self._has_level_seeds = True
        self._prepare_episodes()

    def load(self, gym_envs: Sequence[MiniGridEnv]) -> Observation:
        self._check_loadable(gym_envs)
        names = ("state", "max_steps", "step_count")
        columns = torch.tensor([self._read(env) for env in gym_envs]).unbind(1)
        for name, column in zip(names, columns, strict=True):
            self._buffers[name].copy_(column)
        self._prepare_episodes()
        self._has_episodes = True
        return self._observe()

    def restore_prototype(self, index: int) -> None:
        state = int(self._buffers["state"][index])
        levels, number, position = self._atlas.level_of(state)
        env, geometry = self.prototype, levels.geometry
        env.width, env.height = geometry.width, geometry.height
        env.grid = unpack_grid(geometry.crop(levels.cells[number]))
        env.agent_pos = geometry.point(position)
        env.agent_dir = state & 3
        env.carrying = None
        env.step_count = int(self._buffers["step_count"][index])

    def missions(self, rows: Sequence[int]) -> list[str]:
        return [self.prototype.mission] * len(rows)

    def _read(self, env: MiniGridEnv) -> tuple[int, int, int]:
        """Return state, max_steps and step_count of an episode."""
        geometry = Geometry(env.grid.width, env.grid.height)
        level = read_level(env, self._maker.task, geometry)
        state = self._atlas.find(level.cells, level.registers, level.position, level.direction)
        if state is None or env.carrying is not None:
            raise ValueError(
                f"load was given a {type(env).__name__} in a state that none of this batch's "
                "levels has; pass environments of the same id and options, stepped by actions only"
            )
        return state, level.max_steps, level.step_count

    def _read_seed(self, seed: int) -> tuple[int, int]:
        self.prototype.reset(seed=int(seed))
        return self._read(self.prototype)[:2]

    def _prepare_episodes(self) -> None:
        self._ahead = {}  # what was drawn ahead is not played

    def _move_(self, actions: Int64[Tensor, " B"]) -> Outcome:
        state = self._buffers["state"]
        row = torch.add(actions, state, alpha=NUM_ACTIONS)
        after = self._table.after.index_select(0, row)
        self._buffers["step_count"] += 1
        torch.bitwise_and(after, FAILURE - 1, out=state)
        return Outcome(terminated=after >= FAILURE, success=after >= SUCCESS)

    def _cue_in_view(self) -> Int64[Tensor, " B"]:
        return self._table.cue.index_select(0, self._buffers["state"]).long()

    def _observe(self, rows: Int64[Tensor, " n"] | None = None) -> Observation:
        state = self._buffers["state"] if rows is None else self._buffers["state"][rows]
        number = self._table.observation.index_select(0, state)
        return {
            "image": self._table.images.index_select(0, number),
            "direction": state & 3,
        }

    def _first_state(self, rows: Int64[Tensor, " n"]) -> dict[str, Tensor]:
        start = self._starts(rows, self._buffers["episode"][rows])
        return {
            "state": self._table.starts.index_select(0, start),
            "max_steps": self._table.start_max_steps.index_select(0, start),
            "step_count": torch.zeros_like(start),
        }

    def _autoreset_(
        self, done: Bool[Tensor, " B"], truncated: Bool[Tensor, " B"]
    ) -> tuple[Observation, Observation | None]:
        if not self._on_host:
            return super()._autoreset_(done, truncated)
        if not self._ahead or int(self._taken.max()) == EPISODES_AHEAD:
            self._draw_ahead()
        final = self._observe() if self.keeps_final or bool(truncated.any()) else None
        buffers, taken = self._buffers, self._taken.unsqueeze(0)
        for name, ahead in self._ahead.items():
            first = ahead.gather(0, taken).squeeze(0)
            torch.where(done, first, buffers[name], out=buffers[name])
        buffers["step_count"].masked_fill_(done, 0)
        buffers["episode"] += done
        self._taken += done
        return self._observe(), final

    def _draw_ahead(self) -> None:
        """Draw the next episodes of every env.

        To draw for all envs now and then is quicker than to draw for some at every step.
        """
        nth = torch.arange(1, EPISODES_AHEAD + 1, device=self.device).unsqueeze(1)
        starts = self._starts(self._every_row, self._buffers["episode"] + nth)
        self._ahead = {
            "state": self._table.starts[starts],
            "max_steps": self._table.start_max_steps[starts],
        }
        self._taken.zero_()

    def _starts(
        self, rows: Int64[Tensor, " n"], episode: Int64[Tensor, "*K n"]
    ) -> Int64[Tensor, "*K n"]:
        """Return the number of the start with which an episode of an env begins."""
        if self._has_level_seeds:
            return self._level_in_turn(rows, episode, len(self._table.starts))
        bits = CounterRandom(self._keys[rows], episode).bits()
        return torch.searchsorted(self._table.start_limits, bits, right=True)
