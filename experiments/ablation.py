r"""Run a grid of trainings, and make its table and figures.

    python -m experiments.ablation memory_lengths --env MiniGrid-MemoryS13-v0 \
        --mem-len 0 8 32 128 --lmem-len 0 4 16 64 --seeds 5
    python -m experiments.ablation grid --env mtxl/TMaze50-v0 --seeds 3 \
        --over core.gate nbrc gru residual --over core.mem-write-iters 1 2
    python -m experiments.ablation grid --env mtxl/Recall20-v0 --equal parameters \
        --over core.kind mtxl gtrxl gru lstm mingru deltanet feedforward

Every cell is an ordinary run directory. Killed and started again with the same options, a grid
goes on where it was: a finished cell is never run again, one that was interrupted goes on from its
last checkpoint. A cell that fails is reported at the end and tried again the next time; the others
go on. --executor slurm and --executor ray run the cells on a cluster (docs/scale.md).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Literal

import tyro

from agents import ranks
from agents.cores.memory_core import MTXLConfig
from envs.wrapped.processes import num_cores
from experiments.grids import local, on_ray, on_slurm
from experiments.grids.grid import Cell, make_cells, parse_axes
from experiments.grids.on_ray import RayConfig
from experiments.grids.on_slurm import SlurmConfig
from experiments.grids.widths import Size
from experiments.plots import plot
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.json_form import short_name
from mtxl_rl.config.option_types import Place
from mtxl_rl.device import pick_device
from mtxl_rl.options import of_kind, split_kinds
from mtxl_rl.runs.progress import say
from mtxl_rl.signals import heeded

Base = Annotated[TrainConfig, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """How a grid is run."""

    seeds: int = 5
    """Seeds of each combination."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """What runs the cells: processes on this machine, an array job of Slurm, or tasks of Ray."""
    jobs: int | None = None
    """Runs at a time. Left out: one for each core, or one on a GPU; with another executor than
    local as many as it has place for."""
    dry_run: bool = False
    """Print what would be started, and start nothing."""
    folder: Place | None = None
    """Of the grid. Left out: runs/, named by the kind of grid and the environment."""
    after: Place | None = None
    """Folder of a grid of the same cells, from whose weights these start: a curriculum."""
    equal: Size | None = None
    """Give the agents of all cells as many parameters, or floats of state, as the one without
    --over has: each gets the width that comes nearest. Left out: --core.dim for all."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        for name, given in (("slurm", self.slurm), ("ray", self.ray)):
            if given != type(given)() and self.executor != name:
                raise ValueError(
                    f"options of {name} have no effect with executor={self.executor!r}; leave them "
                    f"out, or set --executor {name}"
                )


Grid = Annotated[GridConfig, tyro.conf.arg(name="")]


def memory_lengths(
    base: Base,
    config: Grid,
    mem_len: tuple[int, ...] = (0, 8, 32, 128),
    lmem_len: tuple[int, ...] = (0, 4, 16, 64),
) -> None:
    """Train at every combination of lengths of the short and the long memory.

    Args:
        base: All other options are those of mtxl_rl.train.
        config: How the grid is run.
        mem_len: Steps of short memory.
        lmem_len: Slots of long memory.
    """
    if not isinstance(base.core, MTXLConfig):
        raise ValueError(
            f"core.kind={base.core.kind} has no two lengths of memory; leave out --core.kind, or "
            "use grid"
        )
    for name, given in (("mem_len", base.core.mem_len), ("lmem_len", base.core.lmem_len)):
        if given != getattr(MTXLConfig, name):
            raise ValueError(f"core.{name}={given} is varied here; set --{name.replace('_', '-')}")
    axes = {
        "core.mem_len": [str(length) for length in mem_len],
        "core.lmem_len": [str(length) for length in lmem_len],
    }
    _run("memory_lengths", base, axes, config)


