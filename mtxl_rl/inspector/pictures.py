"""Small pictures of what an agent sees: the environment's own, or its observation drawn."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image
from torch import Tensor

from envs import BatchedEnv
from envs.construction import words_of as words_of_error
from mtxl_rl.evaluations.film import as_picture

MAX_SIDE = 200
"""Pixels of a picture's longer side."""
MAX_NUMBERS = 24
"""Of a vector in an observation that are written out."""
MAX_COLOURS = 512
"""Of a picture that is stored as a drawing (PNG); one with more is a photograph (JPEG)."""


class Camera:
    """Takes the environment's pictures, as long as it draws any; else draws the observation.

    Args:
        env: of which env 0 is drawn.
    """

    def __init__(self, env: BatchedEnv):
        self._env = env
        self._draws = True

    def take(self, observation: dict[str, Tensor]) -> bytes | None:
        """Return a picture as a file, None where there is nothing to draw."""
        if self._draws:
            try:
                return encode(as_picture(self._env.render(0)))
            except Exception as error:  # of a renderer or a display: any kind
                self._draws = False
                # that it draws none is no news
                if not isinstance(error, ValueError | NotImplementedError):
                    warnings.warn(
                        f"no pictures of the environment: {words_of_error(error)}; its "
                        "observations are drawn",
                        RuntimeWarning,
                        stacklevel=2,
                    )
        picture = picture_of(observation, self._env.observation_space)
        return None if picture is None else encode(picture)


def encode(picture: np.ndarray) -> bytes:
    """Return a picture (rows, columns, 3) uint8 as a small PNG or JPEG file."""
    image = Image.fromarray(picture)
    factor = MAX_SIDE / max(image.size)
    if factor >= 2:
        factor = int(factor)
    if factor < 1 or factor >= 2:
        filter_ = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
        width, height = (max(1, round(side * factor)) for side in image.size)
        image = image.resize((width, height), filter_)
    file = io.BytesIO()
    colours = image.getcolors(MAX_COLOURS)
    if colours is not None:
        image.quantize(min(256, max(2, len(colours)))).save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=70)
    return file.getvalue()


def picture_of(observation: dict[str, Tensor], space: spaces.Dict) -> np.ndarray | None:
    """Return the first picture or grid of an observation (1, ...) as (rows, columns, 3) uint8."""
    for name, part in space.spaces.items():
        if len(part.shape or ()) == 3 and isinstance(part, spaces.Box | spaces.MultiDiscrete):
            values = observation[name][0].cpu().numpy()
            if isinstance(part, spaces.MultiDiscrete):  # channels of categories as colours
                shares = values / np.maximum(part.nvec - 1, 1)
                values = (shares * 255).astype(np.uint8)
            elif part.shape and part.shape[0] < part.shape[-1]:
                values = np.moveaxis(values, 0, -1)
            num_channels = 3 if values.shape[-1] >= 3 else 1
            return as_picture(values[..., :num_channels])
    return None


def words_of(observation: dict[str, Tensor], space: spaces.Dict) -> str:
    """Return the numbers of an observation (1, ...) that are no pictures."""

    def number(value: Any) -> str:
        return str(value) if isinstance(value, int) else f"{value:.3g}"

    parts = []
    for name, part in space.spaces.items():
        if len(part.shape or ()) < 2:
            values = observation[name][0].flatten().tolist()
            more = " ..." if len(values) > MAX_NUMBERS else ""
            parts.append(f"{name}: {' '.join(map(number, values[:MAX_NUMBERS]))}{more}")
    return "; ".join(parts)
