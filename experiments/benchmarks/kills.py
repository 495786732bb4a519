"""Kill a run again and again, resume it, and compare it with one that was never stopped.

    python -m experiments.benchmarks.kills                # 200 kills, about a quarter of an hour
    python -m experiments.benchmarks.kills --kills 20 --seed 2

A kill is SIGKILL at a random moment: of the start, of an update, while a checkpoint is saved. At
the end weights, optimizer, memories, environments and random numbers must be equal to the bit, and
curves and evaluation too. Exit code 1 where they are not.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.tables.runs import curve_tags, read_curve, read_events
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.run_directory import read_json

FRAMES_PER_UPDATE = 6 * 20
UPDATES_PER_CHECKPOINT = 3
UPDATES_PER_LIFE = 4
"""On average, of those lives that get as far as to train."""
UPDATES_PER_KILL = 6
"""Length of the run: long enough for all kills."""
OPTIONS = (
    "--env", "MiniGrid-MemoryS7-v0", "--num-envs", "6", "--ppo.rollout-len", "20",
    "--ppo.num-minibatches", "2", "--ppo.num-epochs", "1", "--core.dim", "8", "--core.heads", "2",
    "--core.depth", "1", "--core.seq-len", "10", "--core.mem-len", "5", "--device", "cpu",
    "--num-threads", "1", "--compile", "off", "--eval-episodes", "2", "--checkpoint-every",
    str(UPDATES_PER_CHECKPOINT * FRAMES_PER_UPDATE),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class KillsConfig:
    """Kill a run again and again, resume it, and compare it with one that was never stopped."""

    kills: int = 200
    """How often to kill it."""
    seed: int = 1
    """Of the moments."""
    folder: Path | None = None
    """Where both runs go. Left out: a temporary folder."""

    def __post_init__(self) -> None:
        if self.kills < 1:
            raise ValueError(f"kills={self.kills} must be 1 or more; set --kills")


def kills(config: KillsConfig) -> str | None:
    """Run both, print what happened, and return what differs, None where nothing does.

    Raises:
        ValueError: when a run fails for another reason than a kill.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.folder or Path(temporary)
        whole, killed = folder / "whole", folder / "killed"
        num_updates = UPDATES_PER_KILL * config.kills + 2 * UPDATES_PER_CHECKPOINT
        options = [*OPTIONS, "--total-frames", str(num_updates * FRAMES_PER_UPDATE)]
        started = time.monotonic()
        _run([*options, "--run-dir", str(whole)])
        seconds = time.monotonic() - started
        print(f"never stopped: {num_updates} updates in {seconds:.0f} s", flush=True)
        num_starts = _kill_and_resume(killed, options, config, seconds / num_updates)
        print(f"killed {config.kills} times, started {num_starts} times")
        found = difference(whole, killed)
    print("equal to the bit" if found is None else f"DIFFERENT: {found}")
    return found


def _kill_and_resume(
    run_dir: Path, options: list[str], config: KillsConfig, seconds_per_update: float
) -> int:
    """Start and kill the run until it has been killed often enough, then let it end.

    Returns how often it was started.
    """
    moments = random.Random(config.seed)
    num_kills, num_starts, startup = 0, 0, 3.0
    while num_kills < config.kills:
        process = _start(_begin_or_go_on(run_dir, options))
        num_starts += 1
        started = time.monotonic()
        assert process.stdout is not None
        if moments.random() < 0.2:
            time.sleep(moments.uniform(0, startup))
        else:
            for line in process.stdout:
                if line.startswith("Run:"):  # it is about to train
                    break
            startup = time.monotonic() - started
            time.sleep(moments.expovariate(1 / (UPDATES_PER_LIFE * seconds_per_update)))
        process.kill()
        output = process.communicate()[0]
        if process.returncode > 0:
            raise ValueError(f"start {num_starts} of {run_dir} failed: {output[-1000:]}")
        if process.returncode == 0:
            raise ValueError(f"the run ended after {num_kills} kills; make it longer")
        num_kills += 1
        if num_kills % 20 == 0:
            print(f"{num_kills} kills: {_progress(run_dir)}", flush=True)
    _run(_begin_or_go_on(run_dir, options))
    return num_starts + 1


def _begin_or_go_on(run_dir: Path, options: list[str]) -> list[str]:
    if run_dir.exists():
        return ["--resume", str(run_dir)]
    return [*options, "--run-dir", str(run_dir)]


def _progress(run_dir: Path) -> str:
    found = checkpoint.list_checkpoints(run_dir)
    return found[-1].name if found else "no checkpoint yet"


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "mtxl_rl.train", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    )  # fmt: skip


def _run(arguments: list[str]) -> None:
    process = _start(arguments)
    output = process.communicate()[0]
    if process.returncode != 0:
        raise ValueError(f"training with {' '.join(arguments)} failed: {output[-1000:]}")


def difference(one: Path, other: Path) -> str | None:
    """Return the first thing in which two finished runs differ, None where they are equal."""
    newest = [checkpoint.newest_checkpoint(run_dir) for run_dir in (one, other)]
    if newest[0].name != newest[1].name:
        return f"the last checkpoints, {newest[0].name} and {newest[1].name}"
    for name in (checkpoint.MODEL, checkpoint.TRAINING):
        if (newest[0] / name).read_bytes() != (newest[1] / name).read_bytes():
            return name
    ours, theirs = curves(one), curves(other)
    for tag in sorted(ours.keys() | theirs.keys()):
        if ours.get(tag) != theirs.get(tag):
            return f"the curve {tag}"
    evaluations = [read_json(run_dir / "evaluation.json") for run_dir in (one, other)]
    return "evaluation.json" if evaluations[0] != evaluations[1] else None


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Return every curve but that of the speed."""
    events = read_events(run_dir)
    return {
        tag: [(point.step, point.value) for point in read_curve(events, tag)]
        for tag in curve_tags(events)
        if tag != "charts/SPS"
    }


def main() -> None:
    """Read the options, kill and compare."""
    with fail_with_one_line():
        config = tyro.cli(KillsConfig, prog="python -m experiments.benchmarks.kills")
        sys.exit(0 if kills(config) is None else 1)


if __name__ == "__main__":
    main()
