"""Films of an evaluation, written to the disk picture by picture."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v2 as iio
import numpy as np
from jaxtyping import UInt8

from envs import BatchedEnv

MAX_SECONDS = 60.0
"""The longest film."""
_NO_DISPLAY = re.compile(
    r"[Dd]isplay|DISPLAY|OpenGL|GLFW|GLError|gladLoadGL|EGL|eglQuery|OSMesa|X11"
    r"|video (device|system)"
)
"""What renderers say that find no screen: MuJoCo, GLFW, pyglet, SDL."""


class Film:
    """A film of one env; where it cannot be made there is a warning and no film.

    Args:
        path: .mp4 or .gif; None: no film.
        fps: pictures a second.
    """

    def __init__(self, path: Path | None, fps: float):
        self._path = path
        self._fps = fps
        self._left = round(MAX_SECONDS * fps)
        self._writer: Any = None

    def take(self, env: BatchedEnv, index: int) -> None:
        """Add a picture of an env, up to the longest film."""
        if self._path is None or not self._left:
            return
        with self._or_none():
            picture = as_picture(env.render(index))
            if self._writer is None:
                self._writer = _open(self._path, self._fps)
            self._writer.append_data(picture)
            self._left -= 1

    def close(self) -> None:
        """End the film."""
        with self._or_none():
            if self._writer is not None:
                self._writer.close()

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a renderer, a display or ffmpeg: any kind
            path, self._path = self._path, None
            assert path is not None
            with contextlib.suppress(Exception):
                if self._writer is not None:
                    self._writer.close()
            self._writer = None
            path.unlink(missing_ok=True)  # half a film, or an older one
            warnings.warn(
                f"no film {path}: {type(error).__name__}: {error}{_hint(path, error)}. The "
                "evaluation goes on",
                RuntimeWarning,
                stacklevel=4,
            )


def as_picture(picture: np.ndarray) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return a picture as a film holds it.

    Args:
        picture: (rows, columns), grey, or (rows, columns, 1, 3 or 4). Floats are from 0 to 1, or to
            255 where one is above 1.

    Raises:
        ValueError: for another shape.
    """
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"the environment draws pictures of shape {picture.shape}; a film takes (rows, "
            "columns), or (rows, columns, channels) with 1, 3 or 4 of these"
        )
    if picture.dtype != np.uint8:
        values = np.nan_to_num(picture.astype(np.float64))
        is_unit = picture.dtype.kind in "fb" and values.max(initial=0) <= 1
        picture = np.clip(np.rint(values * (255 if is_unit else 1)), 0, 255).astype(np.uint8)
    if picture.shape[-1] == 1:
        return np.repeat(picture, 3, axis=-1)
    return picture[..., :3]


def _open(path: Path, fps: float) -> Any:
    """Return a writer that keeps no pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        # imageio's own writer for GIFs: Pillow's keeps all pictures until the end
        return iio.get_writer(path, format="GIF-PIL", mode="I", duration=1 / fps)
    return iio.get_writer(path, fps=fps, codec="libx264", macro_block_size=2)


def _hint(path: Path, error: Exception) -> str:
    if _NO_DISPLAY.search(f"{type(error).__name__}: {error}"):
        return (
            " (no display? set MUJOCO_GL=egl, or MUJOCO_GL=osmesa without a GPU, for MuJoCo; "
            "SDL_VIDEODRIVER=dummy for pygame)"
        )
    return "" if path.suffix == ".gif" else " (a .gif needs no ffmpeg)"
