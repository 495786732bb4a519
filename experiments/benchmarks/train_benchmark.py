"""Measure the training loop: see `python -m experiments.benchmark train --help`.

Every row runs in a process of its own, so that its peak of memory and what it has compiled are its
own; the machine's peak of matrix products is measured in that process, just before and after.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
import multiprocessing
import os
import resource
import signal
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import torch
import tyro
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from minigrid.wrappers import ImgObsWrapper
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

import envs
from agents import ranks
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.acceleration import Trainer, accelerate, compile_
from agents.learning.ppo import PPO, PPOConfig, ppo_loss, take_envs
from agents.learning.rollout import collect, start
from experiments.tables.markdown import table_head, table_row
from experiments.tables.runs import SOLVED
from mtxl_rl.command import RunFailed
from mtxl_rl.config import Compile, Precision, pick_precision
from mtxl_rl.device import check_threads, multiplies_bfloat16, pick_device, set_threads
from mtxl_rl.runs.metrics import EpisodeWindow, ended_episodes

WARM_UP_ITERATIONS = 1
MAX_ROW_MINUTES = 10_000
SOLVE_ENV = "MiniGrid-MemoryS11-v0"
SOLVE_FRAMES = 10_000_000
"""Over which the step size would fall to 0: that of `mtxl_rl.train`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row: the core's sizes and the batch."""

    name: str
    num_envs: int = 256
    rollout_len: int = 128
    num_minibatches: int = 8
    dim: int = 128
    depth: int = 3
    seq_len: int = 64
    mem_len: int = 64
    lmem_len: int = 8
    heads: int = 4
    num_epochs: int = 3
    compile: Compile = "on"
    precision: Precision = "bfloat16"
    is_captured: bool = True  # what is compiled on a GPU, where it can be
    num_ranks: int = 1
    num_threads: int | None = None  # of each rank; None: as the options say


LARGE = Setting(name="3 layers, width 128")
DEFAULTS = Setting(
    name="defaults of mtxl_rl.train", num_envs=128, rollout_len=64, num_minibatches=2, num_epochs=6,
    dim=64, depth=2, seq_len=16, mem_len=16, lmem_len=4, precision="auto",
)  # fmt: skip
CPU_SETTINGS = (
    dataclasses.replace(LARGE, name="plain", compile="off", precision="float32"),
    dataclasses.replace(LARGE, name="plain, bfloat16", compile="off"),
    dataclasses.replace(LARGE, name="compiled", precision="float32"),
    dataclasses.replace(LARGE, name="compiled, 4 minibatches", num_minibatches=4,
                        precision="float32"),
    dataclasses.replace(LARGE, name="compiled, bfloat16"),
    dataclasses.replace(LARGE, name="16 envs", num_envs=16),
    dataclasses.replace(LARGE, name="64 envs", num_envs=64),
    dataclasses.replace(LARGE, name="128 envs", num_envs=128),
    dataclasses.replace(LARGE, name="128 envs, 4 minibatches", num_envs=128, num_minibatches=4),
    dataclasses.replace(LARGE, name="16 minibatches", num_minibatches=16),
    dataclasses.replace(LARGE, name="segments of 16", seq_len=16),
    dataclasses.replace(LARGE, name="memory 16", mem_len=16),
    dataclasses.replace(LARGE, name="memory 128", mem_len=128),
    dataclasses.replace(LARGE, name="width 64", dim=64),
    dataclasses.replace(LARGE, name="width 256", dim=256),
    DEFAULTS,
    dataclasses.replace(DEFAULTS, name="defaults, plain", compile="off"),
    dataclasses.replace(DEFAULTS, name="defaults, 16 envs", num_envs=16, compile="off"),
    # as many envs as are compiled on several ranks
    dataclasses.replace(DEFAULTS, name="1 rank of 1 thread", num_envs=512, num_threads=1),
    dataclasses.replace(DEFAULTS, name="1 rank of 2 threads", num_envs=512, num_threads=2),
    dataclasses.replace(DEFAULTS, name="2 ranks of 1 thread", num_envs=512, num_threads=1,
                        num_ranks=2),
)  # fmt: skip
GPU = Setting(name="4 layers, width 128", num_envs=4096, rollout_len=64, depth=4, seq_len=16,
              mem_len=128, lmem_len=64, num_epochs=4)  # fmt: skip
