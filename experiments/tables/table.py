"""The table of the runs below a folder: one row for the runs that differ in their seed only."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from experiments.tables.intervals import interquartile_mean, probability_of_improvement
from experiments.tables.markdown import table_head, table_row
from experiments.tables.runs import RETURN, SOLVED, SUCCESS, Measure, Run, grouped, measure_of
from mtxl_rl.config.json_form import short_name
from mtxl_rl.evaluations.interventions import MEMORIES

INTERVENTIONS = MEMORIES[1:]


def final_scores(runs: Sequence[Run], measure: Measure = SUCCESS) -> dict[str, list[float]]:
    """Return what was reached at the end by those runs that are finished, by environment."""
    finished = [(run, run.evaluation) for run in runs if run.evaluation is not None]
    return _by_env((run, evaluation[measure.key]) for run, evaluation in finished)


def _by_env(scores: Iterable[tuple[Run, float | None]]) -> dict[str, list[float]]:
    tasks: dict[str, list[float]] = {}
    for run, score in scores:
        if score is not None:
            tasks.setdefault(run.options["env"], []).append(score)
    return tasks


def table_rows(runs: Sequence[Run], by: Sequence[str]) -> list[dict[str, str]]:
    """Return one row for each combination of the options `by`: its cells by column."""
    groups = {
        values: [run for run in group if run.evaluation is not None]
        for values, group in grouped(runs, by).items()
    }
    first = next((group for group in groups.values() if group), [])
    rows = []
    for values, group in groups.items():
        row = dict(zip([short_name(name) for name in by], values, strict=True))
        row["seeds"] = str(len(group))
        row["parameters"] = _mean(group, "parameters", form=",.0f")
        row["floats of state"] = _mean(group, "state_floats", form=",.0f")
        speeds = [run.speed for run in group if run.speed is not None]
        row["frames/s"] = f"{median(speeds):,.0f}" if speeds else ""
        measure = measure_of(group)
        scores = final_scores(group, measure)
        mean = str(interquartile_mean(list(scores.values()))) if scores else ""
        row["success (IQM, 95 % interval)"] = mean if measure is SUCCESS else ""
        row["return (IQM, 95 % interval)"] = mean if measure is RETURN else ""
        row["return"] = _mean(group, "mean_return") if measure is SUCCESS else ""
        best = _by_env((run, run.mmer) for run in group) if measure is RETURN else {}
        row["MMER (IQM, 95 % interval)"] = str(interquartile_mean([*best.values()])) if best else ""
        row |= _cue_columns(group)
        target = SOLVED if measure is SUCCESS else _target(group)
        solved = []
        if target is not None:
            solved = [when for run in group if (when := run.when_solved(target, measure))]
            row[f"reached {target:g}"] = f"{len(solved)} of {len(group)}"
        frames = [frames / 1e6 for frames, _ in solved]
        row["after million frames (median)"] = f"{median(frames):.2f}" if frames else ""
        minutes = [minutes for _, minutes in solved]
        row["minutes"] = f"{median(minutes):.1f}" if minutes else ""
        for memory in INTERVENTIONS:
            row[f"memory {memory}"] = _mean(group, "interventions", memory, measure.key)
        if group is not first:
            row["better than the first row (probability)"] = _improvement(group, first)
        rows.append(row)
    return rows


def write_tables(runs: Sequence[Run], by: Sequence[str], folder: Path) -> None:
    """Write table.md and table.csv, without columns that are empty."""
    rows = table_rows(runs, by)
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [name for name in names if any(row.get(name) for row in rows)]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [table_row([row.get(name, "") for name in columns]) for row in rows]
    (folder / "table.md").write_text(
        "\n".join([table_head(columns), *lines]) + "\n", encoding="utf-8"
    )
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {folder / 'table.md'} and {folder / 'table.csv'}")


def _cue_columns(group: Sequence[Run]) -> dict[str, str]:
    return {
        "cue seen": _mean(group, "cue_seen_rate"),
        "success if seen": _mean(group, "success_rate_cue_seen"),
        "steps since": _mean(group, "mean_cue_age", form=".1f"),
    }


def _target(group: Sequence[Run]) -> float | None:
    """Return the mean return that all runs of a row were to stop at, if there is one."""
    targets = {run.options["stop_at_return"] for run in group}
    return targets.pop() if len(targets) == 1 else None


def _mean(group: Sequence[Run], *path: str, form: str = ".3f") -> str:
    """Return the mean over runs of a value in their evaluations, "" where none has it."""
    found = []
    for run in group:
        value = run.evaluation
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            found.append(float(value))
    return format(sum(found) / len(found), form) if found else ""


def _improvement(group: Sequence[Run], first: Sequence[Run]) -> str:
    """Return the probability over the tasks that both have, "" where there are none."""
    measure = measure_of([*group, *first])
    ours, theirs = final_scores(group, measure), final_scores(first, measure)
    tasks = sorted(ours.keys() & theirs.keys())
    if not tasks:
        return ""
    scores = ([side[task] for task in tasks] for side in (ours, theirs))
    return str(probability_of_improvement(*scores))
