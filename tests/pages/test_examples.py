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
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from programs import ROOT
from small_run import small_run
from spaces_env import ACTIONS, OBSERVATIONS, SpacesEnv

import mtxl_rl
from examples import own_core, ppo_in_one_file
from mtxl_rl.config import TrainConfig
from mtxl_rl.export import example_inputs
from mtxl_rl.policies.acting_step import ActingStep
from mtxl_rl.policies.export_notes import notes_of
from mtxl_rl.policies.policy import Policy


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


@pytest.mark.unchecked
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # that little is trained
def test_an_environment_of_ones_own_is_trained_on(tmp_path: Path) -> None:
    from examples import own_environment

    try:
        rate = own_environment.main(tmp_path / "run", total_frames=2_000)
        assert 0 <= rate <= 1
        assert (tmp_path / "run" / "inspect.html").is_file()
    finally:
        del gymnasium.registry["Echo-v0"]


class Session:
    """ONNX Runtime's, by torch: what it is given is kept."""

    def __init__(self, policy: Policy):
        self.step, self.calls = ActingStep(policy.agent), list[dict[str, Any]]()
        inputs = example_inputs(self.step, np.random.default_rng(1))
        inputs |= policy.agent.core.first_tensors()
        self.metadata = {"mtxl_rl": json.dumps(notes_of(policy, self.step, inputs))}

    def get_modelmeta(self) -> Any:
        return types.SimpleNamespace(custom_metadata_map=self.metadata)

    @torch.no_grad()
    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.calls.append(inputs.copy())
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return [output.numpy() for output in self.step(tensors)]


def without_torch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, env_id: str
) -> tuple[Any, Session, Policy]:
    """Return the example with a session of a new policy in the place of ONNX Runtime's."""
    policy = mtxl_rl.load(small_run(folder / "run", env_id, "gru"), device="cpu")
    session = Session(policy)
    runtime: Any = types.ModuleType("onnxruntime")
    runtime.InferenceSession = lambda _: session
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    path = ROOT / "examples" / "act_without_torch.py"
    spec: Any = importlib.util.spec_from_file_location("example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example, session, policy


@pytest.mark.parametrize(
    ("observation", "action", "has_mask"),
    [*((name, "from 4", False) for name in OBSERVATIONS),
     *(("from -2", name, False) for name in ACTIONS), ("from -2", "from 4", True)],
)  # fmt: skip
def test_without_torch_it_sees_and_acts_as_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, observation: str, action: str, has_mask: bool
) -> None:
    made = list[SpacesEnv]()

    def make(**_: Any) -> SpacesEnv:
        made.append(SpacesEnv(OBSERVATIONS[observation], ACTIONS[action], has_mask))
        return made[-1]

    monkeypatch.setitem(gymnasium.registry, "Spaces-v0", EnvSpec("Spaces-v0", make))
    example, session, policy = without_torch(tmp_path, monkeypatch, "Spaces-v0")
    total = example.play("", "Spaces-v0")
    env = made[-1]
    assert total == pytest.approx(sum(env.rewards))
    assert len(session.calls) == 7
    for step, inputs in enumerate(session.calls):
        fields, *_ = policy.form.read(env.given[step])
        for name, field in fields.items():
            np.testing.assert_array_equal(inputs[session.step.inputs_of[name]], field.numpy())
        assert inputs["reset"].tolist() == [step == 0]
        if step:
            drawn = torch.from_numpy(inputs["prev_action"])
            taken = policy.form.write(drawn, is_batch=True, is_tensors=False)
            np.testing.assert_allclose(env.taken[step - 1], np.asarray(taken)[0], rtol=1e-6)
            assert inputs["prev_reward"] == pytest.approx(env.rewards[step - 1])


@pytest.mark.parametrize(
    ("env_id", "played", "message"),
    [
        ("mtxl/Recall6-v0", "mtxl/Recall6-v0", "module:mtxl/Recall6-v0; for mtxl/... it is envs"),
        ("BabyAI-GoToObj-v0", "BabyAI-GoToObj-v0", "input 'mission' is words, which this example"),
        ("own_tensors:own/Echo-v0", "own/Echo-v0", "Name the module"),
    ],
)
def test_without_torch_it_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_id: str, played: str, message: str
) -> None:
    example, _, _ = without_torch(tmp_path, monkeypatch, env_id)
    for name in [name for name in gymnasium.registry if name.startswith("mtxl/")]:
        monkeypatch.delitem(gymnasium.registry, name)  # it does not import envs
    with pytest.raises(ValueError, match=message) as error:
        example.play("", played)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"wrapped by .*; wrap it here"):
        example.make("CartPole-v1", {"id": "CartPole-v1", "wrap": ["RescaleObservation"]})


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
