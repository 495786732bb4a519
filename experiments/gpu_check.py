"""Find out in minutes what this code does on a GPU.

    python -m experiments.gpu_check --minutes 8 --out gpu

In order of worth: every test marked `gpu`, each in a process of its own, several at once;
environments; training at four layers of width 128, with a trace of what takes the time;
MiniGrid-MemoryS13 to .98; four cues, kept for 10,000 steps; then S17Random, and other environments
and sizes. Each step is a command
with a time limit. Its output goes to a file, its result to OUT/check.json and a line of
OUT/check.md as soon as it is there; one that fails is recorded, and the next one begins. What the
minutes do not reach is recorded as left out.

It needs the packages of pyproject.toml and pytest, and a clone of this repository, in whose root it
is started.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from experiments.benchmarks.train_benchmark import GPU_SETTINGS
from experiments.tables.markdown import table_head, table_row
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.device import pick_device
from mtxl_rl.runs.run_directory import write_json

Part = Literal["tests", "envs", "train", "minigrid", "recall"]
PARTS: tuple[Part, ...] = ("tests", "envs", "train", "minigrid", "recall")
COLLECT = shlex.split("-m pytest --collect-only -q -m gpu -p no:xdist")
RECALL_OPTIONS = [
    "--core.mem-write", "parts", "--core.mem-len", "8", "--core.seq-len", "8", "--core.lmem-len",
    "16", "--core.no-past-action", "--ppo.rollout-len", "128",
]  # fmt: skip
"""Those of docs/results.md."""
KILL_SECONDS = 5.0
"""Between the request to end and the end."""
MAX_AT_ONCE = 8
"""Tests; each takes ten seconds to load what it needs, and hardly uses a GPU."""
TESTS_SHARE = 0.5
"""Of the minutes: tests that have not begun then are left out."""
MAX_OUTPUT, MAX_RESULT = 2**20, 500
"""Bytes at the end of what a step printed that are read, and characters of its result."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """What is tried, and for how long."""

    out: Path
    """Folder for the results; it is made."""
    minutes: float = 8.0
    """After which nothing goes on."""
    device: str = "cuda"
    """`cpu` with `--small` is a rehearsal."""
    small: bool = False
    """Everything at sizes that a CPU does in a minute or two: what comes out says nothing of a
    GPU, but that the commands run."""
    parts: tuple[Part, ...] = PARTS
    """Those that are tried, in their order."""

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ValueError(f"minutes={self.minutes} must be above 0")
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts={self.parts} must name one or more, each once")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(
                "device=cuda: torch sees no GPU here; pass --device cpu --small for a rehearsal"
            )
        pick_device(self.device)
        if self.small and self.device != "cpu":
            raise ValueError(f"small=True is a rehearsal; add --device cpu to {self.device!r}")
        if (self.out / "check.json").exists():
            raise ValueError(f"out={self.out} holds the results of another check; name a new one")


@dataclass(frozen=True)
class Step:
    """A command, and what is taken from what it prints."""

    name: str
    arguments: list[str]  # of this Python
    seconds: float  # its limit
    read: Callable[[str], str]  # "" where there is no result
    is_test: bool = False  # others may run beside it


@dataclass(frozen=True)
class Result:
    """What came of a step."""

    name: str
    command: str
    outcome: str  # ok, failed, out of time, left out
    seconds: float
    result: str


def find_steps(config: CheckConfig) -> Iterator[Step]:
    """Yield the steps in order of worth; tests are collected when their turn has come.

    First what says most of each part, then the rest of all.
    """
    rest: list[Step] = []
    for part in config.parts:
        if part == "tests":
            yield from _tests(config)
            continue
        steps = {"envs": _envs, "train": _speed, "minigrid": _minigrid, "recall": _recall}[part]
        first, *others = steps(config)
        yield first
        if part == "recall":  # of one run
            yield from others
        else:
            rest += others
    yield from rest


def _tests(config: CheckConfig) -> Iterator[Step]:
    names = gpu_tests()
    for name in names[: 1 if config.small else None]:
        command = ["-m", "pytest", "-q", "-rs", "-p", "no:xdist", name]
        # there is no GPU in a rehearsal: all of them are skipped
        yield Step(name, command, 90, last_line if config.small else passed, is_test=True)
    if not names:
        yield Step("find the tests", COLLECT, 60, lambda _: "")


def _envs(config: CheckConfig) -> Iterator[Step]:
    sizes = ("64",) if config.small else ("4096", "65536")
    ids = ("MiniGrid-MemoryS13-v0", "mtxl/Recall10to160x4-v0", "MiniGrid-DoorKey-8x8-v0")
    for env_id in ids[: 1 if config.small else None]:
        yield Step(
            f"environments, {env_id}",
            ["-m", "experiments.benchmark", "envs", "--ids", env_id, "--num-envs", *sizes,
             "--turns", "1" if config.small else "3", "--device", config.device],
            60, table_lines,
        )  # fmt: skip


def _speed(config: CheckConfig) -> Iterator[Step]:
    """Yield a step for each row of the training benchmark, the fastest one first."""
    rows = ["defaults, 16 envs"]
    if not config.small:
        names = [setting.name for setting in GPU_SETTINGS]
        rows = [names[2], *names[:2], *names[3:]]
    for number, row in enumerate(rows):
        trace = ["--profile", str(config.out / "trace.json.gz")] if number == 0 else []
        iterations = "1" if config.small else "3"
        yield Step(
            f"training, {row}",
            ["-m", "experiments.benchmark", "train", "--device", config.device, "--rows", row,
             "--iterations", iterations, "--no-peer", "--row-minutes", "2", *trace],
            130, table_lines,
        )  # fmt: skip


def _minigrid(config: CheckConfig) -> Iterator[Step]:
    for env in ("S7",) if config.small else ("S13", "S17Random"):
        yield _training(config, f"MiniGrid-Memory{env}-v0", [], 120)


def _recall(config: CheckConfig) -> Iterator[Step]:
    name = "mtxl/Recall10to160x4-v0"
    yield _training(config, name, RECALL_OPTIONS, 120)
    lengths = ("40",) if config.small else ("1000", "10000")
    yield Step(
        "kept for",
        ["-m", "experiments.lengths", str(_run_dir(config, name)), "--episodes", "8" if config.small
         else "256", "--envs", *(f"mtxl/Recall{length}x4-v0" for length in lengths)],
        90, table_lines,
    )  # fmt: skip


def _training(config: CheckConfig, env_id: str, options: list[str], seconds: float) -> Step:
    """Return a training run to a success rate of .98."""
    size = ["--num-envs", "1024", "--ppo.num-minibatches", "8", "--total-frames", "30000000"]
    if config.small:
        size = ["--num-envs", "16", "--total-frames", "4096", "--compile", "off",
                "--eval-episodes", "4"]  # fmt: skip
    return Step(
        f"{env_id} to .98",
        ["-m", "mtxl_rl.train", "--env", env_id, "--device", config.device,
         "--stop-at-success", "0.98", "--run-dir", str(_run_dir(config, env_id)), *size, *options],
        seconds, training_lines,
    )  # fmt: skip


def _run_dir(config: CheckConfig, env_id: str) -> Path:
    return config.out / "runs" / env_id.replace("/", "-")


def gpu_tests() -> list[str]:
    """Return the ids of the tests that need a GPU."""
    try:
        listed = subprocess.run(
            [sys.executable, *COLLECT], capture_output=True, encoding="utf-8", check=False,
            timeout=60,
        ).stdout  # fmt: skip
    except subprocess.TimeoutExpired:
        return []
    return re.findall(r"^tests/\S+::.+$", listed, flags=re.MULTILINE)


def passed(output: str) -> str:
    """Return what pytest says at its end, if a test has passed and none has failed."""
    line = last_line(output)
    return line if re.search(r"\d passed", line) and "failed" not in line else ""


def last_line(output: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def failed_line(output: str) -> str:
    """Return the line that says best what went wrong."""
    named = re.findall(r"^(?:FAILED|ERROR|E  |\w*Error:|error:) ?.*$", output, flags=re.MULTILINE)
    return named[-1].strip() if named else last_line(output)


def table_lines(output: str) -> str:
    """Return the rows of Markdown tables, without heads."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return "; ".join(line.strip("| ").replace(" | ", ", ") for line in lines[2:])


