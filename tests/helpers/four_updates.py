"""The configuration of a run of four updates, and the one line of a command that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.cores.core import core_config
from agents.learning.ppo import PPOConfig
from mtxl_rl import train
from mtxl_rl.config import TrainConfig


def make_config(run_dir: Path | None, **options: Any) -> TrainConfig:
    """Four updates of 4 envs x 8 steps on Recall, without interventions."""
    options = {"env": "mtxl/Recall2-v0", "total_frames": 128} | options
    return TrainConfig(
        num_envs=4,
        device="cpu",
        num_threads=1,
        compile="off",
        eval_episodes=2,
        run_dir=run_dir,
        core=core_config(dim=8, heads=2, depth=1, seq_len=4, mem_len=2),
        ppo=PPOConfig(rollout_len=8, num_minibatches=2, num_epochs=1),
        **options,
    )


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], main: Any = train) -> str:
    """Return the one line of a command that is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *arguments])
        with pytest.raises(SystemExit) as stop:
            main.main()
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err
