"""Make the table and the figures of the runs below a folder.

    python -m experiments.plots runs/memory_lengths                      # all, into that folder
    python -m experiments.plots runs/s9 --by backend --out docs/s9.png   # the curves alone

Every folder below the one that is named and that holds a config.json is a run. Runs that differ in
their seed only make one row and one line. Written are table.md and table.csv; curves.png (success
against frames); heat_map.png where core.mem_len and core.lmem_len vary; gaps.png (success against
the steps from the cue to the choice) where the lengths of a task vary. Where no run has a success
rate, all of these are of returns.

Statistics are those of rliable (arXiv 2108.13264): the interquartile mean (of fewer than four
seeds, the mean), its bootstrap interval of 95 %, and the probability of improvement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from experiments.tables.intervals import interquartile_curve, interquartile_mean
from experiments.tables.runs import (
    SUCCESS,
    Curve,
    Measure,
    Run,
    chance_of,
    each_seed_once,
    find_runs,
    gap_of,
    grouped,
    measure_of,
    varying_options,
)
from experiments.tables.table import final_scores, write_tables
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config.json_form import short_name

if TYPE_CHECKING:  # a second of imports, for `--help` too
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {
    "mtxl": "Memory Transformer-XL",
    "gtrxl": "GTrXL (no long memory)",
    "gru": "GRU",
    "lstm": "LSTM",
    "mingru": "minGRU",
    "deltanet": "Gated DeltaNet",
    "feedforward": "feed-forward (no memory)",
}
SHORT_MEMORY, LONG_MEMORY = "core.mem_len", "core.lmem_len"


def band(
    curves: list[Curve], has_ended: list[bool], num_points: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (N,) and success (seeds, N).

    A run that has ended, at its target say, keeps its last value to where the last one ends; one
    that is still running ends them all.
    """
    ends = [x[-1] for x, _ in curves]
    running = [end for end, ended in zip(ends, has_ended, strict=True) if not ended]
    frames = np.linspace(0, min(running, default=max(ends)), num_points)
    return frames, np.stack([np.interp(frames, x, y) for x, y in curves])


def smoothed(curve: Curve, num_updates: int) -> Curve:
    """Average a curve over the last `num_updates` updates, or all where there are fewer."""
    frames, success = curve
    num_updates = min(num_updates, len(frames))
    kernel = np.ones(num_updates) / num_updates
    return frames[num_updates - 1 :], np.convolve(success, kernel, "valid")


def label(values: Sequence[str], names: Sequence[str]) -> str:
    """Return the words for a row: its values, with the names of those that do not speak."""
    words = [
        NAMES.get(value, value) if name in ("core.kind", "env") else f"{short_name(name)} {value}"
        for name, value in zip(names, values, strict=True)
    ]
    return ", ".join(words)


def draw_curves(runs: list[Run], by: Sequence[str], smooth: int = 1) -> Figure:
    """Draw success or return against frames, with bootstrap intervals, of runs with episodes."""
    measure = measure_of(runs)
    figure, axes = _figure_of(measure, "million frames", (run.options["env"] for run in runs))
    for values, group in grouped(runs, by).items():
        drawn = [(run, curve) for run in group if (curve := run.curve(measure)) is not None]
        if not drawn:
            continue
        curves = [smoothed(curve, smooth) for _, curve in drawn]
        frames, success = band(curves, [run.evaluation is not None for run, _ in drawn])
        mean, low, high = interquartile_curve(success)
        seeds = f"{len(curves)} seed{'s' * (len(curves) > 1)}"
        (line,) = axes.plot(frames / 1e6, mean, label=f"{label(values, by)}, {seeds}")
        if len(curves) > 1:
            axes.fill_between(frames / 1e6, low, high, color=line.get_color(), alpha=0.2)
    _add_legend(figure, axes)
    return figure


def draw_heat_map(runs: list[Run]) -> Figure:
    """Draw success or return over the lengths of the short and the long memory."""
    measure = measure_of(runs)
    rows = list(grouped(runs, [SHORT_MEMORY]))
    columns = list(grouped(runs, [LONG_MEMORY]))
    figure, axes = _figure()
    success = np.full((len(rows), len(columns)), np.nan)
    for (short, long), group in grouped(runs, [SHORT_MEMORY, LONG_MEMORY]).items():
        scores = final_scores(group, measure)
        if scores:
            mean = interquartile_mean(list(scores.values())).value
            success[rows.index((short,)), columns.index((long,))] = mean
    known = [0, 1] if measure is SUCCESS else success[~np.isnan(success)]
    low, high = min(known, default=0), max(known, default=1)
    axes.imshow(success, vmin=low, vmax=high, cmap="viridis", aspect="auto")
    for (row, column), value in np.ndenumerate(success):
        text = "not run" if np.isnan(value) else f"{value:.2f}"
        color = "black" if value > low + 0.6 * (high - low) or np.isnan(value) else "white"
        axes.text(column, row, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(columns)), [value for (value,) in columns])
    axes.set_yticks(range(len(rows)), [value for (value,) in rows])
    axes.set(xlabel="slots of long memory", ylabel="steps of short memory")
    envs = sorted({run.options["env"] for run in runs})
    axes.set_title(f"{measure.words} in {', '.join(envs)}", fontsize="medium")
    return figure


