"""One damaged observation, shown to trained agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import envs
from agents.cores.core import core_config
from agents.learning.ppo import PPOConfig
from experiments.damage import OneDamagedObservation, damage
from mtxl_rl.config import TrainConfig
from mtxl_rl.train import train


def trained(run_dir: Path, **options: Any) -> None:
    """Train a small agent for one update."""
    train(
        TrainConfig(
            total_frames=128,
            num_envs=8,
            eval_episodes=10,
            device="cpu",
            num_threads=1,
            run_dir=run_dir,
            core=core_config(dim=8, heads=2, depth=1, seq_len=4),
            ppo=PPOConfig(rollout_len=16, num_minibatches=2),
            **options,
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    trained(folder / "one", env="mtxl/Recall6-v0")
    return folder


def test_one_observation_is_anothers_first_and_no_other_is_changed() -> None:
    def play(at: int | None) -> list[torch.Tensor]:
        env = envs.make("mtxl/Recall6-v0", 16, seed=3)
        if at is not None:
            OneDamagedObservation(env, at)
        seen = [env.reset()["observation"].clone()]
        steps = (env.step(torch.zeros(16, dtype=torch.int64)) for _ in range(12))
        return seen + [step.observation["observation"].clone() for step in steps]

    plain, damaged = play(None), play(4)
    changed = [t for t in range(13) if not torch.equal(plain[t], damaged[t])]
    assert changed == [4]
    assert torch.equal(damaged[4], plain[0].roll(1, dims=0))


def test_writes_a_row_for_each_agent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folder, "mtxl/Recall6-v0", at=4, num_envs=16, num_threads=1)
    table = (folder / "damage.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    agent, seeds, *rates = table.splitlines()[-1].strip("| ").split(" | ")
    assert (agent, seeds) == ("all runs", "1")
    assert len(rates) == 3
    assert all(0 <= float(rate) <= 1 for rate in rates)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"at": 0}, "at=0 must be 1 or more"),
        ({"at": 4, "num_envs": 1}, "num_envs=1"),
        ({"at": 100}, "at=100 is after the end of an episode"),
    ],
)
def test_bad_options(folder: Path, options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        damage(folder, "mtxl/Recall6-v0", num_threads=1, **options)


@pytest.mark.parametrize("env", ["MiniGrid-MemoryS7-v0", "mtxl/Recall20x8-v0", "CartPole-v1"])
def test_an_env_with_other_spaces_is_refused(folder: Path, env: str) -> None:
    with pytest.raises(ValueError, match="the agent was trained with"):
        damage(folder, env, at=2, num_envs=4, num_threads=1)


def test_the_env_is_made_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its wrappers and arguments: another env would be played without a word."""
    trained(
        tmp_path / "one",
        env="CartPole-v1",
        wrap=("FlattenObservation",),
        env_kwargs={"sutton_barto_reward": True},
    )
    made = []
    make = envs.make

    def noted(*args: Any, **options: Any) -> envs.BatchedEnv:
        made.append(options)
        return make(*args, **options)

    monkeypatch.setattr("experiments.damage.envs.make", noted)
    with pytest.raises(ValueError, match="no success rate"):
        damage(tmp_path, "CartPole-v1", at=2, num_envs=2, num_threads=1)
    of_play = [options for options in made if "vectorize" in options]
    assert of_play
    for options in of_play:
        assert options["wrap"] == ("FlattenObservation",)
        assert options["env_kwargs"] == {"sutton_barto_reward": True}


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        damage(tmp_path, "mtxl/Recall6-v0", at=4)


def test_a_task_without_success_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtxl_rl.evaluations.evaluation.Episodes.success_rate", None)
    with pytest.raises(ValueError, match="has no success rate"):
        damage(folder, "mtxl/Recall6-v0", at=4, num_envs=4, num_threads=1)
