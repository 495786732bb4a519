"""A training run: the loop, and what keeps it from being lost."""

from __future__ import annotations

import math
import shlex
import shutil
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from agents import ranks
from agents.actor_critic import ActorCritic
from agents.learning.acceleration import Trainer, accelerate, can_be_captured
from agents.learning.ppo import PPO, RatioError
from agents.learning.rollout import Rollout, start
from agents.learning.staggering import Staggering
from agents.spaces import signatures
from envs import BatchedEnv
from envs.tensor_env import TensorEnv
from envs.wrapped.guarded_env import EnvError
from mtxl_rl.command import RunFailed
from mtxl_rl.config import TrainConfig, pick_compile
from mtxl_rl.config.json_form import differences, flat, from_json
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.gradient_watch import GradientWatch
from mtxl_rl.runs.made_by import begin_session, end_session, last_session
from mtxl_rl.runs.metrics import (
    RETURN_WINDOW_TAG,
    SPEED_TAG,
    WINDOW_TAG,
    EpisodeWindow,
    ended_episodes,
)
from mtxl_rl.runs.non_finite import NonFiniteGuard
from mtxl_rl.runs.progress import Progress, say
from mtxl_rl.runs.run_directory import (
    check_place,
    create_free_run,
    create_run,
    load_config,
    lock_run,
    read_json,
    write_config,
)
from mtxl_rl.runs.run_logger import RunLogger
from mtxl_rl.runs.schedule import Schedule
from mtxl_rl.runs.training_state import (
    Stateful,
    has_episodes,
    restore_training_,
    saves_episodes,
    training_tensors,
)
from mtxl_rl.signals import Stopped, StopSignals
from mtxl_rl.torch_settings import check_torch

MAY_CHANGE = (
    "total_frames", "stop_at_success", "stop_at_return", "device", "compile", "strict",
    "num_threads", "checkpoint_every", "keep", "eval_episodes", "eval_max_steps", "env_timeout",
    "vectorize", "allow_changes",
)  # fmt: skip
"""Options that a resumed run can change: they change nothing of what it has learned."""
CHECKPOINT_SECONDS = 600.0
"""After which there is a checkpoint, however few frames there were."""