def grid(
    base: Base,
    config: Grid,
    over: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = (),
    of_others: tyro.conf.Suppress[tuple[str, ...]] = (),
) -> None:
    """Train at every combination of the values of some options.

    Args:
        base: All other options are those of mtxl_rl.train.
        config: How the grid is run.
        over: An option and its values: --over core.gate nbrc gru. Once for each option.
        of_others: Options of cores that the base's core does not have.
    """
    axes = parse_axes(over)
    _run(f"grid__{'+'.join(map(short_name, axes))}", base, axes, config, of_others)


def _run(
    kind: str,
    base: TrainConfig,
    axes: Mapping[str, Sequence[str]],
    config: GridConfig,
    of_others: Sequence[str] = (),
) -> None:
    jobs, after = config.jobs, config.after
    if ranks.is_launched():
        raise ValueError(
            "torchrun is for one run on several ranks, and its processes would each run the whole "
            "grid; give the command by itself, with --jobs for the number of runs at a time"
        )
    if base.run_dir is not None:
        raise ValueError(f"run_dir={base.run_dir} is for one run; set --folder for a grid")
    if base.init_from is not None and after is not None:
        raise ValueError(f"init_from={base.init_from} and after={after} exclude each other")
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs={jobs} must be 1 or more; set --jobs")
    folder = config.folder or Path("runs") / f"{kind}__{base.env.replace('/', '_')}"
    cells = make_cells(folder, base, axes, config.seeds, after, config.equal, of_others)
    failed = _run_cells(cells, base, config)
    if config.dry_run:
        return
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    if any(cell.is_finished for cell in cells):
        plot(folder, by=tuple(axes))
        print((folder / "table.md").read_text(encoding="utf-8"), end="")
    if failed:
        print(f"error: {len(failed)} of {len(cells)} cells failed; the same command tries them "
              "again", file=sys.stderr)  # fmt: skip
        sys.exit(1)


def _run_cells(cells: Sequence[Cell], base: TrainConfig, config: GridConfig) -> dict[str, str]:
    """Run those that are not finished; return why those failed that did."""
    waiting = [cell for cell in cells if not cell.is_finished]
    say(f"Grid:         {len(cells)} cells, {len(cells) - len(waiting)} finished before")
    if config.dry_run:
        for cell in waiting:
            say(f"{cell.what_it_does:14s}{cell.run_dir}")
    if not waiting:
        return {}
    if not config.dry_run:
        _check_writable(waiting[0].run_dir.parent)
    if config.executor == "local":
        return local.run_cells(waiting, config.jobs or _num_jobs(base), dry_run=config.dry_run)
    gpus = {"slurm": config.slurm.gpus_per_node, "ray": config.ray.num_gpus}[config.executor]
    if base.device.startswith("cuda") and not gpus:
        option = {"slurm": "--slurm.gpus-per-node", "ray": "--ray.num-gpus"}[config.executor]
        raise ValueError(f"device={base.device!r}, but the cells ask for no GPU; set {option}")
    if config.executor == "slurm":
        return on_slurm.run_cells(waiting, config.slurm, config.jobs, dry_run=config.dry_run)
    return on_ray.run_cells(waiting, config.ray, config.jobs, dry_run=config.dry_run)


def _check_writable(folder: Path) -> None:
    try:
        (folder / ".cells").mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder / ".cells").close()
    except OSError as error:
        raise ValueError(
            f"folder={folder} cannot be written ({error}); set --folder to another one"
        ) from None


def _num_jobs(base: TrainConfig) -> int:
    if pick_device(base.device).type == "cuda":
        return 1
    return max(1, num_cores() // (base.num_threads or 1))


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Read the options and run the grid."""
    for number in heeded():
        signal.signal(number, _stop)
    with fail_with_one_line("the same command goes on with the grid"):
        arguments = ["memory_lengths" if arg == "memory-lengths" else arg for arg in sys.argv[1:]]
        arguments, of_others = split_kinds(arguments, TrainConfig().core.kind)
        base = of_kind(TrainConfig(), arguments)
        tyro.extras.subcommand_cli_from_dict(
            {
                "memory_lengths": partial(memory_lengths, base=base),
                "grid": partial(grid, base=base, of_others=tuple(of_others)),
            },
            prog="python -m experiments.ablation",
            args=arguments,
            sort_subcommands=False,
        )


if __name__ == "__main__":
    main()