GPU_SETTINGS = (
    dataclasses.replace(GPU, name="plain", compile="off", precision="float32"),
    dataclasses.replace(GPU, name="plain, bfloat16", compile="off"),
    GPU,
    dataclasses.replace(GPU, name="compiled, not captured", is_captured=False),
    dataclasses.replace(GPU, name="16,384 envs", num_envs=16384, num_minibatches=32),
    dataclasses.replace(GPU, name="width 256", dim=256),
    dataclasses.replace(GPU, name="8 layers", depth=8),
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkTrainConfig:
    """The training loop: frames a second, where they go, and how near to the machine's limit."""

    env: str = "MiniGrid-MemoryS9-v0"
    """Environment."""
    rows: tuple[str, ...] = ()
    """Names of the rows to measure. Left out: all."""
    iterations: int = 3
    """Rollouts and updates that are timed; the median counts."""
    device: str = "auto"
    """Where the network and the environments run."""
    num_threads: int | None = None
    """CPU threads of torch. Left out: all cores. Rows of ranks have their own."""
    solve: bool = False
    """Train every row until .95 of the last 1,000 episodes on MemoryS11 succeed, too: minutes each,
    within the row's limit."""
    row_minutes: float = 4.0
    """A row that takes longer is ended, and the next one begins."""
    peer: bool = True
    """Measure RecurrentPPO of sb3-contrib too, where it is installed."""
    profile: Path | None = None
    """Write a trace of one iteration of the first row into this file (Chrome's JSON), and its
    operations by time beside it (.txt)."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations={self.iterations} must be 1 or more")
        if not 0 < self.row_minutes <= MAX_ROW_MINUTES:
            raise ValueError(
                f"row_minutes={self.row_minutes} must be above 0 and at most {MAX_ROW_MINUTES:,}"
            )
        if self.profile is not None and self.profile.suffix == ".txt":
            raise ValueError(
                f"profile={self.profile} is where the operations by time are written; end it in "
                ".json"
            )
        if self.profile is not None and not self.profile.parent.is_dir():
            raise ValueError(f"profile={self.profile} is in no folder that there is; make it first")
        check_threads(self.num_threads)


@dataclass(frozen=True)
class Measured:
    """What a row measured: microseconds and operations per frame."""

    form: str
    frames_per_second: float
    acting: float
    env: float
    update: float
    rest: float
    acting_flop: float
    update_flop: float
    peak: float  # FLOP/s of the largest matrix product in the same precision
    memory: int  # bytes
    solved: float | None  # seconds to .95 on `SOLVE_ENV`, after the first update

    @property
    def update_share(self) -> float:
        """Return the share of the peak that the update achieves."""
        return self.update_flop / (self.update * 1e-6) / self.peak


def measure_train(config: Annotated[BenchmarkTrainConfig, tyro.conf.OmitArgPrefixes]) -> None:
    """The training loop: frames a second, where they go, and how near to the machine's limit.

    Args:
        config: what to measure.

    Raises:
        RunFailed: where no row was measured.
    """
    device = pick_device(config.device)
    chosen = named_settings(config.rows, device)
    print(f"{config.env}, torch {torch.__version__} on {device}; times in microseconds a frame\n")
    columns = ["row", "envs x steps", "form", "frames/s", "acting", "env", "update", "rest",
               "MFLOP/frame: acting", "update", "peak, GFLOP/s", "update's share of it",
               "memory, GB", "seconds to .95 on S11"]  # fmt: skip
    print(table_head(columns))
    num_measured = 0
    for number, setting in enumerate(chosen):
        if setting.precision == "bfloat16" and not multiplies_bfloat16(device):
            say(f"{setting.name}: left out, this machine emulates bfloat16")
            continue
        trace = config.profile if number == 0 else None
        try:
            if setting.num_ranks > 1:
                measured = on_ranks(config, setting, trace)
            else:
                measured = in_process(60 * config.row_minutes, measure, config, setting, trace)
        except RowError as error:
            say(f"{setting.name}: {error}")
        else:
            print(row(setting, measured), flush=True)
            num_measured += 1
    if config.peer:
        print_peer(config)
    if not num_measured:
        raise RunFailed(f"none of {len(chosen)} rows was measured; why is said above")


def named_settings(rows: Sequence[str], device: torch.device) -> list[Setting]:
    """Return the rows of these names; all where none is given.

    Raises:
        ValueError: for a name that none has.
    """
    settings = GPU_SETTINGS if device.type == "cuda" else CPU_SETTINGS
    if unknown := set(rows) - {setting.name for setting in settings}:
        names = ", ".join(repr(setting.name) for setting in settings)
        raise ValueError(f"rows={sorted(unknown)} must be among {names}")
    return [setting for setting in settings if not rows or setting.name in rows]


def say(words: str) -> None:
    """Print what is no part of the table."""
    print(words, file=sys.stderr, flush=True)


class RowError(Exception):
    """What a row could not do."""


def in_process(seconds: float, fn: Callable[..., Any], *arguments: Any) -> Any:
    """Call `fn` in a new process and return what it returns.

    The process ends with this one, however this one ends, and its compilers with it.

    Raises:
        RowError: where it raises, dies, or takes longer than `seconds`.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, fn, arguments), daemon=True)
    process.start()
    assert process.pid is not None
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise RowError(f"ended after {seconds / 60:g} minutes; --row-minutes allows more")
        answer = ours.recv()
    except EOFError:
        process.join()
        raise RowError(f"its process died with exit code {process.exitcode}") from None
    finally:
        with suppress(ProcessLookupError, PermissionError):  # it has no group yet, or is gone
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    if isinstance(answer, Exception):
        raise RowError(str(answer))
    return answer


