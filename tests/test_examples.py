"""The examples run, at a small size."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from small_run import small_run

from examples import own_core, ppo_in_one_file
from mtxl_rl.config import TrainConfig
from mtxl_rl.export import ExportConfig, export

ROOT = Path(__file__).parents[1]


def test_ppo_in_one_file_trains() -> None:
    rate = ppo_in_one_file.main(
        ppo_in_one_file.Config(num_updates=2, num_envs=8, rollout_len=16, dim=16)
    )
    assert 0 < rate < 1


def test_a_core_of_ones_own_trains() -> None:
    assert 0 < own_core.main(num_updates=2, num_envs=8) < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # that little is trained
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code cells one after the other, trained for one update instead of until it is learned."""
    notebook = json.loads((ROOT / "examples" / "recall.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)  # none is kept
    display = types.ModuleType("IPython.display")  # which need not be installed
    vars(display)["IFrame"] = lambda page, **_: Path(page).stat()
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setenv("FRAMES", "8192")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["page"].stat().st_size > 10_000
    assert names["step"].success.shape == (100,)


@pytest.mark.filterwarnings("ignore")  # torchrl's own
def test_the_core_is_a_module_of_torchrl() -> None:
    if not all(map(importlib.util.find_spec, ("torchrl", "tensordict"))):
        pytest.skip('torchrl is not installed: pip install -e ".[torchrl]"')
    example: Any = importlib.import_module("examples.torchrl_module")
    assert example.main() < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # that little is trained
def test_an_environment_of_ones_own_is_learned_in(tmp_path: Path) -> None:
    from examples import own_environment

    try:
        rate = own_environment.main(tmp_path / "run", total_frames=10_000)
        assert 0 <= rate <= 1
        assert (tmp_path / "run" / "inspect.html").is_file()
    finally:
        del gymnasium.registry["Echo-v0"]


def test_an_example_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside what it has left: here it stops where it would train."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "echo").mkdir(parents=True)
    taken: list[Path] = []

    def stop(config: TrainConfig) -> None:
        assert config.run_dir is not None
        taken.append(config.run_dir)
        sys.exit()

    monkeypatch.setattr("mtxl_rl.train.train", stop)
    try:
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / "examples" / "own_environment.py"), run_name="__main__")
    finally:
        gymnasium.registry.pop("Echo-v0", None)
    assert not taken[0].exists()


@pytest.mark.slow
def test_a_policy_acts_without_torch(tmp_path: Path) -> None:
    if not all(map(importlib.util.find_spec, ("onnxruntime", "onnxscript"))):
        pytest.skip("onnxruntime and onnxscript are not installed")
    out = export(small_run(tmp_path / "run", "MiniGrid-MemoryS7-v0"), ExportConfig())
    example: Any = importlib.import_module("examples.act_without_torch")
    assert "torch" not in vars(example)
    assert 0 <= example.play(str(out), "MiniGrid-MemoryS7-v0") <= 1
