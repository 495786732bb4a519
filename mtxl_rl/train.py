"""Train an agent.

python -m mtxl_rl.train --env MiniGrid-MemoryS13-v0
python -m mtxl_rl.train --help
"""

from __future__ import annotations

import dataclasses
import sys
import time
from datetime import datetime
from pathlib import Path

import torch
import tyro

import envs
from agents.acceleration import Trainer, accelerate
from agents.actor_critic import ActorCritic
from agents.ppo import PPO
from agents.rollout import start
from envs import BatchedEnv
from mtxl_rl import checkpoint
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import (
    EvaluateConfig,
    Memory,
    TrainConfig,
    pick_compile,
    pick_device,
    pick_precision,
    set_threads,
)
from mtxl_rl.evaluation import (
    TRAINING_STREAM,
    evaluate_agent,
    evaluate_interventions,
    level_seeds,
)
from mtxl_rl.metrics import WINDOW_TAG, EpisodeWindow, Evaluation, RunLogger, ended_episodes
from mtxl_rl.progress import Progress
from mtxl_rl.schedule import Schedule

MAX_EVAL_ENVS = 256
"""Environments that play at once in the evaluation at the end."""
WORDS: dict[Memory, str] = {
    "cleared": "without memory, previous action and reward",
    "without-short": "without short memory",
    "without-long": "without long memory",
    "swapped-long": "with the long memory of an episode with another cue",
}


def train(config: TrainConfig) -> Evaluation:
    """Train, evaluate, and return the evaluation; everything is in the run directory.

    Raises:
        ValueError: for a configuration that cannot be run; nothing has been written then.
    """
    device = pick_device(config.device)
    set_threads(config.num_threads)
    torch.manual_seed(config.seed)
    seeds = level_seeds(config.seed, TRAINING_STREAM)
    env = envs.make(config.env, config.num_envs, device, seeds, backend=config.backend)
    try:
        agent = ActorCritic(env.observation_space, env.action_space, config.core).to(device)
        if config.init_from is not None:
            checkpoint.load_start(config.init_from, config, agent)
        agent.precision = pick_precision(config.precision, device, config.core)
        trainer = make_trainer(config, agent, env)
        run_dir = config.run_dir or default_run_dir(config)
        checkpoint.create_run(run_dir, config)
        num_parameters = sum(parameter.numel() for parameter in agent.parameters())
        precision = str(agent.precision).removeprefix("torch.")
        print(f"{config.env}: {config.num_envs} envs, {env.backend} backend, core "
              f"{config.core.kind}, {num_parameters:,} parameters, {device}, {precision}, "
              f"{trainer.form}")  # fmt: skip
        print(f"Run:          {run_dir}")
        logger = RunLogger(run_dir, config)
        frames = _learn(config, trainer, env, logger, run_dir)
    finally:
        env.close()
    evaluation, intervened = _evaluate(config, agent)
    logger.close(evaluation, intervened, frames)
    interventions = {memory: dataclasses.asdict(each) for memory, each in intervened.items()}
    result = dataclasses.asdict(evaluation) | {"frames": frames, "interventions": interventions}
    checkpoint.write_json(run_dir / "evaluation.json", result)
    print(f"Curves:       {sys.executable} -m tensorboard.main --logdir {run_dir}")
    print(f"Evaluate:     {sys.executable} -m mtxl_rl.evaluate {run_dir}")
    return evaluation


def make_trainer(config: TrainConfig, agent: ActorCritic, env: BatchedEnv) -> Trainer:
    """Return what acts and learns, in the form that `config` asks for.

    Raises:
        ValueError: with `config.strict`, where that form does not run here.
    """
    ppo = PPO(agent, config.ppo)
    trainer = Trainer(agent, ppo, env, start(agent, env), config.ppo.rollout_len)
    if not pick_compile(config, env.device):
        return trainer
    print("Compiling:    takes a minute or two, less the next time")
    return accelerate(trainer, config.strict)


def _learn(
    config: TrainConfig, trainer: Trainer, env: BatchedEnv, logger: RunLogger, run_dir: Path
) -> int:
    """Run the training loop, save the last checkpoint, and return the frames taken."""
    window = EpisodeWindow()
    schedule = Schedule(config.total_frames, config.frames_per_update)
    frames = saved_frames = 0
    started = time.monotonic()
    with Progress(config.total_frames) as progress:
        try:
            while frames + config.frames_per_update <= schedule.end_frames:
                rollout = trainer.collect()
                scalars = trainer.update(rollout, schedule.progress(frames))
                frames += config.frames_per_update

                episodes = ended_episodes(rollout, env.has_success, env.has_cue)
                window.add(episodes)
                speed = frames / (time.monotonic() - started)
                scalars["charts/SPS"] = speed
                if window.is_full:
                    scalars[WINDOW_TAG] = window.success_rate
                logger.log(scalars, frames)
                logger.log_episodes(episodes, frames)
                progress.show(frames, speed, window.success_rate, window.mean_return)
                if frames - saved_frames >= config.checkpoint_every:
                    checkpoint.save_checkpoint(run_dir, config, trainer.agent, frames)
                    saved_frames = frames
                if window.reaches(config.stop_at_success) and not schedule.is_winding_down:
                    schedule.wind_down(frames)
        finally:
            if frames > saved_frames:
                checkpoint.save_checkpoint(run_dir, config, trainer.agent, frames)
    minutes = (time.monotonic() - started) / 60
    print(f"Trained:      {frames:,} frames in {minutes:.1f} minutes")
    return frames


def _evaluate(
    config: TrainConfig, agent: ActorCritic
) -> tuple[Evaluation, dict[Memory, Evaluation]]:
    """Evaluate as trained and with every intervention, and print it."""
    num_envs = min(config.eval_episodes, MAX_EVAL_ENVS)
    options = EvaluateConfig(episodes=config.eval_episodes, seed=config.seed, num_envs=num_envs)
    evaluation = evaluate_agent(agent, config.env, options, config.backend)
    print(f"Evaluated:    {evaluation.episodes} episodes on new levels")
    print(f"Success rate: {evaluation.describe_success()}")
    intervened: dict[Memory, Evaluation] = {}
    if evaluation.success_rate is not None:
        intervened = evaluate_interventions(agent, config.env, options, config.backend)
    for memory, each in intervened.items():
        print(f"  the same agent, {WORDS[memory]}: {each.describe_success()}")
    if evaluation.cue_seen_rate is not None:
        print(f"Cue:          {evaluation.describe_cue()}")
    print(f"Mean return:  {evaluation.mean_return:.3f}, mean length {evaluation.mean_length:.1f}")
    return evaluation, intervened


def default_run_dir(config: TrainConfig) -> Path:
    """Return runs/ENV__CORE__sSEED__TIME."""
    env_name = config.env.replace("/", "_").replace(":", "_")
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{env_name}__{config.core.kind}__s{config.seed}__{now}"


def main() -> None:
    """Read the options and train."""
    with fail_with_one_line():
        train(tyro.cli(TrainConfig, prog="python -m mtxl_rl.train"))


if __name__ == "__main__":
    main()
