"""Episodes of MiniGrid as numbers: what a batch of tensors is filled from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int32, Int64
from minigrid.core.mission import MissionSpace
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.minigrid.cells import pack, pack_grid
from envs.minigrid.geometry import Geometry
from envs.minigrid.tasks.task import Task
from envs.text import word_ids

Texts = dict[bytes, str]
"""The text of a mission, by the bytes of its words' ids."""


class Level(NamedTuple):
    """An episode of one env, at any step."""

    cells: np.ndarray  # (N,) int32
    position: int  # flat
    direction: int
    carrying: int  # a word
    step_count: int
    max_steps: int
    registers: list[int]
    mission: str


class Levels(NamedTuple):
    """P levels."""

    cells: Int32[Tensor, "P N"]
    position: Int64[Tensor, " P"]
    direction: Int64[Tensor, " P"]
    carrying: Int32[Tensor, " P"]
    step_count: Int64[Tensor, " P"]
    max_steps: Int64[Tensor, " P"]
    registers: Int64[Tensor, "P K"]
    mission: Int64[Tensor, "P words"]  # ids of words, see `envs.text`

    @staticmethod
    def of(levels: Sequence[Level], texts: Texts) -> Levels:
        """Stack levels of one geometry and task; their missions' texts are added to `texts`."""
        columns: dict[str, Any] = dict(zip(Level._fields, zip(*levels, strict=True), strict=True))
        words = [word_ids(mission) for mission in columns["mission"]]
        texts |= {ids.tobytes(): text for ids, text in zip(words, columns["mission"], strict=True)}
        columns["mission"] = words
        tensors = {
            name: torch.from_numpy(
                np.array(column, np.int32 if name in ("cells", "carrying") else np.int64)
            )
            for name, column in columns.items()
        }
        return Levels(**tensors)

    def to(self, device: torch.device) -> Levels:
        return Levels(*(tensor.to(device) for tensor in self))


def read_level(env: MiniGridEnv, task: Task, geometry: Geometry) -> Level:
    """Read the episode that a MiniGrid environment is in."""
    return Level(
        cells=geometry.pad(pack_grid(env.grid)),
        position=geometry.flat(*map(int, env.agent_pos)),
        direction=int(env.agent_dir),
        carrying=pack(env.carrying),
        step_count=env.step_count,
        max_steps=env.max_steps,
        registers=task.registers(env, geometry),
        mission=env.mission,
    )


def mission_texts(env: MiniGridEnv) -> Texts:
    """Return every mission that the mission space of an environment names."""
    space = env.observation_space["mission"]  # type: ignore[index]
    assert isinstance(space, MissionSpace)
    combinations = itertools.product(*(space.ordered_placeholders or []))
    texts = [space.mission_func(*words) for words in combinations]
    return {word_ids(text).tobytes(): text for text in texts}
