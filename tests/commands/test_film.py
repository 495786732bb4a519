"""Films: what an environment draws, at its speed, without keeping it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import odd_env
import pytest
from numpy.testing import assert_array_equal

import envs
from mtxl_rl.evaluations.film import Film, as_picture


def film_of(env_id: str, path: Path, num_steps: int = 8) -> list[int]:
    """Film a step after the other; return the size of the file after each."""
    env = envs.make(env_id, 1, render_mode="rgb_array")
    env.reset()
    film = Film(path, env.render_fps)
    sizes = []
    for _ in range(num_steps):
        film.take(env, 0)
        sizes.append(path.stat().st_size if path.exists() else 0)
    film.close()
    env.close()
    return sizes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the reader
def test_a_film_has_the_speed_of_its_environment(tmp_path: Path) -> None:
    film_of("Odd-Picture-v0", tmp_path / "film.mp4")
    assert iio.immeta(tmp_path / "film.mp4", plugin="FFMPEG")["fps"] == 25
    film_of("Odd-Picture-v0", tmp_path / "film.gif")
    assert iio.immeta(tmp_path / "film.gif", plugin="pillow")["duration"] == 40  # milliseconds
    assert len(iio.imread(tmp_path / "film.gif", plugin="pillow")) == 8
    assert envs.make("CartPole-v1", 1).render_fps == 50
    assert envs.make("MiniGrid-MemoryS7-v0", 1).render_fps == 10
    assert envs.make("Odd-Odd-v0", 1).render_fps == 10  # it does not say


def test_a_film_goes_to_the_disk_picture_by_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)

    def noise(_: Any) -> np.ndarray:  # more than a file keeps in its buffer
        return rng.integers(256, size=(160, 160, 3), dtype=np.uint8)

    monkeypatch.setattr(odd_env.PictureEnv, "render", noise)
    sizes = film_of("Odd-Picture-v0", tmp_path / "film.gif", num_steps=60)
    assert sizes[-1] > 100_000  # of 1.5 million, before it is closed


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (np.full((2, 3, 3), 7, np.uint8), 7),
        (np.full((2, 3), 7, np.uint8), 7),
        (np.full((2, 3, 1), 7.4), 7),
        (np.full((2, 3, 4), 0.5, np.float32), 128),
        (np.full((2, 3, 3), 1.0), 255),
        (np.full((2, 3, 3), np.nan), 0),
        (np.full((2, 3, 3), 300), 255),
        (np.full((2, 3, 3), -0.1), 0),
        (np.full((2, 3, 3), True), 255),
    ],
)
def test_pictures_of_every_kind(picture: np.ndarray, expected: int) -> None:
    assert_array_equal(as_picture(picture), np.full((2, 3, 3), expected, np.uint8))


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(ValueError, match=r"pictures of shape \(2, 3, 2\); a film takes"):
        as_picture(np.zeros((2, 3, 2)))


def test_a_missing_display_names_the_variable(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"no film .*no display\? set MUJOCO_GL=egl") as warned:
        film_of("Odd-NoDisplay-v0", tmp_path / "film.gif")
    assert len(warned) == 1
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("place", ["a file/film.gif", "film.gif"])
def test_a_place_that_takes_no_film_is_one_short_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "film.gif").mkdir()
    with pytest.warns(RuntimeWarning, match="no film .*Error: ") as warned:
        film_of("Odd-Picture-v0", tmp_path / place)
    assert len(warned) == 1
    assert "ffmpeg" not in str(warned[0].message).lower()


def test_a_picture_of_another_size_ends_the_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(env: Any) -> np.ndarray:
        env.time += 1
        return np.zeros((16 * env.time, 16, 3), np.uint8)

    monkeypatch.setattr(odd_env.PictureEnv, "render", grow)
    with pytest.warns(RuntimeWarning, match=r"shape \(32, 16, 3\) follows one of") as warned:
        film_of("Odd-Picture-v0", tmp_path / "film.mp4")
    assert len(warned) == 1
    assert not (tmp_path / "film.mp4").exists()
