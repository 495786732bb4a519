"""Spaces of Gymnasium in a few words: printed whole, that of a grid has a number for each cell."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from gymnasium import spaces


def space_words(space: spaces.Space) -> str:
    """Return kind, shape and range of a space; of a Dict those of its parts, by their names."""
    if isinstance(space, spaces.Dict):
        parts = (f"{name}: {space_words(part)}" for name, part in space.spaces.items())
        return f"Dict({', '.join(parts)})"
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.size:
        return f"MultiDiscrete {space.shape} of up to {space.nvec.max()}"
    if isinstance(space, spaces.Box) and space.low.size:
        return f"Box {space.shape} {space.dtype} from {space.low.min()} to {space.high.max()}"
    return " ".join(str(space).split())


def signatures(pair: tuple[spaces.Dict, spaces.Space]) -> dict[str, str]:
    """Return words for each part of an observation and action space, which differ where they do.

    At their end is a digest.
    """
    parts = _parts(pair).items()
    return {name: f"{space_words(space)} ({_digest(space)})" for name, space in parts}


def _parts(pair: tuple[spaces.Dict, spaces.Space]) -> dict[str, spaces.Space]:
    return {**pair[0].spaces, "actions": pair[1]}


def _digest(space: spaces.Space) -> str:
    """Return some letters of what a Box, Discrete or MultiDiscrete is, whole."""
    names = ("low", "high", "nvec", "start", "n")
    numbers = [np.asarray(getattr(space, name)) for name in names if hasattr(space, name)]
    whole = [str((array.dtype, array.shape)).encode() + array.tobytes() for array in numbers]
    return blake2b(b"|".join(whole), digest_size=4).hexdigest()


def space_differences(
    here: tuple[spaces.Dict, spaces.Space], there: tuple[spaces.Dict, spaces.Space]
) -> tuple[str, str]:
    """Return in words in what two pairs of observation and action space differ.

    The first text has what differs here, the second the same parts there.
    """
    ours, theirs = _parts(here), _parts(there)
    words = []
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            one, other = (
                f"{name}: {space_words(parts[name])}" if name in parts else f"no {name}"
                for parts in (ours, theirs)
            )
            words.append((one, f"{other} with other numbers" if one == other else other))
    return ", ".join(one for one, _ in words), ", ".join(other for _, other in words)
