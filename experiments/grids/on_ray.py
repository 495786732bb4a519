"""Cells as tasks of Ray: one whose node is lost is run again elsewhere, and goes on."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.grids.grid import Cell
from experiments.grids.work import Work, why_not_seen
from mtxl_rl.command import RunFailed
from mtxl_rl.runs.progress import say

_MAX_RETRIES = 100
"""Of a cell, after each time that its node is lost. Ray gives up after three."""
_STOP_SECONDS = 120.0
_REACH_SECONDS = 10.0
_ON_THIS_MACHINE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as on these: listen on 127.0.0.1 only
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """What each cell asks of Ray, by its names."""

    address: str | None = None
    """Of a cluster that runs, as ray.init takes it: HOST:PORT, or auto for the one that this
    machine belongs to. Left out: one is started for the grid on this machine alone, listening on
    127.0.0.1."""
    num_cpus: int = 1
    """Also the threads of a cell, where --num-threads is left out."""
    num_gpus: float = 0.0
    """.25 lets four cells share a GPU: its memory is not divided by Ray."""

    def __post_init__(self) -> None:
        if self.address is not None and not re.fullmatch(r"auto|[^/]+:\d+", self.address):
            raise ValueError(
                f"address={self.address!r} must be HOST:PORT, as ray start says it, or auto; leave "
                "--ray.address out for a cluster of this machine alone"
            )
        if self.num_cpus < 1:
            raise ValueError(f"num_cpus={self.num_cpus} must be 1 or more; set --ray.num-cpus")
        is_part = 0 <= self.num_gpus <= 1 and self.num_gpus == round(self.num_gpus, 4)
        is_whole = self.num_gpus >= 0 and self.num_gpus % 1 == 0  # neither NaN nor infinite
        if not (is_part or is_whole):
            raise ValueError(
                f"num_gpus={self.num_gpus} must be from 0 to 1 in steps of .0001, or a whole "
                "number; set --ray.num-gpus"
            )


def run_cells(
    cells: Sequence[Cell], config: RayConfig, num_jobs: int | None, *, dry_run: bool
) -> dict[str, str]:
    """Run cells as tasks; return why those failed that did.

    Raises:
        ValueError: where Ray, or a cluster at the address, is not there.
    """
    if config.address is None:  # read when Ray is imported
        os.environ.update(_ON_THIS_MACHINE)
    try:
        import ray  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "executor='ray' needs Ray; install it by pip install -e \".[ray]\", or leave "
            "--executor out"
        ) from None
    where = config.address or "a cluster of this machine, started for it on 127.0.0.1"
    asks = {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus}
    if dry_run:
        at_once = f", {num_jobs} at a time" if num_jobs else ""
        say(f"Would run:    a task for each{at_once} with {asks} on {where}")
        return {}
    try:
        _reach(config.address)
        ray.init(config.address or "local", include_dashboard=None if config.address else False)
    except (OSError, OverflowError, RuntimeError, ValueError, RayError) as error:
        if config.address is None:
            raise RunFailed(f"Ray does not start on this machine: {error}") from error
        raise ValueError(
            f"ray.address={config.address!r} cannot be joined ({error}); start a cluster there by "
            "ray start --head, with this version of Ray, or leave --ray.address out"
        ) from None
    try:
        address = ray.get_runtime_context().gcs_address
        say(f"Ray:          {address}, {_describe(ray.cluster_resources())}")
        takes_gpus = any(cell.config.device != "cpu" for cell in cells)
        _warn_of_misfits(ray.nodes(), asks, takes_gpus, is_alone=config.address is None)
        return _run(cells, asks, num_jobs or len(cells))
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Raise OSError where nobody listens: Ray would try for minutes, deaf to Ctrl-C."""
    host, _, port = (address or "").rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()


def _run(cells: Sequence[Cell], asks: dict[str, Any], num_jobs: int) -> dict[str, str]:
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    # a process of its own for each: who is told to stop is not used again
    task = ray.remote(**asks, max_retries=_MAX_RETRIES, max_calls=1)(_call)
    here, waiting = Path.cwd(), list(reversed(cells))
    running: dict[Any, Cell] = {}
    failed = {}
    try:
        while waiting or running:
            while waiting and len(running) < num_jobs:
                cell = waiting.pop()
                work = Work(cell.to_json(asks["num_cpus"]), here)
                running[task.options(name=cell.name).remote(work)] = cell
                say(f"submitted     {cell.name}: it {cell.what_it_does}")
            (done, *_), _ = ray.wait(list(running))
            cell = running.pop(done)
            try:
                reason = ray.get(done) or why_not_seen(cell.run_dir)
            except RayError as error:
                reason = str(error).strip().splitlines()[-1]
            if reason is None:
                say(f"finished      {cell.name}")
            else:
                failed[cell.name] = reason
                say(f"failed        {cell.name}: {reason}")
    finally:
        for task in running:
            ray.cancel(task)
        if running:  # they save
            ray.wait(list(running), num_returns=len(running), timeout=_STOP_SECONDS)
    return failed


def _call(work: Work) -> str | None:
    return work()


def _describe(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def _warn_of_misfits(
    nodes: Sequence[dict[str, Any]], asks: dict[str, Any], takes_gpus: bool, is_alone: bool
) -> None:
    """Say where a cell waits for a node that is not there, or leaves GPUs alone.

    Raises:
        ValueError: where no other can join.
    """
    there = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(each.get("CPU", 0) >= asks["num_cpus"] and each.get("GPU", 0) >= asks["num_gpus"]
               for each in there):  # fmt: skip
        has = "; ".join(map(_describe, there))
        if is_alone:
            raise ValueError(
                f"a cell asks for {asks}, and this machine has {has}; set --ray.num-cpus and "
                "--ray.num-gpus to no more, or --ray.address to a cluster that others can join"
            )
        say(f"warning: no node has {asks} now ({has}): cells wait until one joins")
    if takes_gpus and not asks["num_gpus"] and any(each.get("GPU", 0) for each in there):
        say("warning: cells get no GPU, though there are some: set --ray.num-gpus, or --device cpu")
