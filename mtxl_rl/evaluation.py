"""Playing whole episodes with a trained agent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch

import envs
from agents.actor_critic import ActorCritic
from agents.rollout import act_, start
from agents.uncompiled import uncompiled
from envs import Backend, BatchedEnv
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.metrics import Episodes, Evaluation

TRAINING_STREAM, EVALUATION_STREAM = 0, 1
MAX_VIDEO_FRAMES = 600
VIDEO_FPS = 10


def level_seeds(seed: int, stream: int) -> np.random.SeedSequence:
    """Return the seeds of levels: training and evaluation have streams of their own."""
    return np.random.SeedSequence(seed, spawn_key=(stream,))


@uncompiled()
def evaluate_agent(
    agent: ActorCritic, env_id: str, config: EvaluateConfig, backend: Backend = "auto"
) -> Evaluation:
    """Play `config.episodes` episodes on levels of the evaluation's stream and summarise them.

    The levels are the same whatever the backend and the number of envs.
    """
    levels = level_seeds(config.seed, EVALUATION_STREAM).generate_state(config.episodes)
    num_envs = min(config.num_envs, config.episodes)
    env = envs.make(
        env_id,
        num_envs,
        device=agent.device,
        seed=level_seeds(config.seed, EVALUATION_STREAM),
        render_mode="rgb_array" if config.video else None,
        backend=backend,
        level_seeds=levels.tolist(),
    )
    try:
        return Evaluation.of(play(agent, env, config))
    finally:
        env.close()


def play(agent: ActorCritic, env: BatchedEnv, config: EvaluateConfig) -> Episodes:
    """Play `config.episodes` episodes and return them.

    Every env plays an equal share of the episodes, so that short ones are not counted too often.
    """
    quota = torch.full((env.num_envs,), config.episodes // env.num_envs)
    quota[: config.episodes % env.num_envs] += 1
    torch.manual_seed(config.seed)
    carry = start(agent, env)
    rows: list[torch.Tensor] = []
    frames: list[np.ndarray] = []
    while quota.any():
        if config.video and len(frames) < MAX_VIDEO_FRAMES:
            frames.append(env.render(0))
        if config.clear_memory:
            carry = replace(carry, inputs=agent.without_past(carry.inputs))
        carry, record = act_(agent, env.step, carry, is_greedy=config.greedy)
        counted = (record["terminated"] | record["truncated"]).cpu() & (quota > 0)
        quota -= counted.long()
        columns = [record[name] for name in ("success", "episode_return", "episode_length")]
        rows.append(torch.stack([column.double().cpu() for column in columns], dim=-1)[counted])
    if config.video:
        write_video(config.video, frames)
    success, return_, length = torch.cat(rows).numpy().T
    return Episodes(success if env.has_success else np.full_like(success, np.nan), return_, length)


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    """Write pictures (rows, columns, 3) uint8 as .mp4 or .gif."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        iio.imwrite(path, np.stack(frames), duration=1000 / VIDEO_FPS, loop=0)
    else:
        iio.imwrite(path, np.stack(frames), fps=VIDEO_FPS, codec="libx264")
