"""Two processes as torchrun starts them, without its two minutes of imports, and what they do."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import envs
import mtxl_rl.run
from agents import ranks
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import start
from agents.trees import named_tensors
from envs.wrapped.guarded_env import EnvError
from mtxl_rl import train
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import TrainConfig

NUM_ENVS, NUM_STEPS = 6, 20
FRAMES = NUM_ENVS * NUM_STEPS
CORE = core_config("mtxl", dim=8, depth=1, heads=2, seq_len=8, mem_len=5)


def run_on_ranks(folder: Path, program: Callable[..., None], *arguments: Any, **env: str) -> Any:
    """Run a program on two ranks; return their exit codes and what each has said.

    Args:
        folder: for what they say.
        program: a function of this module.
        *arguments: of it.
        **env: variables.
    """
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    # what would take each process seconds to import
    slow = ("torch._dynamo", "torch.utils.tensorboard.writer", "scipy.stats")
    context.set_forkserver_preload([__name__, *slow])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tests"} | env  # fmt: skip
    processes = [
        context.Process(target=_be_rank, args=(rank, common, folder, program, arguments))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    said = [(folder / f"rank{rank}.txt").read_text() for rank in range(2)]
    return [process.exitcode for process in processes], said


def _be_rank(
    rank: int, env: dict[str, str], folder: Path, program: Callable[..., None], arguments: Any
) -> None:
    os.environ.update(env | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    log = os.open(folder / f"rank{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    torch.set_num_threads(1)
    with fail_with_one_line():
        program(*arguments)


def play(folder: Path, env_ids: list[str]) -> None:
    """Act and learn twice in each env; save what came of it, a file for each rank and env."""
    with ranks.joined(torch.device("cpu")):
        for number, env_id in enumerate(env_ids):
            torch.manual_seed(5)
            own_envs = NUM_ENVS // ranks.size()
            env = envs.make(env_id, own_envs, seed=3, part=ranks.share())
            agent = ActorCritic(env.observation_space, env.action_space, CORE)
            ppo = PPO(agent, PPOConfig(rollout_len=NUM_STEPS, num_minibatches=2, num_epochs=2))
            trainer = Trainer(agent, ppo, env, start(agent, env), NUM_STEPS)
            named: dict[str, Tensor] = {}
            noting: Any = partial(_note_first_gradient, ppo, named)
            ppo.train_minibatch = noting
            for update in range(2):
                rollout = trainer.collect()
                if update == 0:
                    fields = {k: v for k, v in rollout._asdict().items() if k != "initial_state"}
                    named |= named_tensors(fields, "rollout")
                scalars = trainer.update(rollout, 0.0)
                if update == 0:
                    numbers = {k: torch.tensor(v) for k, v in scalars.items()}
                    named |= {f"scalar.{name}": x for name, x in numbers.items()}
                    named |= {f"agent.{k}": v.clone() for k, v in agent.state_dict().items()}
            named["end"] = torch.cat([p.detach().flatten() for p in agent.parameters()])
            env.close()
            torch.save(named, folder / f"{number}-{ranks.share().rank}-of-{ranks.size()}.pt")


def _note_first_gradient(ppo: PPO, named: dict[str, Tensor], *arguments: Any) -> Tensor:
    """Take a step, and note what the first one of all was made of."""
    statistics = ppo.train_minibatch_(*arguments)
    if not any(name.startswith("gradient.") for name in named):
        gradients = {name: p.grad for name, p in ppo.agent.named_parameters()}
        named |= {f"gradient.{k}": g.clone() for k, g in gradients.items() if g is not None}
    return statistics


def small_config(run_dir: Path, **options: Any) -> TrainConfig:
    config = TrainConfig(
        env="MiniGrid-MemoryS7-v0",
        total_frames=6 * FRAMES,
        num_envs=NUM_ENVS,
        device="cpu",
        num_threads=1,
        compile="off",
        eval_episodes=4,
        checkpoint_every=2 * FRAMES,
        run_dir=run_dir,
        core=CORE,
        ppo=PPOConfig(rollout_len=NUM_STEPS, num_minibatches=2, num_epochs=2),
    )
    return replace(config, **options)


def train_until(config: TrainConfig, happens: dict[int, str]) -> None:
    """Train; in some updates let something happen to rank 1: a signal's name, "fails" or "nan"."""
    collect, calls = Trainer.collect, []

    def collect_and_count(trainer: Trainer) -> Any:
        calls.append(1)
        what = happens.get(len(calls), "") if ranks.share().rank == 1 else ""
        if what == "fails":
            raise EnvError("the simulator crashed")
        if what.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, what))
        rollout = collect(trainer)
        if what == "nan":
            rollout.reward[5, 1] = math.nan
        return rollout

    Trainer.collect = collect_and_count  # type: ignore[method-assign]
    train.evaluate_interventions = lambda *_: {}  # type: ignore[assignment]
    warnings.simplefilter("default")
    train.train(config)


def train_and_interrupt(config: TrainConfig) -> None:
    """Train; interrupt both ranks in the evaluation, as a Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        for pid in (int(Path(f"{config.run_dir}.pid").read_text()), os.getpid()):
            os.kill(pid, signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ["RANK"] == "1":
        Path(f"{config.run_dir}.pid").write_text(str(os.getpid()))
    train.evaluate_agent = interrupt  # type: ignore[assignment]
    train.train(config)


def train_and_fail(config: TrainConfig, where: str) -> None:
    """Train; let an env of rank 1 fail in its first reset, or "defect": the program itself."""

    def fail(*_: Any) -> None:
        raise EnvError("the simulator crashed") if where == "reset" else KeyError("a defect")

    if os.environ["RANK"] == "1":
        if where == "reset":
            mtxl_rl.run.start = fail  # type: ignore[assignment]
        else:
            Trainer.collect = fail  # type: ignore[method-assign]
    train.train(config)