class Run:
    """What learns, how far it is, and where it is written.

    Args:
        config: of the run.
        agent: trained in place.
        env: where it acts.

    Raises:
        ValueError: for a run that cannot be started or resumed; nothing has been changed then.
    """

    def __init__(self, config: TrainConfig, agent: ActorCritic, env: BatchedEnv):
        self.config = config
        self.frames = 0
        self.env = env
        self.window = EpisodeWindow()
        self.schedule = Schedule(config.total_frames, config.frames_per_update)
        self._lock: IO[str] | None = None
        self.run_dir = ranks.from_first(self._take_directory)
        self._guard = NonFiniteGuard(self.run_dir)
        self._staggering = Staggering()
        self._gradients = GradientWatch(config.ppo.max_grad_norm)
        try:
            ppo = PPO(agent, config.ppo)
            carry = ranks.together(lambda: start(agent, env))
            trainer = Trainer(agent, ppo, env, carry, config.ppo.rollout_len)
            if config.resume is not None:
                self._restore(trainer)
            self.trainer = ranks.together(lambda: make_trainer(config, trainer))
            ranks.from_first(self._write_down)
            self.logger = RunLogger(self.run_dir, config, self.frames if config.resume else None)
        except BaseException:
            if self._lock is not None:
                self._lock.close()
                if config.resume is None:
                    shutil.rmtree(self.run_dir, ignore_errors=True)
            raise
        self._saved_frames = self.frames
        self._next_save = self.frames + config.checkpoint_every
        self._saved_at = time.monotonic()
        self._save_error = ""

    def _take_directory(self) -> Path:
        """Return the run directory, which is there and has no other run, and lock it."""
        config = self.config
        run_dir = config.resume or config.run_dir or default_run_dir(config)
        check_place(run_dir, "resume" if config.resume else "run_dir")
        if config.resume is None:  # before a minute is spent on compiling
            if config.run_dir is None:
                run_dir = create_free_run(run_dir, config)
            else:
                create_run(run_dir, config)
        self._lock = lock_run(run_dir)
        return run_dir

    def _write_down(self) -> None:
        """Write what trains the run from now on, and with which options."""
        config = self.config
        if config.resume and of_run(config) != load_config(self.run_dir):
            write_config(self.run_dir, of_run(config))
        agent = self.trainer.agent
        spaces = signatures((agent.observation_space, agent.action_space))
        begin_session(self.run_dir, agent.device, spaces)

    def learn(self) -> None:
        """Run the training loop and save the last checkpoint.

        Raises:
            Stopped: after a signal and the update in progress.
            RunFailed: when too much was not finite, acting and training were not one function, or
                the last checkpoint could not be saved after a signal.
            EnvError: when an environment has failed.
            RankFailed: when another rank has.
        """
        first_frames, started = self.frames, time.monotonic()
        with Progress(self.schedule.end_frames) as progress, StopSignals() as signals:
            try:
                while not self._is_done:
                    signals.check()
                    self._update(progress, first_frames, started)
            except ranks.RankFailed:
                with suppress(ranks.RankLost):  # by an error after which it does not save
                    self._save_last()
                raise
            except (Stopped, EnvError, RunFailed):
                self._save_last()  # between two updates; any other error may have torn one
                raise
            self._save_last()
            signals.check()  # it may have come with the last update
        minutes = (time.monotonic() - started) / 60
        say(f"Trained:      {self.frames:,} frames in {minutes:.1f} minutes")

    @property
    def _is_done(self) -> bool:
        return self.frames + self.config.frames_per_update > self.schedule.end_frames

    def _update(self, progress: Progress, first_frames: int, started: float) -> None:
        """Act, learn, log, and save a checkpoint where one is due."""
        rollout = ranks.together(self._collect)
        try:
            scalars = self.trainer.update(rollout, self.schedule.progress(self.frames))
        except RatioError as error:
            self.frames += self.config.frames_per_update  # the update is whole, and can be saved
            remedy = f". --resume {self.run_dir} goes on from the last checkpoint"
            if self.trainer.agent.precision != torch.float32:
                remedy += ", with --precision float32 --allow-changes more exactly"
            if self.trainer.agent.own:  # it would fail again
                remedy = ""
            raise RunFailed(f"after {self.frames:,} frames {error}{remedy}") from error
        self.frames += self.config.frames_per_update

        episodes = ended_episodes(rollout, self.env.has_success, self.env.has_cue)
        self.window.add(episodes)
        speed = (self.frames - first_frames) / (time.monotonic() - started)
        scalars[SPEED_TAG] = speed
        if self.window.is_full:
            scalars[WINDOW_TAG] = self.window.success_rate
            scalars[RETURN_WINDOW_TAG] = self.window.mean_return
        self.logger.log(scalars, self.frames)
        self.logger.log_episodes(episodes, self.frames)
        progress.show(self.frames, speed, self.window.success_rate, self.window.mean_return)
        self._guard.check(scalars, rollout, self.frames)
        self._gradients.look(scalars["losses/grad_norm"])
        if isinstance(self.env, TensorEnv):
            rows = self._staggering.rows(rollout)
            if rows is not None and rows.any():
                self.trainer.begin_(rows, self.env.restart(rows))
        if self._is_at_target and not self.schedule.is_winding_down:
            self.schedule.wind_down(self.frames)
            progress.end_at(self.schedule.end_frames)
        is_late = time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS
        if self.frames >= self._next_save or ranks.on_any(is_late):
            self._check_alike()
            self.save()

    def _check_alike(self) -> None:
        """Raise RunFailed where ranks do not go on with the same agent and random numbers."""
        if differs := ranks.what_differs(self.trainer.agent):
            raise RunFailed(
                f"after {self.frames:,} frames the {differs} of the ranks are not the same. Where "
                "an environment draws from torch's own generator, let it draw from the seed that "
                "it is given; else this is a defect: please report it"
            )

    def _collect(self) -> Rollout:
        try:
            rollout = self.trainer.collect()
            check_torch()  # which a step of an environment may have changed
            return rollout
        except ValueError as error:  # not one of an update, which it may have torn: this is saved
            raise RunFailed(f"failed to act after {self.frames:,} frames: {error}") from error
        except EnvError as error:
            if ranks.size() > 1:
                raise EnvError(f"rank {ranks.share().rank}: {error}") from error
            raise

    @property
    def _is_at_target(self) -> bool:
        success, return_ = self.config.stop_at_success, self.config.stop_at_return
        if success is not None and math.isnan(self.window.success_rate):
            return_ = self.env.reward_threshold  # the start has said so
        return self.window.reaches(success, return_)

    @property
    def _parts(self) -> dict[str, Stateful]:
        """What a checkpoint holds beside weights, optimizer, memories and environments."""
        return {"window": self.window, "schedule": self.schedule, "guard": self._guard,
                "staggering": self._staggering}  # fmt: skip

    def _save_last(self) -> None:
        if self.frames > self._saved_frames:
            self.save()

    def save(self) -> None:
        """Save a checkpoint; where that fails say so: the next one is tried when it is due."""
        self._next_save = self.frames + self.config.checkpoint_every
        self._saved_at = time.monotonic()
        tensors = training_tensors(self.trainer, self._parts)
        self.logger.flush()
        self._save_error = ranks.from_first(lambda: self._write_checkpoint(tensors))
        if self._save_error:
            warnings.warn(
                f"no checkpoint after {self.frames:,} frames: {self._save_error}. The ones before "
                "it are kept, and it is tried again at the next",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self._saved_frames = self.frames

    def _write_checkpoint(self, tensors: dict[str, Tensor]) -> str:
        """Save a checkpoint; return why that failed, if it did."""
        try:
            self._check_place()
            checkpoint.save_checkpoint(
                self.run_dir, self.config, self.trainer.agent, self.frames, tensors,
                self.config.keep,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return ""

    def _check_place(self) -> None:
        """Raise OSError where the run directory is no longer there, rather than make it anew."""
        if not (self.run_dir / "config.json").is_file():
            raise FileNotFoundError(
                f"{self.run_dir} is gone: it was moved or deleted while it trains; move it back"
            )

    @property
    def left(self) -> str:
        """What there is of the run where it stops now, for people."""
        go_on = f"--resume {shlex.quote(str(self.run_dir))}"
        if not self._saved_frames:
            return f"nothing is saved: it had no checkpoint yet. {go_on} starts it again"
        return (
            f"what was trained is in the run's last checkpoint, of {self._saved_frames:,} frames. "
            f"{go_on} goes on"
        )

    def check_saved(self) -> None:
        """Raise RunFailed unless the newest checkpoint is of the last update."""
        if self.frames > self._saved_frames:
            if not self._saved_frames:
                raise RunFailed(
                    f"no checkpoint of {self.run_dir} could be saved ({self._save_error}): all of "
                    f"its {self.frames:,} frames are lost. Mend the cause, then start it again "
                    f"with --resume {self.run_dir}"
                )
            raise RunFailed(
                f"the last checkpoint of {self.run_dir} could not be saved ({self._save_error}); "
                f"the newest one is of {self._saved_frames:,} of {self.frames:,} frames: mend the "
                f"cause, then go on with --resume {self.run_dir}"
            )

    def close(self) -> None:
        """End the curves, and let other processes have the run directory."""
        self.logger.close()
        if self._lock is not None:
            end_session(self.run_dir)
            self._lock.close()

    def _restore(self, trainer: Trainer) -> None:
        """Put everything back that the last checkpoint holds."""
        run_dir, config = self.run_dir, self.config
        check_changes(config)
        self._check_spaces(trainer.agent)
        newest = ranks.from_first(self._newest_checkpoint)
        if newest is None:
            say("Resumed:      from the start: it had no checkpoint yet")
            self._say_changes(load_config(run_dir))
            return
        # that of the checkpoint: options may have changed since
        saved = from_json(checkpoint.read_header(newest)["config"])
        has_same_episodes = not differences(flat(saved), flat(config), "", "", _is_of_episodes)
        is_changed = bool(changes(saved, config))
        self.frames, tensors = checkpoint.load_checkpoint(
            newest, saved if is_changed else config, trainer.agent
        )
        if not tensors:
            raise ValueError(
                f"resume={run_dir} is a policy without what training needs; start from it with "
                f"--init-from {run_dir}"
            )
        # none where its environments were no tensors, which those of the same id may be by now
        has_same_episodes &= has_episodes(tensors) and saves_episodes(trainer)
        try:
            restore_training_(trainer, self._parts, tensors, has_same_episodes)
        except ValueError as error:
            raise ValueError(f"{newest} does not fit this run: {error}") from None
        if not has_same_episodes:
            self._staggering = Staggering()
        if self._is_done and self._is_evaluated:
            remedy = "raise --total-frames to go on"
            if self.schedule.is_winding_down:
                remedy = "start another run from it with --init-from"
            raise ValueError(
                f"resume={run_dir} has trained for {self.frames:,} of "
                f"{self.schedule.end_frames:,} frames: it is finished; {remedy}"
            )
        exactly = ""
        if not isinstance(self.env, Stateful):
            exactly = (
                "; these environments cannot save their state: all of them start fresh episodes"
            )
        elif not has_same_episodes:
            exactly = "; all environments start fresh episodes"
        before = last_session(run_dir).get("ranks", 1)
        if before != ranks.size():
            exactly += f"; ranks: {ranks.size()} now, {before} before, the same run to rounding"
        say(f"Resumed:      from {self.frames:,} frames{exactly}")
        self._say_changes(saved)

    def _check_spaces(self, agent: ActorCritic) -> None:
        """Raise ValueError where the environment has other spaces than when the run was trained."""
        before = last_session(self.run_dir).get("spaces")
        if before is None:  # runs of before did not say
            return
        now = signatures((agent.observation_space, agent.action_space))
        for name in {**before, **now}:
            was, is_ = (each.get(name, "none") for each in (before, now))
            if was != is_:
                raise ValueError(
                    f"resume={self.run_dir} was trained with {name}: {was}, and its environment "
                    f"now has {is_}: what was learned would mean something else. Undo the change "
                    "of the environment, or train anew"
                )

    def _newest_checkpoint(self) -> Path | None:
        if not checkpoint.list_checkpoints(self.run_dir):
            return None
        return checkpoint.newest_checkpoint(self.run_dir, sets_aside=True)

    def _say_changes(self, saved: TrainConfig) -> None:
        changed = changes(saved, self.config)
        if changed:
            say(f"Changed:      {changed}")

    @property
    def _is_evaluated(self) -> bool:
        """Whether the evaluation that is there is of the frames trained so far."""
        path = self.run_dir / "evaluation.json"
        return path.is_file() and read_json(path).get("frames") == self.frames


def changes(saved: TrainConfig, config: TrainConfig) -> str:
    """Return the options in which `config` would go on with another run than `saved`."""
    left_out = ("resume", *MAY_CHANGE, *(("run_dir",) if config.run_dir is None else ()))
    return differences(
        flat(saved), flat(config), "in the run", "here", lambda name: name not in left_out
    )


def check_changes(config: TrainConfig) -> None:
    """Raise ValueError where a run would be resumed with other options, and nobody insists."""
    assert config.resume is not None
    different = changes(load_config(config.resume), config)
    if different and not config.allow_changes:
        raise ValueError(
            f"resume={config.resume} is another run: {different}. Leave these options out, start a "
            "new run with --init-from, or give --allow-changes to go on with them all the same"
        )


def of_run(config: TrainConfig) -> TrainConfig:
    """Return the configuration as the run's own: without what only says how it is resumed."""
    if config.resume is None:
        return config
    run_dir = config.run_dir or load_config(config.resume).run_dir
    return replace(config, run_dir=run_dir, resume=None, allow_changes=False)


def _is_of_episodes(name: str) -> bool:
    """Return whether with a change of this option episodes and memories cannot go on."""
    is_of_env = name in ("env", "backend", "num_envs", "wrap") or name.startswith("env_kwargs.")
    return is_of_env or name.startswith("core.")


def make_trainer(config: TrainConfig, trainer: Trainer) -> Trainer:
    """Return what acts and learns, in the form that `config` asks for.

    Raises:
        ValueError: with `config.strict`, where that form does not run here.
    """
    if not pick_compile(config, trainer.agent.device, can_be_captured(trainer)):
        return trainer
    say("Compiling:    takes a minute or two, less the next time")
    return accelerate(trainer, config.strict)


def default_run_dir(config: TrainConfig) -> Path:
    """Return runs/ENV__CORE__sSEED__TIME."""
    env_name = config.env.replace("/", "_").replace(":", "_")
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{env_name}__{config.core.kind}__s{config.seed}__{now}"
