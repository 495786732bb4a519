"""Films of an evaluation, written to the disk picture by picture."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from imageio_ffmpeg import write_frames
from jaxtyping import UInt8

from envs import BatchedEnv
from envs.construction import words_of

MAX_SECONDS = 60.0
"""The longest film."""
_NO_DISPLAY = re.compile(
    r"[Dd]isplay|DISPLAY|OpenGL|GLFW|GLError|gladLoadGL|EGL|eglQuery|OSMesa|X11"
    r"|video (device|system)"
)
"""What renderers say that find no screen: MuJoCo, GLFW, pyglet, SDL."""
_PALETTES = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"
"""Of ffmpeg: each picture of a GIF has colours of its own."""


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
        self._shape: tuple[int, ...] = ()

    def take(self, env: BatchedEnv, index: int) -> None:
        """Add a picture of an env, up to the longest film."""
        if self._path is None or not self._left:
            return
        with self._or_none():
            picture = as_picture(env.render(index))
            if self._writer is None:
                self._shape = picture.shape
                self._writer = _open(self._path, picture.shape, self._fps)
            if picture.shape != self._shape:
                raise ValueError(f"a picture of shape {picture.shape} follows one of {self._shape}")
            self._writer.send(picture.tobytes())
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
            with contextlib.suppress(OSError):
                path.unlink()  # half a film, or an older one
            warnings.warn(
                f"no film {path}: {words_of(error)}{_hint(error)}. The evaluation goes on",
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


def _open(path: Path, shape: tuple[int, ...], fps: float) -> Any:
    """Return what takes the bytes of pictures by `send`, and keeps none of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("ab").close()  # what cannot be written says so in fewer words than ffmpeg
    options: dict[str, Any] = {"codec": "libx264", "macro_block_size": 2}  # even sizes only
    if path.suffix == ".gif":
        options = {"codec": "gif", "pix_fmt_out": "pal8", "macro_block_size": 1}
        options["output_params"] = ["-vf", _PALETTES]
    options["fps"] = fps
    writer = write_frames(str(path), shape[1::-1], **options)
    writer.send(None)
    return writer


def _hint(error: Exception) -> str:
    if _NO_DISPLAY.search(f"{type(error).__name__}: {error}"):
        return (
            " (no display? set MUJOCO_GL=egl, or MUJOCO_GL=osmesa without a GPU, for MuJoCo; "
            "SDL_VIDEODRIVER=dummy for pygame)"
        )
    return ""
