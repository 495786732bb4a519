"""Train for a while and watch the memory of the process: it must be flat.

    python -m experiments.benchmarks.soak                       # ten minutes
    python -m experiments.benchmarks.soak --minutes 60 --env mtxl/TMaze1000-v0 --core.kind gru

Options that are not its own go to `mtxl_rl.train`. Linux only: it reads /proc. Exit code 1 if
memory has grown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.tables.markdown import table_head, table_row
from mtxl_rl.command import fail_with_one_line

SAMPLE_SECONDS = 5.0
WARM_UP_SHARE = 0.3
"""Of the time: imports, compiling, the first rollouts and checkpoints."""
TOLERANCE = 0.02
"""Largest growth after the warm-up that counts as flat."""


@dataclass(frozen=True, kw_only=True)
class SoakConfig:
    """Train and watch the memory. Other options are those of mtxl_rl.train."""

    minutes: float = 10.0
    """Length of the run."""


def soak(config: SoakConfig, options: list[str]) -> bool:
    """Train with `options`, print the memory by the minute, and return whether it was flat.

    Raises:
        ValueError: when training ends early.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mtxl_rl.train", "--total-frames", str(10**12),
                   "--run-dir", f"{folder}/run", *options]  # fmt: skip
        log = Path(folder, "log")
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            samples = watch(process, 60 * config.minutes)
        except ProcessLookupError:
            raise ValueError(
                f"training ended early: {log.read_text(encoding='utf-8')[-500:]}"
            ) from None
        finally:
            process.kill()
            process.wait()
    samples = samples[int(WARM_UP_SHARE * len(samples)) :]
    middle = len(samples) // 2
    growth = max(samples[middle:]) / max(samples[:middle]) - 1
    print(f"\nGrowth after the warm-up: {growth:+.2%} (at most {TOLERANCE:.0%} is flat)")
    return growth <= TOLERANCE


def watch(process: subprocess.Popen, seconds: float) -> list[int]:
    """Return the resident bytes every few seconds."""
    samples: list[int] = []
    started = time.monotonic()
    print(table_head(("minute", "resident, MB")))
    while (elapsed := time.monotonic() - started) < seconds:
        time.sleep(SAMPLE_SECONDS)
        if process.poll() is not None:
            raise ProcessLookupError
        samples.append(resident_bytes(process.pid))
        if int(elapsed // 60) != int((elapsed + SAMPLE_SECONDS) // 60):
            cells = (str(int(elapsed // 60) + 1), f"{samples[-1] / 1e6:,.0f}")
            print(table_row(cells), flush=True)
    return samples


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError


def main() -> None:
    """Read the options, train and watch."""
    with fail_with_one_line():
        config, options = tyro.cli(
            SoakConfig, prog="python -m experiments.benchmarks.soak", return_unknown_args=True
        )
        sys.exit(0 if soak(config, options) else 1)


if __name__ == "__main__":
    main()
