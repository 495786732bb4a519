"""Draw success rate against frames from run directories, one line per core.

    python -m experiments.plots runs/recall --out docs/recall.png
    python -m experiments.plots runs/s9 --by backend --out docs/backends.png

Every folder below the one that is named and that holds a config.json is a run. Runs of one core, or
of one value of another option, are seeds: the line is their mean, the band reaches from the lowest
to the highest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import tyro
from matplotlib import pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mtxl_rl.checkpoint import load_config
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import flat

TAG = "charts/success_rate"
NAMES = {
    "mtxl": "Memory Transformer-XL",
    "gtrxl": "GTrXL (no long memory)",
    "gru": "GRU",
    "lstm": "LSTM",
    "feedforward": "feed-forward (no memory)",
}

Curve = tuple[np.ndarray, np.ndarray]


def read_curve(run_dir: Path) -> Curve:
    """Return (frames, success rate) of a run.

    Raises:
        ValueError: when the run has logged no success rate.
    """
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    if TAG not in events.Tags()["scalars"]:
        raise ValueError(
            f"{run_dir} has no {TAG} yet; wait for its first episodes, or leave it out"
        )
    points = events.Scalars(TAG)
    return np.array([p.step for p in points]), np.array([p.value for p in points])


def find_curves(folder: Path, by: str = "core.kind") -> dict[str, list[Curve]]:
    """Return the curves of every run below `folder`, by an option.

    Raises:
        ValueError: when there is no run, or no such option.
    """
    curves: dict[str, list[Curve]] = {}
    for config in sorted(folder.rglob("config.json")):
        options = flat(load_config(config.parent))
        if by not in options:
            raise ValueError(f"by={by!r} must be an option: {', '.join(options)}")
        curves.setdefault(str(options[by]), []).append(read_curve(config.parent))
    if not curves:
        raise ValueError(f"{folder} holds no run (a folder with config.json); pass one that does")
    return curves


def band(curves: list[Curve], num_points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (N,) and success (seeds, N), up to where the first seed ends."""
    frames = np.linspace(0, min(x[-1] for x, _ in curves), num_points)
    return frames, np.stack([np.interp(frames, x, y) for x, y in curves])


def smoothed(curve: Curve, num_updates: int) -> Curve:
    """Average a curve over the last `num_updates` updates, or all where there are fewer."""
    frames, success = curve
    num_updates = min(num_updates, len(frames))
    kernel = np.ones(num_updates) / num_updates
    return frames[num_updates - 1 :], np.convolve(success, kernel, "valid")


def plot(
    folder: Annotated[Path, tyro.conf.Positional],
    out: Path,
    title: str = "",
    smooth: int = 1,
    by: str = "core.kind",
) -> None:
    """Draw the runs below a folder.

    Args:
        folder: Where the runs are.
        out: The picture to write.
        title: Its title.
        smooth: Updates over which a curve is averaged.
        by: Option that tells the lines apart, such as backend or ppo.learning_rate.
    """
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for value, curves in find_curves(folder, by).items():
        frames, success = band([smoothed(curve, smooth) for curve in curves])
        label = f"{NAMES.get(value, value)}, {len(curves)} seed{'s' * (len(curves) > 1)}"
        (line,) = axes.plot(frames / 1e6, success.mean(axis=0), label=label)
        axes.fill_between(
            frames / 1e6,
            success.min(axis=0),
            success.max(axis=0),
            color=line.get_color(),
            alpha=0.2,
        )
    axes.axhline(0.5, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="million frames", ylabel="success rate", ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    print(f"wrote {out}")


if __name__ == "__main__":
    with fail_with_one_line():
        tyro.cli(plot, prog="python -m experiments.plots")
