"""Runs of eight updates on CartPole: what they saved, and how to meddle with one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.cores.core import core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPOConfig
from mtxl_rl.config import TrainConfig
from mtxl_rl.runs import checkpoint

FRAMES = 4 * 16
NUM_UPDATES = 8


def make_config(run_dir: Path, **options: Any) -> TrainConfig:
    config = TrainConfig(
        env="CartPole-v1",
        total_frames=NUM_UPDATES * FRAMES,
        num_envs=4,
        device="cpu",
        num_threads=1,
        compile="off",
        eval_episodes=2,
        checkpoint_every=2 * FRAMES,
        run_dir=run_dir,
        core=core_config(dim=8, depth=1, heads=2, seq_len=4, mem_len=4),
        ppo=PPOConfig(rollout_len=16, num_minibatches=2, num_epochs=1),
    )
    return replace(config, **options)


def frames_saved(run_dir: Path) -> list[int]:
    """Return the updates after which the checkpoints were saved."""
    paths = checkpoint.list_checkpoints(run_dir)
    return [int(path.name.removeprefix("frames_")) // FRAMES for path in paths]


def at_update(
    monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[Trainer], Any]
) -> None:
    """Do something before the rollout of an update, counted from 1."""
    collect, calls = Trainer.collect, []

    def collect_and_act(trainer: Trainer) -> Any:
        calls.append(1)
        if len(calls) == number:
            action(trainer)
        return collect(trainer)

    monkeypatch.setattr(Trainer, "collect", collect_and_act)