def draw_gaps(lines: Mapping[str, Mapping[int, Sequence[float]]], env_ids: Iterable[str]) -> Figure:
    """Draw success against the steps from the cue to the choice.

    Args:
        lines: the success rates of the seeds, by the line's name and by the gap.
        env_ids: where they were reached.
    """
    figure, axes = _figure_of(SUCCESS, "steps from the cue to the choice", env_ids)
    for name, at_gap in lines.items():
        points = {gap: interquartile_mean([scores]) for gap, scores in sorted(at_gap.items())}
        values = [each.value for each in points.values()]
        (line,) = axes.plot(list(points), values, marker="o", label=name)
        low, high = zip(*((each.low, each.high) for each in points.values()), strict=True)
        axes.fill_between(list(points), low, high, color=line.get_color(), alpha=0.2)
    axes.set_xscale("log")
    _add_legend(figure, axes)
    return figure


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    return figure, figure.subplots()


def _figure_of(measure: Measure, xlabel: str, env_ids: Iterable[str]) -> tuple[Figure, Axes]:
    """Return axes of a measure; of success, with a line where chance is in these environments."""
    from matplotlib import rcParams, rcsetup

    figure, axes = _figure()
    if measure is SUCCESS:
        axes.set_ylim(0, 1.02)
        for chance in filter(None, {chance_of(env_id) for env_id in env_ids}):
            axes.axhline(chance, color="grey", linestyle=":", linewidth=1)
    axes.grid(alpha=0.3)
    colors = rcParams["axes.prop_cycle"]
    axes.set_prop_cycle(rcsetup.cycler(linestyle=["-", "--", ":", "-."]) * colors)
    axes.set(xlabel=xlabel, ylabel=measure.words)
    return figure, axes


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Name the lines: among them where they are few, beside them where they are many."""
    if len(axes.get_legend_handles_labels()[1]) <= 6:
        axes.legend(loc="best", fontsize="small")
    else:
        figure.legend(loc="outside right upper", fontsize="small")


def save(figure: Figure, path: Path) -> None:
    """Write a figure, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def plot(
    folder: Annotated[Path, tyro.conf.Positional],
    out: Path | None = None,
    title: str = "",
    smooth: int = 1,
    by: tuple[str, ...] = (),
) -> None:
    """Make the table and the figures of the runs below a folder.

    Args:
        folder: Where the runs are.
        out: A folder for all of them, or a .png for the curves alone. Left out: the folder.
        title: Of the curves.
        smooth: Updates over which a curve is averaged.
        by: Options that tell rows apart, ppo.learning_rate say. Left out: those that differ.
    """
    runs = find_runs(folder)
    by = by or tuple(varying_options(runs)) or ("core.kind",)
    runs = each_seed_once(runs, by)
    measure = measure_of(runs)
    silent = [str(run.path) for run in runs if run.curve(measure) is None]
    has_curves = len(silent) < len(runs)
    is_png = out is not None and out.suffix == ".png"
    if not has_curves and (is_png or not any(run.evaluation for run in runs)):
        raise ValueError(f"{folder} has no run in which an episode has ended; wait for the first")
    if silent:
        print(f"no {measure.words} yet in {', '.join(silent)}")
    place = out or folder
    if has_curves:
        curves = draw_curves(runs, by, smooth)
        curves.axes[0].set_title(title)
        save(curves, place if is_png else place / "curves.png")
    if is_png:
        return
    write_tables(runs, by, place)
    varying = varying_options(runs)
    if set(varying) - {"env"} == {SHORT_MEMORY, LONG_MEMORY}:
        save(draw_heat_map(runs), place / "heat_map.png")
    lines = _scores_by_gap(runs, [name for name in by if name != "env"])
    if any(len(at_gap) > 1 for at_gap in lines.values()):
        save(draw_gaps(lines, (run.options["env"] for run in runs)), place / "gaps.png")


def _scores_by_gap(runs: list[Run], by: Sequence[str]) -> dict[str, dict[int, list[float]]]:
    lines: dict[str, dict[int, list[float]]] = {}
    for values, group in grouped(runs, by).items():
        for run in group:
            gap, scores = gap_of(run.options["env"]), final_scores([run])
            if gap is not None and scores:
                at_gap = lines.setdefault(label(values, by) or "success rate", {})
                at_gap.setdefault(gap, []).extend(*scores.values())
    return lines


if __name__ == "__main__":
    with fail_with_one_line():
        tyro.cli(plot, prog="python -m experiments.plots")
