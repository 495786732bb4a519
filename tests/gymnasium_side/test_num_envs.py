"""How many environments act at once where nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.cores.baseline_cores import FeedForwardConfig
from agents.learning.ppo import PPOConfig
from experiments.grids.grid import make_cells
from mtxl_rl import train
from mtxl_rl.config import BATCHED_ENVS, SINGLE_ENVS, TrainConfig, with_num_envs
from mtxl_rl.runs.run_directory import load_config


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"env": "mtxl/Recall6-v0"}, BATCHED_ENVS),
        ({"env": "CartPole-v1"}, SINGLE_ENVS),
        ({"env": "CartPole-v1", "backend": "vector"}, BATCHED_ENVS),
        ({"env": "MiniGrid-MemoryS7-v0"}, BATCHED_ENVS),
        ({"env": "MiniGrid-MemoryS7-v0", "backend": "gymnasium"}, SINGLE_ENVS),
        ({"env": "MiniGrid-MemoryS7-v0", "wrap": ("RecordEpisodeStatistics",)}, SINGLE_ENVS),
        ({"env": "CartPole-v1", "num_envs": 6}, 6),
    ],
)
def test_single_environments_are_fewer(options: dict[str, Any], expected: int) -> None:
    assert with_num_envs(TrainConfig(**options)).num_envs == expected


@pytest.mark.usefixtures("without_interventions")
def test_the_number_is_the_runs_and_it_goes_on_with_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    few = PPOConfig(rollout_len=4, num_epochs=1)
    train.train(
        TrainConfig(
            env="CartPole-v1", total_frames=4 * SINGLE_ENVS, core=FeedForwardConfig(dim=8),
            ppo=few, eval_episodes=2, run_dir=run_dir,
        )
    )  # fmt: skip
    assert load_config(run_dir).num_envs == SINGLE_ENVS
    more = ["--resume", str(run_dir), "--total-frames", str(8 * SINGLE_ENVS)]
    assert train.train(train.read_options(more)).episodes == 2


def test_a_number_that_does_not_fit_the_rest_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    for ppo, frames, wrong in (
        (PPOConfig(num_minibatches=3), 10**6, "num_envs=16"),
        (PPOConfig(), 1023, "total_frames=1023 must cover .* = 1024 frames"),
    ):
        config = TrainConfig(
            env="CartPole-v1", ppo=ppo, total_frames=frames, run_dir=tmp_path / "run"
        )
        with pytest.raises(ValueError, match=wrong):
            train.train(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("env", "axis", "values"),
    [
        ("MiniGrid-MemoryS7-v0", "env_kwargs.agent_view_size", ["5", "7"]),
        ("CartPole-v1", "backend", ["gymnasium", "vector"]),
        ("MiniGrid-MemoryS7-v0", "wrap", ["RecordEpisodeStatistics", ""]),
    ],
)
def test_a_grid_has_one_number(env: str, axis: str, values: list[str]) -> None:
    with pytest.raises(ValueError, match=r"would be 16 in .* and 128 in .*; set --num-envs to one"):
        make_cells(Path("grid"), TrainConfig(env=env), {axis: values}, 1)
    cells = make_cells(Path("grid"), TrainConfig(env=env, num_envs=8), {axis: values}, 1)
    assert [cell.config.num_envs for cell in cells] == [8, 8]
    cells = make_cells(Path("grid"), TrainConfig(env=env), {"num_envs": ["4", "8"]}, 1)
    assert [cell.config.num_envs for cell in cells] == [4, 8]
