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
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from experiments.benchmarks.train_benchmark import GPU_SETTINGS
from experiments.tables.markdown import table_head, table_row
from mtxl_rl.command import fail_with_one_line

Part = Literal["tests", "envs", "train", "minigrid", "recall"]
PARTS: tuple[Part, ...] = ("tests", "envs", "train", "minigrid", "recall")
RECALL_OPTIONS = [
    "--core.mem-write", "first", "--core.mem-len", "8", "--core.seq-len", "8", "--core.lmem-len",
    "16", "--core.no-past-action", "--ppo.rollout-len", "128",
]  # fmt: skip
"""Those of docs/results.md."""
KILL_SECONDS = 5.0
"""Between the request to end and the end."""
MAX_AT_ONCE = 8
"""Tests; each takes ten seconds to load what it needs, and hardly uses a GPU."""


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
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                "device=cuda: torch sees no GPU here; pass --device cpu --small for a rehearsal"
            )


@dataclass(frozen=True)
class Step:
    """A command, and what is taken from what it prints."""

    name: str
    arguments: list[str]  # of this Python
    seconds: float  # its limit
    read: Callable[[str], str]  # "" where there is no result
    at_once: bool = False  # whether others like it may run beside it


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
    for name in gpu_tests()[: 1 if config.small else None]:
        command = ["-m", "pytest", "-q", "-rs", "-p", "no:xdist", name]
        yield Step(name, command, 90, last_line, at_once=True)


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
    command = [sys.executable, *shlex.split("-m pytest --collect-only -q -m gpu -p no:xdist")]
    listed = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    tests = re.findall(r"^tests/\S+::.+$", listed.stdout, flags=re.MULTILINE)
    if not tests:
        raise ValueError(
            f"no test marked gpu was found: {last_line(listed.stdout + listed.stderr)}; install "
            "pytest, and start this in the repository's root"
        )
    return tests


def last_line(output: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def table_lines(output: str) -> str:
    """Return the rows of Markdown tables, without heads."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return "; ".join(line.strip("| ").replace(" | ", ", ") for line in lines[2:])


def training_lines(output: str) -> str:
    """Return what a training run says at its end."""
    lines = re.findall(r"^(?:Trained|Success rate): *(.+)$", output, flags=re.MULTILINE)
    return "; ".join(lines)


def run_step(step: Step, log: Path, until: float) -> Result:
    """Run a step until then at most, unless that is too soon to begin."""
    started = time.monotonic()
    command = [sys.executable, *step.arguments]
    words = shlex.join(["python", *step.arguments])
    seconds = min(step.seconds, until - started)
    if seconds <= KILL_SECONDS and seconds < step.seconds:
        return Result(step.name, words, "left out", 0.0, "the minutes were over")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            outcome = "ok" if process.wait(seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            outcome = "out of time"
            process.terminate()  # a run saves what it has
            try:
                process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    output = log.read_text(encoding="utf-8", errors="replace")
    result = step.read(output) if outcome == "ok" else ""
    if outcome == "ok" and not result:
        outcome = "failed"
    took = time.monotonic() - started
    return Result(step.name, words, outcome, took, result or last_line(output))


def check(config: CheckConfig) -> list[Result]:
    """Run all steps and return what came of them; it is written step by step."""
    config.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * config.minutes
    results: list[Result] = []
    numbers = itertools.count()

    def run(step: Step) -> Result:
        return run_step(step, config.out / f"{next(numbers):02}.log", until)

    num_at_once = max(1, min(MAX_AT_ONCE, (os.cpu_count() or 1) // 2))
    with ThreadPoolExecutor(num_at_once) as pool:
        for at_once, steps in itertools.groupby(find_steps(config), lambda step: step.at_once):
            for result in pool.map(run, steps) if at_once else map(run, steps):
                results.append(result)
                write(config, results)
                print(f"{result.outcome}: {result.name}: {result.result}", flush=True)
    return results


def write(config: CheckConfig, results: list[Result]) -> None:
    """Write what there is so far, as JSON and as a table."""
    name = torch.cuda.get_device_name() if config.device == "cuda" else config.device
    made = {"torch": torch.__version__, "python": sys.version.split()[0], "device": name}
    everything = {**made, "steps": [asdict(result) for result in results]}
    (config.out / "check.json").write_text(
        json.dumps(everything, indent=2) + "\n", encoding="utf-8"
    )
    rows = [
        table_row((r.name, r.outcome, f"{r.seconds:.0f}", r.result.replace("|", "/")))
        for r in results
    ]
    head = f"{name}, torch {made['torch']}, Python {made['python']}\n"
    table = [table_head(("step", "outcome", "seconds", "result")), *rows]
    (config.out / "check.md").write_text("\n".join([head, *table]) + "\n", encoding="utf-8")


def main() -> None:
    """Read the options and check."""
    with fail_with_one_line():
        config = tyro.cli(CheckConfig, prog="python -m experiments.gpu_check")
        results = check(config)
        failed = [result.name for result in results if result.outcome in ("failed", "out of time")]
        print(f"Written: {config.out / 'check.md'}; {len(failed)} of {len(results)} steps failed")


if __name__ == "__main__":
    main()
