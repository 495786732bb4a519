"""Measure training beside another checkout: see `python -m experiments.benchmark against --help`.

This file is a program, too: one process of it for each checkout iterates whenever it is told to.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Self

import torch
import tyro

HERE = Path(__file__).parents[2]
NEEDED = "experiments/benchmarks/train_benchmark.py"


@dataclass(frozen=True, kw_only=True)
class AgainstConfig:
    """Training beside another checkout: frames a second of both, in turns."""

    other: Annotated[Path, tyro.conf.Positional]
    """Folder of the other checkout of this project: git worktree add makes one of any commit."""
    rows: tuple[str, ...] = ("defaults, plain", "defaults, 16 envs")
    """Names of rows of `experiments.benchmark train`."""
    env: str = "MiniGrid-MemoryS9-v0"
    """Environment."""
    turns: int = 9
    """Iterations of each, after one; the median of their ratios counts."""
    num_threads: int = 1
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ValueError(f"turns={self.turns} must be 1 or more")
        from mtxl_rl.device import check_threads  # not above, as in `measure_against`

        check_threads(self.num_threads)


def measure_against(config: Annotated[AgainstConfig, tyro.conf.OmitArgPrefixes]) -> None:
    """Training beside another checkout: frames a second of both, in turns, and their ratio.

    Args:
        config: what to measure.

    Raises:
        ValueError: for a folder that is no checkout, for a row that is none, or where one of the
            two cannot be measured.
    """
    # not above: as a program this file imports those of a checkout
    from experiments.benchmarks.train_benchmark import named_settings
    from experiments.tables.markdown import table_head, table_row

    if not (config.other / NEEDED).is_file():
        raise ValueError(f"other={config.other} has no {NEEDED}; pass a checkout that has it")
    settings = named_settings(config.rows, torch.device("cpu"))
    if ranks := [setting.name for setting in settings if setting.num_ranks > 1]:
        raise ValueError(f"rows={ranks} are of several ranks; leave them out")
    print(f"{config.env}, torch {torch.__version__}, {config.num_threads} threads; the other is "
          f"{config.other}\n")  # fmt: skip
    print(table_head(("row", "envs x steps", "frames/s of the other", "of this one", "ratio")))
    for setting in settings:
        num_threads = setting.num_threads or config.num_threads
        order = json.dumps([config.env, asdict(setting), num_threads])
        with ExitStack() as stack:
            both = [stack.enter_context(_Program(place, order)) for place in (config.other, HERE)]
            for program in both:
                program.seconds()  # one after the other: nothing disturbs compiling
            times = [[program.seconds() for program in both] for _ in range(config.turns)]
        frames = setting.num_envs * setting.rollout_len
        theirs, ours = (frames / statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(other / own for other, own in times)
        cells = (setting.name, f"{setting.num_envs} x {setting.rollout_len}", f"{theirs:,.0f}",
                 f"{ours:,.0f}", f"{ratio:.2f}")  # fmt: skip
        print(table_row(cells), flush=True)


class _Program:
    """A process that iterates in a checkout, when it is told to."""

    def __init__(self, checkout: Path, order: str):
        # a file, as nobody reads a pipe before the end
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, __file__, order], cwd=checkout, text=True,
            env=os.environ | {"PYTHONPATH": str(checkout.resolve())},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def seconds(self) -> float:
        """Return those of the next iteration."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # it says why
            print(file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            process.wait()
            self._errors.seek(0)
            reason = self._errors.read().strip().splitlines()[-1:]
            raise ValueError(f"training ended: {''.join(reason) or 'its process was killed'}")
        return float(line)


def _serve(env_id: str, setting: dict[str, Any], num_threads: int) -> None:
    """Iterate for each line of the input, and print the seconds."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever else is printed is no answer
    from experiments.benchmarks import train_benchmark as benchmark  # of the checkout

    torch.set_num_threads(num_threads)
    device = torch.device("cpu")
    known = {option.name for option in fields(benchmark.Setting)}  # another one may lack some
    row = benchmark.Setting(**{name: value for name, value in setting.items() if name in known})
    trainer = benchmark.make_trainer(env_id, row, device)
    if setting["compile"] != "off":
        trainer = benchmark.accelerate(trainer)
    for _ in sys.stdin:
        print(sum(benchmark.iterate(trainer, device)), file=answers, flush=True)


if __name__ == "__main__":
    _serve(*json.loads(sys.argv[1]))
