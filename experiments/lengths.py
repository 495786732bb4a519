r"""Evaluate trained agents at other lengths than those they were trained at.

    python -m experiments.lengths runs/t_maze --envs mtxl/TMaze80-v0 mtxl/TMaze320-v0 \
        mtxl/TMaze1000-v0 --memory kept swapped-long

Every run below the folder plays in every environment, once with each intervention. What a run has
played is in its lengths.json and is not played again. Written are lengths.md (interquartile mean
over seeds with its bootstrap interval of 95 %) and lengths.png (success against the steps from the
cue to the choice).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.plots import draw_gaps, label, save
from experiments.tables.intervals import interquartile_mean
from experiments.tables.markdown import table_head, table_row
from experiments.tables.runs import (
    Run,
    each_seed_once,
    gap_of,
    grouped,
    runs_to_play,
    varying_options,
)
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import EvaluateConfig, Memory
from mtxl_rl.device import pick_device, set_threads
from mtxl_rl.evaluate import in_env_of, load_agent
from mtxl_rl.evaluations.evaluation import evaluate_agent
from mtxl_rl.evaluations.interventions import InterventionError
from mtxl_rl.runs.checkpoint import longest_episode, newest_checkpoint
from mtxl_rl.runs.run_directory import load_config, read_json, write_json


def lengths(
    folder: Annotated[Path, tyro.conf.Positional],
    envs: tuple[str, ...],
    memory: tuple[Memory, ...] = ("kept",),
    episodes: int = 200,
    by: tuple[str, ...] = (),
    out: Path | None = None,
    num_threads: int | None = None,
) -> None:
    """Evaluate trained agents at other lengths than those they were trained at.

    Args:
        folder: Where the runs are.
        envs: Environments to play in.
        memory: What to do to the memory: see mtxl_rl.evaluate. Left out for agents without it.
        episodes: Of each evaluation.
        by: Options that tell rows and lines apart. Left out: those that differ between the runs.
        out: Folder of the table and the figure. Left out: that of the runs.
        num_threads: CPU threads of torch. Left out: all cores.
    """
    for name, values in (("envs", envs), ("memory", memory)):
        if not values:
            raise ValueError(f"{name} is empty; name one or more after --{name}")
    set_threads(num_threads)
    runs = runs_to_play(folder)
    names = by or tuple(varying_options(runs))
    runs = each_seed_once(runs, names)
    played = {run.path: _play(run, envs, memory, episodes) for run in runs}
    lines: dict[str, dict[int, list[float]]] = {}
    rows = []
    for values, group in grouped(runs, names).items():
        for what in memory:
            words = label(values, names) or "all runs"
            name = words if what == "kept" else f"{words}, memory {what}"
            for env_id in envs:
                rates = [
                    rate for run in group if (rate := played[run.path].get(_key(env_id, what)))
                    is not None
                ]  # fmt: skip
                if not rates:
                    continue
                rows.append((name, env_id, str(len(rates)), str(interquartile_mean([rates]))))
                gap = gap_of(env_id)
                if gap is not None:
                    lines.setdefault(name, {}).setdefault(gap, []).extend(rates)
    head = "success, or return where there is none (IQM, 95 % interval)"
    table = [table_head(("agent", "environment", "seeds", head))]
    table += [table_row(row) for row in rows]
    out = out or folder
    out.mkdir(parents=True, exist_ok=True)
    (out / "lengths.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))
    if lines:
        save(draw_gaps(lines, envs), out / "lengths.png")


def _key(env_id: str, memory: str) -> str:
    return f"{env_id} {memory}"


def _play(
    run: Run, envs: tuple[str, ...], memory: tuple[Memory, ...], episodes: int
) -> dict[str, float | None]:
    """Return the success rates of a run by environment and intervention, None where it has none.

    Where an environment has no success rate it is the mean return.
    """
    path = run.path / "lengths.json"
    newest = newest_checkpoint(run.path)
    setting = {"checkpoint": newest.name, "episodes": episodes}
    rates = _written(path, setting)
    wanted = [(env_id, what) for env_id in envs for what in memory]
    missing = [pair for pair in wanted if _key(*pair) not in rates]
    if not missing:
        return rates
    config = load_config(run.path)
    agent, _ = load_agent(config, newest, pick_device("auto"))
    longest = longest_episode(newest)
    options = EvaluateConfig(episodes=episodes, num_envs=episodes, seed=config.seed)
    for env_id, what in missing:
        there = in_env_of(config, dataclasses.replace(options, env=env_id, memory=what))
        try:
            evaluation = evaluate_agent(agent, env_id, there, config.backend, longest)
            rate = evaluation.success_rate
            rates[_key(env_id, what)] = evaluation.mean_return if rate is None else rate
        except InterventionError:
            rates[_key(env_id, what)] = None
        print(f"{run.path.name}  {env_id}  memory {what}: {rates[_key(env_id, what)]}", flush=True)
        rates = _written(path, setting) | rates  # another process may play here, too
        write_json(path, {"setting": setting, "success_rates": rates})
    return rates


def _written(path: Path, setting: dict[str, Any]) -> dict[str, float | None]:
    """Return what has been played so, by environment and intervention."""
    found = read_json(path) if path.is_file() else {}
    return found["success_rates"] if found.get("setting") == setting else {}


if __name__ == "__main__":
    with fail_with_one_line():
        tyro.cli(lengths, prog="python -m experiments.lengths")
