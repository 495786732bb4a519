"""A trainer of a small agent in MiniGrid, for tests of the forms in which it runs."""

from __future__ import annotations

from typing import Any

import torch

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import CoreKind, core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import Env, start

ENV_ID = "MiniGrid-MemoryS7-v0"


def make_trainer(
    env: Env | None = None, kind: CoreKind = "mtxl", device: str = "cpu", **core: Any
) -> Trainer:
    torch.manual_seed(0)
    batch: Any = env or envs.make(ENV_ID, 6, device, seed=3)
    memory: dict[str, Any] = {"heads": 2, "seq_len": 4, "mem_len": 5}
    options = (memory if kind in ("mtxl", "gtrxl") else {}) | core
    config = core_config(kind=kind, dim=8, **options)
    agent = ActorCritic(batch.observation_space, batch.action_space, config).to(device)
    ppo = PPO(agent, PPOConfig(rollout_len=8, num_minibatches=2, num_epochs=2))
    return Trainer(agent, ppo, batch, start(agent, batch), num_steps=8)


def run(trainer: Trainer, num_updates: int = 3) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return what each update logs, and the weights."""
    torch.manual_seed(1)
    logged = [trainer.update(trainer.collect(), progress=0.1 * n) for n in range(num_updates)]
    return logged, dict(trainer.agent.state_dict())
