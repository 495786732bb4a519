"""MiniGrid's Memory task at more sizes, with the cue in view, and mixed.

Description: MiniGrid's Memory: a key or a ball in the first room, a corridor, and at its end a
    choice of two ends, one with the same object. From size 11 on, cue and ends are never in one
    view, and the way from the last sight of the cue to the choice is size - 5 steps (not so with
    corridors of random length).
Actions, observations, rewards, termination: MiniGrid's.
Truncation: after 5 size^2 steps, of the size of the episode.
Registered ids: mtxl/MemoryS{size}-v0 for odd sizes from 7 to 201. Random: corridors of random
    length, as in MiniGrid-MemoryS17Random-v0. Cue: the agent starts beside the cue, where it sees
    it (the one of MiniGrid's starts that does), so that memory is tested apart from the search for
    the cue. 9to17: a size is drawn for every episode. All together: mtxl/MemoryS9to17RandomCue-v0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minigrid.envs.memory

MIN_SIZE, MAX_SIZE = 7, 201


class MemoryEnv(minigrid.envs.memory.MemoryEnv):
    """Memory, of sizes drawn from a list.

    Args:
        sizes: odd sides of the square, one of which is drawn for each episode.
        random_length: draw the corridor's length.
        starts_at_cue: start beside the cue, and see it.
        max_steps: time limit of every episode. Left out: 5 size^2.
        **kwargs: of MiniGridEnv.

    Raises:
        ValueError: for a size that is even, below 7 or above 201.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        random_length: bool = False,
        starts_at_cue: bool = False,
        max_steps: int | None = None,
        **kwargs: Any,
    ):
        for size in sizes:
            check_size(size)
        self.sizes = tuple(sizes)
        self.starts_at_cue = starts_at_cue
        self.has_time_limit_of_size = max_steps is None
        super().__init__(max(sizes), random_length, max_steps, **kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        # a single size draws nothing, so that a seed gives MiniGrid's own level
        self.size = self.sizes[0] if len(self.sizes) == 1 else self._rand_elem(self.sizes)
        self.width = self.height = self.size
        if self.has_time_limit_of_size:
            self.max_steps = 5 * self.size**2
        super()._gen_grid(self.size, self.size)
        if self.starts_at_cue:
            self.agent_pos = (1, self.size // 2)


def check_size(size: int) -> None:
    """Raise ValueError unless Memory has this size."""
    if MIN_SIZE <= size <= MAX_SIZE and size % 2:
        return
    near = min(max(size - 1 + size % 2, MIN_SIZE), MAX_SIZE)
    raise ValueError(
        f"size={size} must be odd and from {MIN_SIZE} to {MAX_SIZE}; the nearest is {near}"
    )
