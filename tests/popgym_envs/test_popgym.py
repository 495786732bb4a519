"""Every id of POPGym (arXiv 2303.01859) trains and is evaluated: pip install -e ".[dev,popgym]"."""

from __future__ import annotations

import math
from pathlib import Path

import gymnasium
import pytest

import envs
from agents.cores.core import core_config
from agents.learning.ppo import PPOConfig
from mtxl_rl.config import TrainConfig
from mtxl_rl.train import train

pytest.importorskip("popgym", reason="POPGym is an extra: pip install -e '.[popgym]'")
pytest.importorskip("mazelib", reason="POPGym's mazes need mazelib: pip install -e '.[popgym]'")

pytestmark = pytest.mark.filterwarnings("ignore:Maze environments:DeprecationWarning")  # its own

IDS = [env_id for env_id in gymnasium.registry if env_id.startswith("popgym-")]


def test_all_are_there() -> None:
    assert len(IDS) == 48


def test_an_id_that_it_does_not_have_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean popgym:popgym-[A-Z]"):
        envs.make("popgym:Nope-v0", 1)
    with pytest.raises(ValueError, match="did you mean popgym:popgym-AutoencodeEasy-v0"):
        envs.make("popgym:AutoencodeEasy-v0", 1)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_trains_and_is_evaluated(
    env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtxl_rl.train.evaluate_interventions", lambda *_: {})
    evaluation = train(
        TrainConfig(
            env=f"popgym:{env_id}",
            total_frames=64,
            num_envs=4,
            eval_episodes=2,
            device="cpu",
            num_threads=1,
            compile="off",
            run_dir=tmp_path / "run",
            core=core_config(dim=8, heads=2, depth=1, seq_len=4, mem_len=4, lmem_len=2),
            ppo=PPOConfig(rollout_len=8, num_minibatches=2, num_epochs=1),
        )
    )
    assert evaluation.episodes == 2
    assert evaluation.mean_length >= 1
    assert math.isfinite(evaluation.mean_return)