def on_ranks(config: BenchmarkTrainConfig, setting: Setting, trace: Path | None) -> Measured:
    """Measure a row of several ranks, on this machine, and return what the first one measured.

    Raises:
        RowError: where one of them raises, dies, or takes too long.
    """
    how = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=setting.num_ranks, run_id="benchmark",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0,
    )  # fmt: skip
    try:
        return elastic_launch(how, _measure_rank)(config, setting, trace)[0]
    except ChildFailedError as error:
        raise RowError(f"a rank failed: {error.get_first_failure()[1].message}") from None


def _measure_rank(
    config: BenchmarkTrainConfig, setting: Setting, trace: Path | None
) -> Measured | None:
    signal.alarm(math.ceil(60 * config.row_minutes))  # nobody else ends it
    measured = measure(config, setting, trace)
    return measured if os.environ["RANK"] == "0" else None


def _answer(pipe: Connection, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setpgid(0, 0)
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    try:
        answer = fn(*arguments)
    except Exception as error:
        answer = RuntimeError(f"{type(error).__name__}: {error}")  # any error can be sent so
    pipe.send(answer)


def _end_with(pipe: Connection) -> None:
    """Kill this process and what it has started when the other end of the pipe is gone."""
    with suppress(EOFError, OSError):
        pipe.recv()  # nothing is sent
    os.killpg(0, signal.SIGKILL)


def row(setting: Setting, measured: Measured) -> str:
    """Return one row of the table."""
    cells = [
        setting.name,
        f"{setting.num_envs} x {setting.rollout_len}",
        measured.form,
        f"{measured.frames_per_second:,.0f}",
        *(f"{measured.__dict__[part]:.3g}" for part in ("acting", "env", "update", "rest")),
        f"{measured.acting_flop / 1e6:.2f}",
        f"{measured.update_flop / 1e6:.1f}",
        f"{measured.peak / 1e9:,.0f}",
        f"{measured.update_share:.0%}",
        f"{measured.memory / 1e9:.2f}",
        "" if measured.solved is None else f"{measured.solved:.0f}",
    ]
    return table_row(cells)


def measure(config: BenchmarkTrainConfig, setting: Setting, trace: Path | None) -> Measured:
    """Measure one row."""
    device = ranks.own_device(pick_device(config.device))
    set_threads(setting.num_threads or config.num_threads)
    flop = count_flop(config.env, setting)
    with ranks.joined(device):
        return _measure(config, setting, trace, device, flop)


def _measure(
    config: BenchmarkTrainConfig,
    setting: Setting,
    trace: Path | None,
    device: torch.device,
    flop: tuple[float, float],
) -> Measured:
    trainer = make_trainer(config.env, setting, device)
    peaks = [matmul_peak(trainer.agent.precision, device)]
    trainer = accelerated(trainer, setting)
    times = [iterate(trainer, device) for _ in range(WARM_UP_ITERATIONS + config.iterations)]
    collecting, update, rest = (
        statistics.median(part) for part in zip(*times[WARM_UP_ITERATIONS:], strict=True)
    )
    memory = peak_memory(device)
    if trace is not None:  # which takes memory
        with profile() as profiler:
            iterate(trainer, device)
        if ranks.is_first():
            profiler.export_chrome_trace(str(trace))
            order = f"self_{device.type}_time_total"
            operations = profiler.key_averages().table(sort_by=order, row_limit=-1)
            trace.with_suffix(".txt").write_text(operations, encoding="utf-8")
    # of a recorded rollout, its environments cannot be told apart
    env = math.nan if trainer.form == "captured" else env_seconds(trainer, device)
    peaks.append(matmul_peak(trainer.agent.precision, device))
    frames = setting.num_envs * setting.rollout_len
    unit = 1e6 / frames
    precision = str(trainer.agent.precision).removeprefix("torch.")
    return Measured(
        form=f"{trainer.form}, {precision}",
        frames_per_second=frames / (collecting + update + rest),
        acting=(collecting if math.isnan(env) else collecting - env) * unit,
        env=env * unit,
        update=update * unit,
        rest=rest * unit,
        acting_flop=flop[0],
        update_flop=flop[1],
        peak=setting.num_ranks * max(peaks),
        memory=memory,
        solved=seconds_to_solve(setting, device) if config.solve else None,
    )


def make_trainer(env_id: str, setting: Setting, device: torch.device) -> Trainer:
    """Build what a row trains."""
    torch.manual_seed(0)
    env = envs.make(env_id, setting.num_envs // ranks.size(), device, part=ranks.share())
    core = {name: getattr(setting, name)
            for name in ("dim", "depth", "seq_len", "mem_len", "lmem_len", "heads")}  # fmt: skip
    config_of_core = core_config(**core)
    agent = ActorCritic(env.observation_space, env.action_space, config_of_core).to(device)
    agent.precision = pick_precision(setting.precision, device, config_of_core, agent.action_space)
    config = PPOConfig(
        rollout_len=setting.rollout_len,
        num_minibatches=setting.num_minibatches,
        num_epochs=setting.num_epochs,
    )
    ppo = PPO(agent, config)
    return Trainer(agent, ppo, env, start(agent, env), setting.rollout_len)


def accelerated(trainer: Trainer, setting: Setting) -> Trainer:
    """Return the form of `trainer` that a row asks for."""
    if setting.compile == "off":
        return trainer
    return accelerate(trainer) if setting.is_captured else compile_(trainer)


def iterate(trainer: Trainer, device: torch.device) -> tuple[float, float, float]:
    """Return the seconds of acting with environments, of the update, and of the rest."""
    started = now(device)
    rollout = trainer.collect()
    acted = now(device)
    trainer.update(rollout, progress=0.0)
    updated = now(device)
    ended_episodes(rollout, has_success=True, has_cue=True)
    return acted - started, updated - acted, now(device) - updated


def seconds_to_solve(setting: Setting, device: torch.device) -> float:
    """Return the seconds of training to .95 on `SOLVE_ENV`, without the first, compiled update."""
    trainer = make_trainer(SOLVE_ENV, setting, device)
    trainer = accelerated(trainer, setting)
    window, frames, started = EpisodeWindow(), 0, 0.0
    while not window.reaches(SOLVED, None):
        rollout = trainer.collect()
        trainer.update(rollout, progress=min(1.0, frames / SOLVE_FRAMES))
        window.add(ended_episodes(rollout, has_success=True, has_cue=True))
        started = started or now(device)
        frames += setting.num_envs * setting.rollout_len
    return now(device) - started


def env_seconds(trainer: Trainer, device: torch.device) -> float:
    """Return the seconds that the environments alone take for a rollout."""
    env: Any = trainer.env
    assert isinstance(env.action_space, spaces.Discrete)
    size = (trainer.num_steps, env.num_envs)
    actions = torch.randint(int(env.action_space.n), size, device=device)
    started = now(device)
    for action in actions:
        env.step(action)
    return now(device) - started


def count_flop(env_id: str, setting: Setting) -> tuple[float, float]:
    """Return the operations per frame of acting and of an update, counted on two envs.

    A multiplication and an addition count as two; what is no matrix product is not counted.
    """
    small = dataclasses.replace(setting, num_envs=2, num_minibatches=1, precision="float32")
    trainer = make_trainer(env_id, small, torch.device("cpu"))
    frames = 2 * setting.rollout_len
    trainer.agent.requires_grad_(False)  # the counter's hooks need gradients or none
    with FlopCounterMode(display=False) as acting:
        rollout, _ = collect(trainer.agent, trainer.env, trainer.carry, setting.rollout_len)
    trainer.agent.requires_grad_(True)
    batch = take_envs(rollout, rollout.reward, torch.arange(2))
    with FlopCounterMode(display=False) as training:
        ppo_loss(trainer.agent, batch, trainer.ppo.config, ent_coef=0.0)[0].backward()
    update = setting.num_epochs * training.get_total_flops()
    return acting.get_total_flops() / frames, update / frames


def matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return the operations a second of a large square product: the best of ten."""
    size = 8192 if device.type == "cuda" else 2048
    first, second = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds = []
    for _ in range(10):
        started = now(device)
        torch.mm(first, second)
        seconds.append(now(device) - started)
    return 2 * size**3 / min(seconds)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that the process, or the GPU for it, has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def now(device: torch.device) -> float:
    """Return the time, after what was asked of a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def make_stock(env_id: str) -> gymnasium.Env:
    """Make one environment of Gymnasium, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(env_id, disable_env_checker=True)


def print_peer(config: BenchmarkTrainConfig) -> None:
    """Measure sb3-contrib's RecurrentPPO, or say that it is not there."""
    try:
        version = importlib.import_module("sb3_contrib").__version__
    except ImportError:
        print("\nRecurrentPPO: sb3-contrib is not installed (pip install sb3-contrib)")
        return
    print(f"\nsb3-contrib {version}, RecurrentPPO: LSTM of width 128, 3 epochs, 8 minibatches\n")
    print(table_head(("envs x steps", "frames/s")))
    for num_envs in (16, 256):
        try:
            speed = in_process(60 * config.row_minutes, measure_peer, config, num_envs)
        except RowError as error:
            say(f"{num_envs} x 128: {error}")
            continue
        print(table_row((f"{num_envs} x 128", f"{speed:,.0f}")), flush=True)


def measure_peer(config: BenchmarkTrainConfig, num_envs: int) -> float:
    """Return RecurrentPPO's frames a second, from the second rollout on."""
    from sb3_contrib import RecurrentPPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.callbacks import (  # pyright: ignore[reportMissingImports]
        BaseCallback,
    )
    from stable_baselines3.common.vec_env import (  # pyright: ignore[reportMissingImports]
        DummyVecEnv,
    )

    set_threads(config.num_threads)
    starts: list[float] = []

    class Clock(BaseCallback):
        def _on_rollout_start(self) -> None:
            starts.append(time.perf_counter())

        def _on_step(self) -> bool:
            return True

    def make_one() -> gymnasium.Env:
        return FlattenObservation(ImgObsWrapper(make_stock(config.env)))

    frames = num_envs * 128
    model = RecurrentPPO(
        "MlpLstmPolicy", DummyVecEnv([make_one] * num_envs), n_steps=128, batch_size=frames // 8,
        n_epochs=3, policy_kwargs={"lstm_hidden_size": 128, "net_arch": [128]},
        device=str(pick_device(config.device)),
    )  # fmt: skip
    model.learn(3 * frames, callback=Clock())
    return frames / min(after - before for before, after in itertools.pairwise(starts))
