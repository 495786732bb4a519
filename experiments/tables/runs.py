"""Run directories as experiments see them: options, curve and evaluation."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from envs.memory_tasks.recall import RecallOptions, recall_options
from mtxl_rl.config.json_form import flat
from mtxl_rl.runs.checkpoint import is_saved_policy
from mtxl_rl.runs.metrics import RETURN_TAG, RETURN_WINDOW_TAG, SPEED_TAG, SUCCESS_TAG, WINDOW_TAG
from mtxl_rl.runs.run_directory import is_config, load_config, read_json

if TYPE_CHECKING:  # a second of imports, for `--help` too
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

NOT_COMPARED = (
    "seed",
    "run_dir",
    "init_from",
    "num_threads",
    "device",
    "checkpoint_every",
    "strict",
    "env_timeout",
    "allow_changes",
)
"""Options in which the runs of one row may differ."""
SOLVED = 0.95

Curve = tuple[np.ndarray, np.ndarray]


class Point(NamedTuple):
    """One of a curve."""

    step: int  # frames
    value: float
    wall_time: float


@dataclass(frozen=True)
class Measure:
    """What runs are compared by."""

    words: str
    key: str  # of an evaluation
    tag: str  # of the curve of an update's episodes
    window_tag: str  # of the curve of the last episodes


SUCCESS = Measure("success rate", "success_rate", SUCCESS_TAG, WINDOW_TAG)
RETURN = Measure("return", "mean_return", RETURN_TAG, RETURN_WINDOW_TAG)


@dataclass(frozen=True)
class Run:
    """One run directory."""

    path: Path
    options: dict[str, Any]  # {"core.dim": 64, ...}

    @classmethod
    def of(cls, path: Path) -> Run:
        """Read the options.

        Raises:
            ValueError: for options that are not of this version, naming the run.
        """
        try:
            return cls(path, flat(load_config(path)))
        except ValueError as error:
            raise ValueError(f"{error}. To go on without the run, move {path} away") from error

    @cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """The evaluation at the end, None where the run is not finished."""
        path = self.path / "evaluation.json"
        return read_json(path) if path.is_file() else None

    @property
    def when_finished(self) -> tuple[bool, float]:
        """Whether it is, and when, or else when it began."""
        path = self.path / "evaluation.json"
        is_finished = path.is_file()
        return is_finished, (path if is_finished else self.path / "config.json").stat().st_mtime

    @cached_property
    def _events(self) -> EventAccumulator:
        return read_events(self.path)

    def curve(self, measure: Measure) -> Curve | None:
        """Return (frames, mean of the episodes of an update), None where there is none yet."""
        points = read_curve(self._events, measure.tag)
        if not points:
            return None
        return np.array([p.step for p in points]), np.array([p.value for p in points])

    @cached_property
    def speed(self) -> float | None:
        """The median of its frames a second, None where there is none yet."""
        speeds = [point.value for point in read_curve(self._events, SPEED_TAG)]
        return float(np.median(speeds)) if speeds else None

    @cached_property
    def mmer(self) -> float | None:
        """The maximum over training of the mean return of the last 1,000 episodes.

        POPGym's measure (Morad et al. 2023, arXiv 2303.01859), whose means are of an epoch. None
        where fewer episodes have ended.
        """
        return max((p.value for p in read_curve(self._events, RETURN_WINDOW_TAG)), default=None)

    def when_solved(
        self, target: float = SOLVED, measure: Measure = SUCCESS
    ) -> tuple[int, float] | None:
        """Return frames and minutes after which the mean of the last 1,000 episodes is `target`."""
        for point in read_curve(self._events, measure.window_tag):
            if point.value >= target:
                started = self._events.FirstEventTimestamp()
                assert started is not None  # there are events
                return point.step, (point.wall_time - started) / 60
        return None


def read_events(run_dir: Path) -> EventAccumulator:
    """Return a run's TensorBoard events, with every point of each curve."""
    from tensorboard.backend.event_processing import plugin_event_accumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # a resumed run is no news
    accumulator = plugin_event_accumulator.EventAccumulator
    return accumulator(str(run_dir), tensor_size_guidance={"scalars": 0}).Reload()


def curve_tags(events: EventAccumulator) -> list[str]:
    """Return the names of a run's curves."""
    return list(events.PluginTagToContent("scalars")) if "scalars" in events.ActivePlugins() else []


def read_curve(events: EventAccumulator, tag: str) -> list[Point]:
    """Return a curve by its frames, whatever clocks said: of two points at one the last."""
    if tag not in curve_tags(events):
        return []
    from tensorboard.util.tensor_util import make_ndarray

    points = {
        event.step: Point(event.step, float(make_ndarray(event.tensor_proto)), event.wall_time)
        for event in events.Tensors(tag)
    }
    return sorted(points.values())


def measure_of(runs: Sequence[Run]) -> Measure:
    """Return the success rate if some run has one, the return otherwise."""

    def has_success(run: Run) -> bool:
        is_evaluated = run.evaluation is not None and run.evaluation["success_rate"] is not None
        return is_evaluated or run.curve(SUCCESS) is not None

    return SUCCESS if any(has_success(run) for run in runs) else RETURN


