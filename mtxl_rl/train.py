"""Train an agent.

python -m mtxl_rl.train --env MiniGrid-MemoryS13-v0
python -m mtxl_rl.train --help
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
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
    differences,
    flat,
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
from mtxl_rl.signals import StopSignals
from mtxl_rl.training_state import restore_training_, training_tensors

PROGRAM = "python -m mtxl_rl.train"
MAY_CHANGE = (
    "total_frames", "stop_at_success", "device", "compile", "strict", "num_threads",
    "checkpoint_every", "keep", "eval_episodes",
)  # fmt: skip
"""Options that a resumed run can change: they change nothing of what it has learned."""
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
        Stopped: when a signal has ended it; what was trained is saved.
    """
    device = pick_device(config.device)
    set_threads(config.num_threads)
    torch.manual_seed(config.seed)
    seeds = level_seeds(config.seed, TRAINING_STREAM)
    env = envs.make(config.env, config.num_envs, device, seeds, backend=config.backend)
    try:
        agent = ActorCritic(env.observation_space, env.action_space, config.core).to(device)
        if config.init_from is not None and config.resume is None:
            checkpoint.load_start(config.init_from, config, agent)
        agent.precision = pick_precision(config.precision, device, config.core)
        run = _Run(config, agent, env)
        run_dir = run.run_dir
        num_parameters = sum(parameter.numel() for parameter in agent.parameters())
        precision = str(agent.precision).removeprefix("torch.")
        print(f"{config.env}: {config.num_envs} envs, {env.backend} backend, core "
              f"{config.core.kind}, {num_parameters:,} parameters, {device}, {precision}, "
              f"{run.trainer.form}")  # fmt: skip
        print(f"Run:          {run_dir}")
        run.learn()
    finally:
        env.close()
    evaluation, intervened = _evaluate(config, agent)
    run.logger.close(evaluation, intervened, run.frames)
    interventions = {memory: dataclasses.asdict(each) for memory, each in intervened.items()}
    counts = {"frames": run.frames, "interventions": interventions}
    checkpoint.write_json(run_dir / "evaluation.json", dataclasses.asdict(evaluation) | counts)
    print(f"Curves:       {sys.executable} -m tensorboard.main --logdir {run_dir}")
    print(f"Evaluate:     {sys.executable} -m mtxl_rl.evaluate {run_dir}")
    return evaluation


