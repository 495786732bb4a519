"""Environments whose levels never change, as one table.

Every pair of a level and a pose of the agent is a state; what an action leads to and what is seen
are looked up. Shapes: S states, O distinct observations, L levels, A actions, Q starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Int16, Int32, Int64, UInt8
from minigrid.core.actions import Actions
from torch import Tensor

from envs.counter_random import BITS
from envs.levels.static_levels import LevelGroup, StaticLevels
from envs.minigrid.cells import EMPTY
from envs.minigrid.observation import View, image
from envs.minigrid.transition import NUM_ACTIONS

_CHUNK = 1 << 16
"""States whose views are made at once."""
MAX_STATES = 1 << 22
"""Of a table; this many take a gigabyte to build."""
FAILURE, SUCCESS = 1 << 40, 2 << 40
"""Added to the next state where the episode ends."""


@dataclass
class Table:
    """What every state leads to and shows."""

    after: Int64[Tensor, " S_A"]  # state * A + action -> next state, + FAILURE or SUCCESS
    observation: Int32[Tensor, " S"]  # which image a state shows
    cue: Int16[Tensor, " S"]  # which cue a state shows, -1 for none
    images: UInt8[Tensor, "O 7 7 3"]
    starts: Int64[Tensor, " Q"]  # states
    start_limits: Int64[Tensor, " Q"]  # a number below the q-th limit means start q or one before
    start_max_steps: Int64[Tensor, " Q"]

    def to(self, device: torch.device) -> Table:
        return Table(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class Place:
    """Where the states of a group of levels lie in the table."""

    first_state: int
    positions: np.ndarray  # flat positions of the cells that the agent can reach, ascending
    num_levels: int

    @property
    def level_len(self) -> int:
        """States of a level: four directions at every position."""
        return 4 * len(self.positions)

    def state(self, level: int, position: int, direction: int) -> int | None:
        """Return the state of a pose, or None where the agent cannot come."""
        nth = int(np.searchsorted(self.positions, position))
        if nth == len(self.positions) or self.positions[nth] != position:
            return None
        return self.first_state + level * self.level_len + 4 * nth + direction


class Atlas:
    """All levels of an environment, and the table of their states.

    The state of a level, position and direction is `Place.state`; its last two bits are the
    direction.

    Args:
        groups: of levels.

    Raises:
        ValueError: for more states than a table can have.
    """

    def __init__(self, groups: Sequence[LevelGroup]):
        self.groups = groups
        self.places: list[Place] = []
        self._numbers: dict[bytes, tuple[int, int]] = {}
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        starts: list[tuple[int, float, int]] = []
        num_states = num_images = 0
        for number, group in enumerate(groups):
            levels = group()
            place = Place(num_states, _reachable(levels), len(levels.cells))
            self.places.append(place)
            num_states += place.num_levels * place.level_len
            if num_states > MAX_STATES:
                raise ValueError(
                    f"the table would have more than {MAX_STATES:,} states; use fewer sizes, or "
                    "backend='gymnasium'"
                )
            for level, (cells, ends) in enumerate(zip(levels.cells, levels.ends, strict=True)):
                self._numbers[_digest(cells, ends)] = number, level
            after = _after(levels, place)
            images, shown = _distinct_views(levels, place)
            parts.append((after, shown + num_images, _cues_in_view(shown, levels.num_cues), images))
            starts += _starts(levels, place)
            num_images += len(images)
        afters, shown, cues, images = zip(*parts, strict=True)
        distinct, number_of = _distinct(torch.cat(images))
        states, weights, limits = zip(*starts, strict=True)
        self.table = Table(
            after=torch.cat(afters).flatten(),
            observation=number_of[torch.cat(shown)].to(torch.int32),
            cue=torch.cat(cues),
            images=image(distinct).contiguous(),
            starts=torch.tensor(states),
            start_limits=_limits(weights),
            start_max_steps=torch.tensor(limits),
        )

    def find(
        self, cells: np.ndarray, ends: Sequence[int], position: int, direction: int
    ) -> int | None:
        """Return the state of an episode, or None for a level or a place that is not here."""
        number, level = self._numbers.get(_digest(cells, np.array(ends)), (None, 0))
        if number is None:
            return None
        return self.places[number].state(level, position, direction)

    def level_of(self, state: int) -> tuple[StaticLevels, int, int]:
        """Return the group, which of its levels a state is in, and the agent's position."""
        firsts = [place.first_state for place in self.places]
        number = int(np.searchsorted(firsts, state, side="right")) - 1
        place = self.places[number]
        level, rest = divmod(state - place.first_state, place.level_len)
        return self.groups[number](), level, int(place.positions[rest // 4])


def _reachable(levels: StaticLevels) -> np.ndarray:
    """Return the positions that can be reached from the starts."""
    is_empty = levels.geometry.crop((levels.cells == EMPTY).all(axis=0))
    rooms = np.zeros(is_empty.shape, dtype=np.int32)
    from scipy import ndimage  # which takes longer to import than all of this

    ndimage.label(is_empty, output=rooms)
    points = [levels.geometry.point(start) for start in levels.starts]
    room_numbers = {int(rooms[y, x]) for x, y in points}
    rows, columns = np.nonzero(np.isin(rooms, list(room_numbers)))
    return np.sort(levels.geometry.flat(columns, rows))


def _digest(cells: np.ndarray, ends: np.ndarray) -> bytes:
    return blake2b(cells.tobytes() + ends.astype(np.int64).tobytes(), digest_size=16).digest()


def _starts(levels: StaticLevels, place: Place) -> list[tuple[int, float, int]]:
    """Return (state, weight, max_steps) of every start; all face east."""
    weight = levels.weight / (place.num_levels * len(levels.starts))
    starts = []
    for level in range(place.num_levels):
        for position in levels.starts:
            state = place.state(level, position, direction=0)
            assert state is not None
            starts.append((state, weight, levels.max_steps))
    return starts


def _limits(weights: Sequence[float]) -> Int64[Tensor, " Q"]:
    shares = np.cumsum(np.array(weights)) / np.sum(weights)
    limits = torch.from_numpy(np.round(shares * (1 << BITS)).astype(np.int64))
    limits[-1] = 1 << BITS
    return limits


def _after(levels: StaticLevels, place: Place) -> Int64[Tensor, "S A"]:
    """Return where every action leads, and whether it ends the episode."""
    num_positions, num_levels = len(place.positions), place.num_levels
    nth = np.full(levels.geometry.num_cells, -1)
    nth[place.positions] = np.arange(num_positions)
    front = place.positions[:, None] + levels.geometry.steps().numpy()  # (positions, 4)
    ahead = np.where(nth[front] >= 0, nth[front], np.arange(num_positions)[:, None])
    here, direction = np.divmod(np.arange(4 * num_positions).reshape(-1, 4), 4)
    to = np.repeat((4 * here + direction)[..., None], NUM_ACTIONS, axis=-1)
    to[..., Actions.left] = 4 * here + (direction - 1) % 4
    to[..., Actions.right] = 4 * here + (direction + 1) % 4
    to[..., Actions.forward] = 4 * ahead + direction
    to = to.reshape(-1, NUM_ACTIONS)
    ending = np.zeros((num_levels, num_positions), dtype=np.int64)
    np.put_along_axis(ending, nth[levels.ends], FAILURE, axis=1)
    np.put_along_axis(ending, nth[levels.ends[:, :1]], SUCCESS, axis=1)
    offsets = place.first_state + place.level_len * np.arange(num_levels)
    after = to + offsets[:, None, None] + ending[:, to // 4]  # (levels, states of one, A)
    return torch.from_numpy(after.reshape(-1, NUM_ACTIONS))


def _distinct_views(
    levels: StaticLevels, place: Place
) -> tuple[Int32[Tensor, "O 7 8"], Int64[Tensor, " S"]]:
    """Return the distinct views of a group's states, and which of them each state has."""
    view = View(levels.geometry, sees_through_walls=False)
    cells = torch.from_numpy(levels.cells).flatten()
    starts = torch.arange(place.num_levels) * levels.geometry.num_cells
    position = (starts[:, None] + torch.from_numpy(place.positions)).flatten()
    position = position.repeat_interleave(4)
    direction = torch.arange(4).repeat(len(position) // 4)
    empty = torch.full_like(direction, EMPTY, dtype=torch.int32)
    seen, shown, num_seen = [], [], 0
    for chunk in torch.arange(len(position)).split(_CHUNK):
        words = view(cells, position[chunk], direction[chunk], empty[chunk])
        distinct, number = _distinct(words)
        seen.append(distinct)
        shown.append(number + num_seen)
        num_seen += len(distinct)
    distinct, number = _distinct(torch.cat(seen))
    return distinct, number[torch.cat(shown)]


def _cues_in_view(shown: Int64[Tensor, " S"], num_cues: int) -> Int16[Tensor, " S"]:
    """Return which cue the states of a group show.

    A state shows the cue where the same level with another object for the last one of the cue
    looks different.
    """
    halves = shown.view(2, -1)
    is_shown = (halves[0] != halves[1]).repeat(2).view(num_cues, -1)
    cue = torch.arange(num_cues, dtype=torch.int16)[:, None]
    return torch.where(is_shown, cue, -1).flatten()


def _distinct(words: Int32[Tensor, "n 7 8"]) -> tuple[Int32[Tensor, "O 7 8"], Int64[Tensor, " n"]]:
    """Return the distinct views, and which of them each is.

    Views are told apart by a 64-bit hash, which is quicker than sorting them; that no two views
    share one is checked.
    """
    pairs = words.flatten(1).view(torch.int64)
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (pairs.shape[1],), generator=generator)
    hashes = ((pairs ^ (pairs >> 29)) * (factors | 1)).sum(dim=1)
    _, number, counts = torch.unique(hashes, return_inverse=True, return_counts=True)
    first = torch.empty_like(counts)
    first[number.flip(0)] = torch.arange(len(words)).flip(0)
    distinct = words[first]
    assert torch.equal(distinct[number], words)
    return distinct, number