def gap_of(env_id: str) -> int | None:
    """Return the steps from the last sight of the cue to the choice, where the id tells."""
    if match := re.search(r"MemoryS(\d+)(?:Cue)?-v0$", env_id):
        size = int(match[1])
        return size - 5 if size >= 11 else None  # in smaller ones cue and ends share a view
    if options := _recall_options(env_id):
        is_told = len(options["delays"]) == options["num_shows"] == 1 and not options["max_gap"]
        # from each cue to its question
        return options["delays"][0] + options["num_items"] if is_told else None
    if match := re.search(r"mtxl/Junctions(\d+)(?:x(\d+))?-v0$", env_id):
        return int(match[1]) + 3 * int(match[2] or 1) - 2  # from the last cue to the last turn
    match = re.search(r"TMaze(\d+)(?:Active)?-v0$", env_id)
    return int(match[1]) if match else None


def _recall_options(env_id: str) -> RecallOptions | None:
    try:
        return recall_options(env_id)
    except ValueError:  # an id that was one once
        return None


def chance_of(env_id: str) -> float | None:
    """Return the success rate of an agent that guesses at the end, where the task is known."""
    if options := _recall_options(env_id):
        return 0.5 ** options["num_items"]
    if match := re.search(r"mtxl/EndlessTMaze\d+(?:to\d+)?x(\d+)-v0$", env_id):
        return 0.5 ** int(match[1])
    if match := re.search(r"mtxl/Junctions\d+(?:to\d+)?(?:x(\d+))?-v0$", env_id):
        return 0.5 ** int(match[1] or 1)
    return 0.5 if re.search(r"(?:MiniGrid-|mtxl/)(?:Memory|TMaze)", env_id) else None


def find_runs(folder: Path) -> list[Run]:
    """Return every run below `folder`, each once, also where a symbolic link leads there.

    A folder with a config.json of another tool's, or with a policy that a run was saved as, is
    passed over, and named.

    Raises:
        ValueError: when there is none.
    """
    found: dict[Path, Path] = {}  # by where they really are
    seen: set[Path] = set()
    for name, folders, files in os.walk(folder, followlinks=True):
        place = Path(name)
        is_new = place.resolve() not in seen  # a link may lead back up
        seen.add(place.resolve())
        # one that begins with a dot was killed before it began
        folders[:] = [each for each in folders if is_new and not each.startswith(".")]
        if not is_new or "config.json" not in files:
            continue
        if not is_config(place / "config.json"):
            print(f"passed over {place}: its config.json is not of a run of ours", file=sys.stderr)
        elif is_saved_policy(place):
            print(f"passed over {place}: a saved policy, without its training", file=sys.stderr)
        else:
            found[place.resolve()] = place
    if not found:
        raise ValueError(f"{folder} holds no run (a folder with config.json); pass one that does")
    return [Run.of(place) for place in sorted(found.values())]


def runs_to_play(folder: Path) -> list[Run]:
    """Return the runs in a folder that have a checkpoint.

    Raises:
        ValueError: where there is none.
    """
    runs = [run for run in find_runs(folder) if (run.path / "checkpoints").is_dir()]
    if not runs:
        raise ValueError(f"{folder} holds no run with a checkpoint yet; wait for one")
    return runs


def each_seed_once(runs: Sequence[Run], by: Sequence[str]) -> list[Run]:
    """Return the runs without copies: of one configuration and seed the newest finished one.

    What is passed over is no further seed, and is named.

    Args:
        runs: to choose from.
        by: options that tell rows apart, in which runs are no copies though they learn the same.
    """
    ignored = set(NOT_COMPARED) - {"seed", "init_from", *by}
    copies: dict[str, list[Run]] = {}
    for run in runs:
        compared = {k: v for k, v in sorted(run.options.items()) if k not in ignored}
        copies.setdefault(str(compared), []).append(run)
    kept = [max(group, key=lambda run: run.when_finished) for group in copies.values()]
    if left := [str(run.path) for run in runs if run not in kept]:
        warnings.warn(
            f"a seed counts once: of several runs of one configuration and seed the newest "
            f"finished one is taken, and not {', '.join(left)}",
            RuntimeWarning,
            stacklevel=2,
        )
    return kept


def varying_options(runs: Sequence[Run]) -> list[str]:
    """Return the options that differ between runs, but for seeds and places."""
    # not all have the same: those of environments are there where they are given
    names = dict.fromkeys(name for run in runs for name in run.options if name not in NOT_COMPARED)

    def values(name: str) -> set[str]:
        # a core may have options that the others do not
        having = [run for run in runs if name in run.options or not name.startswith("core.")]
        return {str(run.options.get(name)) for run in having}

    return [name for name in names if len(values(name)) > 1]


def grouped(runs: Sequence[Run], by: Sequence[str]) -> dict[tuple[str, ...], list[Run]]:
    """Return runs by the values of some options, in the order of these values.

    Raises:
        ValueError: for a name that is no option.
    """
    for name in by:
        if not any(name in run.options for run in runs):
            raise ValueError(f"by={name!r} must be an option: {', '.join(runs[0].options)}")

    def order(run: Run) -> list[tuple[bool, Any]]:
        values = [run.options.get(name) for name in by]
        is_number = [isinstance(value, int | float) for value in values]
        return [(not n, v if n else str(v)) for n, v in zip(is_number, values, strict=True)]

    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(runs, key=order):
        groups.setdefault(tuple(str(run.options.get(name)) for name in by), []).append(run)
    return groups
