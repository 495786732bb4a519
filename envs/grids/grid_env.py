"""MiniGrid's environments on a device: every env has a grid of its own. Shapes: B envs."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int64
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.batched_env import Observation
from envs.counter_random import CounterRandom
from envs.grids.minigrid_tensor_env import MiniGridTensorEnv
from envs.levels.level import Levels, mission_texts, read_level
from envs.levels.level_pool import RENEW_EVERY, LevelPool
from envs.minigrid.cells import unpack, unpack_grid
from envs.minigrid.observation import View, image
from envs.minigrid.tasks.task import Outcome
from envs.minigrid.transition import GridState, Mechanics


class GridEnv(MiniGridTensorEnv):
    """The generic engine: any family of `envs.minigrid.families`.

    An episode starts from a level of a pool that MiniGrid fills, see `envs.levels.level_pool`.
    """

    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        super()._set_up(level_seeds)
        self._texts = mission_texts(self.prototype)
        self._pool = LevelPool(self._maker, self._texts, self.device, level_seeds)
        self._geometry, self._task = self._maker.geometry, self._maker.task.to(self.device)
        self._mechanics = Mechanics(self._geometry).to(self.device)
        self._view = View(self._geometry, self.prototype.see_through_walls).to(self.device)
        self._row_starts = self._every_row * self._geometry.num_cells
        self._has_mission = "mission" in self.observation_space.spaces
        level = Levels.of(self._maker.make([0]), self._texts).to(self.device)
        self._buffers |= {
            name: values.repeat_interleave(self.num_envs, dim=0)
            for name, values in level._asdict().items()
        }

    def load(self, gym_envs: Sequence[MiniGridEnv]) -> Observation:
        self._check_loadable(gym_envs)
        size = self._geometry.width, self._geometry.height
        if any((env.grid.width, env.grid.height) != size for env in gym_envs):
            raise ValueError(
                f"load was given grids of another size than {size[0]} x {size[1]}; pass "
                "environments of the same id and options"
            )
        read = [read_level(env, self._task, self._geometry) for env in gym_envs]
        levels = Levels.of(read, self._texts)
        for name, values in levels._asdict().items():
            self._buffers[name].copy_(values)
        self._prepare_episodes()
        self._has_episodes = True
        return self._observe()

    def restore_prototype(self, index: int) -> None:
        state = {name: buffer[index].cpu() for name, buffer in self._buffers.items()}
        env = self.prototype
        env.grid = unpack_grid(self._geometry.crop(state["cells"].numpy()))
        env.agent_pos = self._geometry.point(int(state["position"]))
        env.agent_dir = int(state["direction"])
        env.carrying = unpack(int(state["carrying"]))
        env.step_count = int(state["step_count"])

    def missions(self, rows: Sequence[int]) -> list[str]:
        ids = self._buffers["mission"][list(rows)].cpu().numpy()
        return [self._texts[row.tobytes()] for row in ids]

    def close(self) -> None:
        super().close()
        self._pool.close()

    def _prepare_episodes(self) -> None:
        # of the whole batch, so that each of its parts has the same
        self._pool.fill_(int(self._all_keys[0]) & (1 << 63) - 1, self._num_steps // RENEW_EVERY)

    def _prepare_step(self) -> None:
        if self._num_steps % RENEW_EVERY == RENEW_EVERY // 2:
            self._pool.prepare()
        elif self._num_steps % RENEW_EVERY == 0:
            self._pool.renew_()

    def _move_(self, actions: Int64[Tensor, " B"]) -> Outcome:
        buffers = self._buffers
        state = GridState(*(buffers[name] for name in GridState._fields))
        random = CounterRandom(self._keys, buffers["episode"])
        after, outcome = self._task.step_(self._mechanics, state, actions, random)
        for name, old, new in zip(GridState._fields, state, after, strict=True):
            if new is not old:
                buffers[name].copy_(new)
        return outcome

    def _observe(self, rows: Int64[Tensor, " n"] | None = None) -> Observation:
        def of(name: str) -> Tensor:
            return self._buffers[name] if rows is None else self._buffers[name][rows]

        starts = self._row_starts if rows is None else self._row_starts[rows]
        words = self._view(
            self._buffers["cells"].view(-1),
            starts + of("position"),
            of("direction"),
            of("carrying"),
        )
        observation = {"image": image(words), "direction": of("direction").clone()}
        if self._has_mission:
            observation["mission"] = of("mission").clone()
        return {name: observation[name] for name in self.observation_space.spaces}

    def _first_state(self, rows: Int64[Tensor, " n"]) -> dict[str, Tensor]:
        levels = self._pool.levels
        num_levels = len(levels.position)
        episode = self._buffers["episode"][rows]
        if self._has_level_seeds:
            number = self._level_in_turn(rows, episode, num_levels)
        else:
            number = CounterRandom(self._keys[rows], episode).below(num_levels)
        return {name: values.index_select(0, number) for name, values in levels._asdict().items()}
