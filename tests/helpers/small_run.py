"""Runs of agents that have learned nothing, for tests of what is done with a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import CoreKind, core_config
from mtxl_rl.config import TrainConfig
from mtxl_rl.runs.checkpoint import save_checkpoint
from mtxl_rl.runs.run_directory import create_run

MTXL: dict[str, Any] = {
    "dim": 12, "depth": 2, "heads": 3, "seq_len": 5, "mem_len": 3, "lmem_len": 2,
}  # fmt: skip


def small_run(folder: Path, env: str, kind: CoreKind = "mtxl", **options: Any) -> Path:
    """Write a run of an agent with random weights, whose heads are large enough to be seen."""
    torch.manual_seed(7)
    sizes = MTXL if kind == "mtxl" else {"dim": 12, "depth": 2}
    core = core_config(kind=kind, **{**sizes, **options})
    config = TrainConfig(env=env, core=core, device="cpu", num_threads=1)
    batch = envs.make(env, 1)
    agent = ActorCritic(batch.observation_space, batch.action_space, config.core)
    batch.close()
    torch.nn.init.normal_(agent.actor.policy.weight)
    torch.nn.init.normal_(agent.critic.weight)
    create_run(folder, config)
    save_checkpoint(folder, config, agent, frames=0)
    return folder
