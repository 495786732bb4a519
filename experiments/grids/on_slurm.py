"""Cells as one array job of Slurm, by submitit: what the time limit interrupts goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.grids.grid import Cell
from experiments.grids.work import Work, notes, why_not_seen
from mtxl_rl.runs.progress import say

if TYPE_CHECKING:
    import submitit

_POLL_SECONDS = 2.0
_MAX_REQUEUES = 1000
"""Of a cell that reaches the time limit. submitit gives up after three."""
_OWN = ("array", "cpus-per-task", "error", "gpus-per-node", "open-mode", "output", "partition",
        "requeue", "no-requeue", "signal", "time")  # fmt: skip
"""Options of sbatch by which cells go on and are found: those that others could change have names
of their own here."""
_ALIVE = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED")


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What each cell asks of Slurm, by submitit's names."""

    partition: str | None = None
    """Left out: the cluster's own."""
    time: int = 60
    """Minutes after which a cell is interrupted, goes into the queue again, and goes on."""
    signal_delay_s: int = 90
    """Seconds before that in which a cell ends its update and saves."""
    cpus_per_task: int = 1
    """Also the threads of a cell, where --num-threads is left out."""
    gpus_per_node: int = 0
    additional_parameters: dict[str, str] = field(default_factory=dict)
    """Any other options of sbatch, each with its value: account lab mem 8G."""

    def __post_init__(self) -> None:
        if self.cpus_per_task < 1 or self.gpus_per_node < 0:
            raise ValueError(
                f"cpus_per_task={self.cpus_per_task} and gpus_per_node={self.gpus_per_node} must "
                "be at least 1 and 0; set --slurm.cpus-per-task and --slurm.gpus-per-node"
            )
        if not 0 < self.signal_delay_s < 60 * self.time:
            raise ValueError(
                f"signal_delay_s={self.signal_delay_s} must be from 1 second to less than the "
                f"time={self.time} minutes; set --slurm.signal-delay-s or --slurm.time"
            )
        given = {name.replace("_", "-") for name in self.additional_parameters}
        if own := sorted(given.intersection(_OWN)):
            raise ValueError(
                f"additional_parameters cannot have {', '.join(own)}, which the command sets "
                "itself; set --slurm.time and the like, where there is one"
            )


def run_cells(
    cells: Sequence[Cell], config: SlurmConfig, num_jobs: int | None, *, dry_run: bool
) -> dict[str, str]:
    """Put cells into the queue and wait for them; return why those failed that did.

    Those that are in the queue since the same command was given before are waited for only.

    Raises:
        ValueError: where there is no Slurm.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError:
        raise ValueError(
            "executor='slurm' needs submitit; install it by pip install -e \".[slurm]\", or leave "
            "--executor out"
        ) from None
    if not all(map(shutil.which, ("srun", "sbatch"))):
        raise ValueError(
            "executor='slurm' needs srun and sbatch, which are not on this machine; give the "
            "command on the cluster's login node, or leave --executor out"
        )
    folder = cells[0].run_dir.parent / ".cells" / "slurm"
    executor = submitit.SlurmExecutor(folder, max_num_timeout=_MAX_REQUEUES)
    options: dict[str, Any] = {"partition": config.partition} if config.partition else {}
    executor.update_parameters(
        job_name=folder.parents[1].name,
        time=config.time,
        signal_delay_s=config.signal_delay_s,
        cpus_per_task=config.cpus_per_task,
        array_parallelism=num_jobs or len(cells),
        additional_parameters={"requeue": True} | config.additional_parameters,
        **options,
        **({"gpus_per_node": config.gpus_per_node} if config.gpus_per_node else {}),
    )
    jobs = {cell.name: job for cell in cells if (job := _queued(folder, cell)) is not None}
    for name, job in jobs.items():
        say(f"in the queue  {name}: job {job.job_id}")
    new = [cell for cell in cells if cell.name not in jobs]
    if dry_run:
        if new:
            say(_script(executor, len(new)))
        return {}
    try:
        jobs |= submit(executor, new, config.cpus_per_task)
    except (FailedJobError, FailedSubmissionError) as error:
        raise ValueError(
            f"sbatch has refused the job ({error}), and nothing was submitted; give options that "
            "this cluster allows: --dry-run shows them"
        ) from None
    try:
        return wait(jobs, {cell.name: cell.run_dir for cell in cells})
    except KeyboardInterrupt:
        numbers = sorted({job.job_id.partition("_")[0] for job in jobs.values()})
        say(f"The jobs go on without this command; scancel {' '.join(numbers)} stops them")
        raise


def submit(
    executor: submitit.Executor, cells: Sequence[Cell], num_threads: int
) -> dict[str, submitit.Job[str | None]]:
    """Put cells into the queue; return their jobs by the cells' names."""
    if not cells:
        return {}
    here = Path.cwd()
    notes(cells[0].run_dir, "").parent.mkdir(parents=True, exist_ok=True)
    jobs = executor.submit_array([Work(cell.to_json(num_threads), here) for cell in cells])
    for cell, job in zip(cells, jobs, strict=True):
        notes(cell.run_dir, ".job").write_text(job.job_id, encoding="utf-8")
        say(f"submitted     {cell.name}: job {job.job_id}, it {cell.what_it_does}")
    return {cell.name: job for cell, job in zip(cells, jobs, strict=True)}


def wait(
    jobs: Mapping[str, submitit.Job[str | None]], run_dirs: Mapping[str, Path]
) -> dict[str, str]:
    """Return why those failed that did, when all have ended."""
    failed = {}
    running = dict(jobs)
    while running:
        for name, job in list(running.items()):
            if not job.done():
                continue
            del running[name]
            try:
                reason = job.result() or why_not_seen(run_dirs[name])
            except Exception as error:  # of whatever the job has raised, or Slurm has done
                what = f"{type(error).__name__}, state {job.state}"
                reason = f"job {job.job_id} has ended: {what} (all of it: {job.paths.stderr})"
            if reason is None:
                say(f"finished      {name}")
            else:
                failed[name] = reason
                say(f"failed        {name}: {reason}")
        time.sleep(_POLL_SECONDS)
    return failed


def _queued(folder: Path, cell: Cell) -> submitit.Job[str | None] | None:
    """Return the job of a cell that Slurm still has."""
    import submitit

    path = notes(cell.run_dir, ".job")
    if not path.is_file():
        return None
    job: submitit.SlurmJob[str | None] = submitit.SlurmJob(folder, path.read_text(encoding="utf-8"))
    return job if job.state.split()[0] in _ALIVE else None


def _script(executor: submitit.SlurmExecutor, num_cells: int) -> str:
    """Return what sbatch would get; submitit itself shows it only once it has submitted it."""
    if num_cells > 1:
        executor.parameters["map_count"] = num_cells
    return executor._make_submission_file_text(executor._submitit_command_str, "dry-run")