class _Run:
    """A training run: what learns, how far it is, and where it is written."""

    def __init__(self, config: TrainConfig, agent: ActorCritic, env: BatchedEnv):
        self.config = config
        self.frames = 0
        self.env = env
        self.window = EpisodeWindow()
        self.schedule = Schedule(config.total_frames, config.frames_per_update)
        ppo = PPO(agent, config.ppo)
        trainer = Trainer(agent, ppo, env, start(agent, env), config.ppo.rollout_len)
        if config.resume is not None:
            self._restore(trainer)
        self.trainer = make_trainer(config, trainer)
        self.run_dir = config.resume or config.run_dir or default_run_dir(config)
        if config.resume is None:
            checkpoint.create_run(self.run_dir, config)
        self.saved_frames = self.frames
        self.logger = RunLogger(self.run_dir, config, self.frames)

    def learn(self) -> None:
        """Run the training loop and save the last checkpoint.

        Raises:
            Stopped: after a signal and the update in progress.
        """
        config, schedule = self.config, self.schedule
        first_frames, started = self.frames, time.monotonic()
        with Progress(schedule.end_frames) as progress, StopSignals() as signals:
            try:
                while self.frames + config.frames_per_update <= schedule.end_frames:
                    signals.check()
                    rollout = self.trainer.collect()
                    scalars = self.trainer.update(rollout, schedule.progress(self.frames))
                    self.frames += config.frames_per_update

                    episodes = ended_episodes(rollout, self.env.has_success, self.env.has_cue)
                    self.window.add(episodes)
                    speed = (self.frames - first_frames) / (time.monotonic() - started)
                    scalars["charts/SPS"] = speed
                    if self.window.is_full:
                        scalars[WINDOW_TAG] = self.window.success_rate
                    self.logger.log(scalars, self.frames)
                    self.logger.log_episodes(episodes, self.frames)
                    progress.show(
                        self.frames, speed, self.window.success_rate, self.window.mean_return
                    )
                    reached = self.window.reaches(config.stop_at_success)
                    if reached and not schedule.is_winding_down:
                        schedule.wind_down(self.frames)
                        progress.end_at(schedule.end_frames)
                    if self.frames - self.saved_frames >= config.checkpoint_every:
                        self.save()
            finally:
                if self.frames > self.saved_frames:
                    self.save()
        minutes = (time.monotonic() - started) / 60
        print(f"Trained:      {self.frames:,} frames in {minutes:.1f} minutes")

    def save(self) -> None:
        """Save a checkpoint."""
        tensors = training_tensors(self.trainer, self.window, self.schedule)
        checkpoint.save_checkpoint(
            self.run_dir, self.config, self.trainer.agent, self.frames, tensors, self.config.keep
        )
        self.saved_frames = self.frames

    def _restore(self, trainer: Trainer) -> None:
        """Put everything back that the last checkpoint holds."""
        config = self.config
        assert config.resume is not None
        newest = checkpoint.newest_checkpoint(config.resume)
        self.frames, tensors = checkpoint.load_checkpoint(newest, config, trainer.agent)
        try:
            restore_training_(trainer, self.window, self.schedule, tensors)
        except ValueError as error:
            raise ValueError(f"{newest} does not fit this run: {error}") from None
        if self.frames + config.frames_per_update > self.schedule.end_frames:
            remedy = "raise --total-frames to go on"
            if self.schedule.is_winding_down:
                remedy = "start another run from it with --init-from"
            raise ValueError(
                f"resume={config.resume} has trained for {self.frames:,} of "
                f"{self.schedule.end_frames:,} frames: it is finished; {remedy}"
            )
        exactly = "" if self.env.backend == "tensor" else (
            "; these environments cannot save their state: all of them start fresh episodes"
        )  # fmt: skip
        print(f"Resumed:      from {self.frames:,} frames{exactly}")


def make_trainer(config: TrainConfig, trainer: Trainer) -> Trainer:
    """Return what acts and learns, in the form that `config` asks for.

    Raises:
        ValueError: with `config.strict`, where that form does not run here.
    """
    if not pick_compile(config, trainer.agent.device):
        return trainer
    print("Compiling:    takes a minute or two, less the next time")
    return accelerate(trainer, config.strict)


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


def read_options(arguments: Sequence[str]) -> TrainConfig:
    """Return the options of the command line; with --resume those that are not given are the run's.

    Raises:
        ValueError: for a run that cannot be resumed with these options.
    """
    run_dir = _resumed(arguments)
    if run_dir is None:
        return tyro.cli(TrainConfig, prog=PROGRAM, args=arguments)
    saved = dataclasses.replace(checkpoint.load_config(run_dir), resume=run_dir)
    config = tyro.cli(TrainConfig, prog=PROGRAM, args=arguments, default=saved)
    different = differences(
        flat(saved), flat(config), "in the run", "here", lambda name: name not in MAY_CHANGE
    )
    if different:
        raise ValueError(
            f"resume={run_dir} is another run: {different}. Leave these options out, or start a "
            "new run with --init-from"
        )
    return config


def _resumed(arguments: Sequence[str]) -> Path | None:
    """Return the value of --resume, before the other options can be read."""
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--resume":
            value = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
            return Path(value) if value not in ("", "None") else None
    return None


def main() -> None:
    """Read the options and train."""
    with fail_with_one_line():
        train(read_options(sys.argv[1:]))


if __name__ == "__main__":
    main()