def training_lines(output: str) -> str:
    """Return what a training run says at its end, or said last before it."""
    lines = re.findall(r"^(?:Trained|Success rate): *(.+)$", output, flags=re.MULTILINE)
    on_the_way = re.findall(r"\S+ of \S+ frames .+", output)
    return "; ".join(lines) or "".join(on_the_way[-1:])


class Runner:
    """Runs steps, each in a process group of its own, of which nothing is left when it has ended.

    Args:
        out: where the output of each goes.
        until: by `time.monotonic`, when all is over.
        until_tests: when no further test begins.
    """

    def __init__(self, out: Path, until: float, until_tests: float):
        self._out, self._until, self._until_tests = out, until, until_tests
        self._numbers = itertools.count()
        self._groups: set[int] = set()
        self._is_over = threading.Event()

    def run(self, step: Step) -> Result:
        """Run a step, unless it is too late to begin."""
        started = time.monotonic()
        words = shlex.join(["python", *step.arguments])
        until = self._until_tests if step.is_test else self._until
        seconds = min(step.seconds, self._until - started)
        if self._is_over.is_set() or until - started <= min(KILL_SECONDS, step.seconds / 2):
            return Result(step.name, words, "left out", 0.0, "the minutes were over")
        log = self._out / f"{next(self._numbers):02}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *step.arguments], stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            self._groups.add(process.pid)
            try:
                outcome = "ok" if process.wait(seconds) == 0 else "failed"
            except subprocess.TimeoutExpired:
                outcome = "out of time"
                process.terminate()  # a run saves what it has
                with suppress(subprocess.TimeoutExpired):
                    process.wait(KILL_SECONDS)
            finally:
                _kill_group(process.pid)  # what it has started, too
                process.wait()
                self._groups.discard(process.pid)
        output = _end_of(log)
        result = step.read(output)
        if outcome == "ok" and not result:
            outcome = "failed"
        result = (result or failed_line(output))[:MAX_RESULT]
        return Result(step.name, words, outcome, time.monotonic() - started, result)

    def end(self) -> None:
        """End what runs; no step begins any more."""
        self._is_over.set()
        for group in list(self._groups):
            _kill_group(group)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - MAX_OUTPUT))
        return file.read().decode(errors="replace").replace("\r", "\n")


