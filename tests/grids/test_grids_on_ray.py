"""Grids on Ray: a cell whose node or whose command is lost goes on, and ends once."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_grid import (
    ablation,
    cells_of,
    interrupted,
    is_at_gate,
    is_interrupted,
    log_of,
    options,
    trained_by,
    wait_until,
)

from experiments import plots
from experiments.grids import on_ray
from experiments.grids.grid import make_cells
from experiments.grids.on_ray import RayConfig
from mtxl_rl.train import read_options

os.environ |= {  # read when Ray is imported
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on 127.0.0.1 only
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


def test_a_killed_command_goes_on_where_it_was(cluster: Any, tmp_path: Path) -> None:
    gate, cells = tmp_path / "gate", cells_of(tmp_path / "grid", 2)
    arguments = (*options(tmp_path / "grid", gate, 2), "--executor", "ray", "--ray.address",
                 cluster.address)  # fmt: skip
    first = ablation(*arguments)
    wait_until(lambda: all(map(is_at_gate, cells)) or first.poll() is not None)
    first.kill()
    first.communicate()
    second = ablation(*arguments)
    wait_until(lambda: all(map(is_interrupted, cells)))
    gate.touch()
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert len(interrupted(cells)) == 2
    assert out.count("finished      mem_len=") == 2


@pytest.mark.proof  # it waits for a minute
def test_a_cell_whose_node_is_removed_goes_on_elsewhere(cluster: Any, tmp_path: Path) -> None:
    folder, gate = tmp_path / "grid", tmp_path / "gate"
    cells = cells_of(folder)
    driver = ablation(*options(folder, gate), "--executor", "ray", "--ray.address",
                      cluster.address)  # fmt: skip
    wait_until(lambda: sum(map(is_at_gate, cells)) == 2 or driver.poll() is not None)

    plots.plot(folder, out=tmp_path / "meanwhile")  # while two of four are in the middle
    rows = (tmp_path / "meanwhile" / "table.md").read_text().splitlines()
    assert len(rows) == 2 + 2

    (node,) = cluster.worker_nodes
    raylet = node.all_processes["raylet"][0].process.pid
    (lost,) = [cell for cell in cells if trained_by(raylet, cell)]
    cluster.remove_node(node, allow_graceful=False)
    wait_until(lambda: is_interrupted(lost) or not trained_by(0, lost))  # there is no other CPU
    gate.touch()
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    assert interrupted(cells) == [lost.name]
    assert out.count("finished      mem_len=") == 4
    assert len([line for line in out.splitlines() if re.match(r"\| [04] +\| [02]", line)]) == 4


def test_stopped_it_stops_its_cells_and_others_cannot_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name)
    gate, cells = tmp_path / "gate", cells_of(tmp_path / "grid", 2)
    arguments = (*options(tmp_path / "grid", gate, 2), "--executor", "ray")
    driver = ablation(*arguments, "--jobs", "1")
    wait_until(lambda: any(map(is_at_gate, cells)) or driver.poll() is not None)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    wait_until(lambda: is_interrupted(cells[0]))
    gate.touch()
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 130, err
    assert "interrupted; the same command goes on with the grid" in err
    assert "stopped by SIGINT; what was trained is in the run's last checkpoint" in log_of(cells[0])
    assert not cells[1].exists()
    said = re.search(r"Ray: +(\S+):\d+, ", out)
    assert said is not None
    assert socket.gethostbyname(said[1]) == "127.0.0.1"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [*(({"address": name}, f"address='{name}' must be HOST:PORT") for name in ("", "local", "x")),
     ({"num_cpus": 0}, "num_cpus=0 must be 1 or more"),
     ({"num_gpus": 1.5}, "num_gpus=1.5 must be from 0 to 1 in steps of .0001, or a whole number"),
     ({"num_gpus": 0.33333}, "num_gpus=0.33333 must be"),
     *(({"num_gpus": n}, f"num_gpus={n} must be") for n in (-1, math.nan, math.inf))],
)  # fmt: skip
def test_mistakes(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RayConfig(**wrong)


def test_an_address_where_nobody_listens_is_one_line(tmp_path: Path) -> None:
    base = read_options(["--env", "mtxl/Recall6-v0"])
    cells = make_cells(tmp_path / "grid", base, {"core.mem_len": ["8"]}, 1)
    for port in (1, 99999):
        config = RayConfig(address=f"127.0.0.1:{port}")
        with pytest.raises(ValueError, match=rf"127.0.0.1:{port}' cannot be joined \("):
            on_ray.run_cells(cells, config, None, dry_run=False)
    assert not (tmp_path / "grid").exists()


def test_no_cell_waits_for_a_node_that_cannot_join() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}]
    with pytest.raises(ValueError, match="this machine has 2 CPUs and 0 GPUs; set"):
        on_ray._warn_of_misfits(nodes, {"num_cpus": 1, "num_gpus": 1}, True, is_alone=True)