def check(config: CheckConfig) -> list[Result]:
    """Run all steps and return what came of them; it is written step by step."""
    config.out.mkdir(parents=True, exist_ok=True)
    started, seconds = time.monotonic(), 60 * config.minutes
    runner = Runner(config.out, started + seconds, started + TESTS_SHARE * seconds)
    made = {"torch": torch.__version__, "python": sys.version.split()[0], "device": config.device}
    if config.device.startswith("cuda"):
        made["device"] = torch.cuda.get_device_name(torch.device(config.device))
    results: list[Result] = []
    num_at_once = max(1, min(MAX_AT_ONCE, (os.cpu_count() or 1) // 2))
    with ThreadPoolExecutor(num_at_once) as pool:
        try:
            for result in _run_all(find_steps(config), runner, pool):
                results.append(result)
                write(config.out, made, results)
                print(f"{result.outcome}: {result.name}: {result.result}", flush=True)
        finally:
            runner.end()
            pool.shutdown(cancel_futures=True)
    return results


def _run_all(steps: Iterable[Step], runner: Runner, pool: ThreadPoolExecutor) -> Iterator[Result]:
    """Yield results as they are there."""
    for is_test, group in itertools.groupby(steps, lambda step: step.is_test):
        if is_test:
            for future in as_completed([pool.submit(runner.run, step) for step in group]):
                yield future.result()
        else:
            yield from map(runner.run, group)


def write(out: Path, made: dict[str, str], results: list[Result]) -> None:
    """Write what there is so far, as JSON and as a table."""
    write_json(out / "check.json", {**made, "steps": [asdict(result) for result in results]})
    rows = [
        table_row((r.name, r.outcome, f"{r.seconds:.0f}", r.result.replace("|", "/")))
        for r in results
    ]
    head = f"{made['device']}, torch {made['torch']}, Python {made['python']}\n"
    table = [table_head(("step", "outcome", "seconds", "result")), *rows]
    (out / "check.md").write_text("\n".join([head, *table]) + "\n", encoding="utf-8")


def main() -> None:
    """Read the options and check."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what runs, too
    with fail_with_one_line("what had ended is written"):
        config = tyro.cli(CheckConfig, prog="python -m experiments.gpu_check")
        results = check(config)
        failed = [result.name for result in results if result.outcome in ("failed", "out of time")]
        print(f"Written: {config.out / 'check.md'}; {len(failed)} of {len(results)} steps failed")


if __name__ == "__main__":
    main()
