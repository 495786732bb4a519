"""Measure speed, as ratios in one run.

    python -m experiments.benchmark envs
    python -m experiments.benchmark envs --device cuda --num-envs 65536
    python -m experiments.benchmark train
    python -m experiments.benchmark against ../the-commit-before

`train` is in `benchmarks.train_benchmark`, `against` in `benchmarks.against`. `envs`: environments
only, random actions. Alternatives are stepped in turns with ours, so that a noisy machine disturbs
all of them; a figure is the median of the turns. envpool is measured where it is installed; it has
its own random numbers and is not equal to Minigrid in all flags.
"""

from __future__ import annotations

import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space

import envs
from envs.tensor_env import TensorEnv
from experiments.benchmarks.against import measure_against
from experiments.benchmarks.train_benchmark import make_stock, measure_train
from experiments.tables.markdown import table_head, table_row
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.device import check_threads, pick_device

DEFAULT_IDS = (
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-MemoryS13-v0",
    "MiniGrid-MemoryS17Random-v0",
    "mtxl/MemoryS65-v0",
    "mtxl/TMaze1000Active-v0",
    "mtxl/Junctions1000x8-v0",
    "MiniGrid-Empty-8x8-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-MultiRoom-N6-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-KeyCorridorS6R3-v0",
    "MiniGrid-LockedRoom-v0",
    "MiniGrid-Fetch-8x8-N3-v0",
    "MiniGrid-ObstructedMaze-Full-v1",
    "MiniGrid-Dynamic-Obstacles-8x8-v0",
)
PROGRAM = "python -m experiments.benchmark"
TURN_SECONDS = 0.5
WARM_UP_STEPS = 20
SYNC_NUM_ENVS = 16
"""Its speed per frame does not depend on the number, and it makes them one by one."""

Stepper = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class EnvsConfig:
    """Environments only: frames a second of ours, of SyncVectorEnv and of envpool."""

    ids: tuple[str, ...] = DEFAULT_IDS
    """Environments."""
    num_envs: tuple[int, ...] = (1024, 4096)
    """Sizes of the batch."""
    turns: int = 5
    """Turns of half a second; the median counts."""
    device: str = "auto"
    """Of the tensors."""
    num_threads: int = 1
    """Threads of torch, and of envpool."""

    def __post_init__(self) -> None:
        if self.turns < 1:
            raise ValueError(f"turns={self.turns} must be 1 or more")
        if not self.num_envs or min(self.num_envs) < 1:
            raise ValueError(f"num_envs={self.num_envs} must be sizes of 1 or more")
        check_threads(self.num_threads)


@dataclass
class Measured:
    """Frames a second of one alternative, turn by turn."""

    step: Stepper
    num_envs: int
    device: torch.device
    speeds: list[float] = field(default_factory=list)

    def take_turn(self) -> None:
        num_steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < TURN_SECONDS:
            for _ in range(4):
                self.step()
            num_steps += 4
            if self.device.type == "cuda":
                torch.cuda.synchronize()
        self.speeds.append(num_steps * self.num_envs / (time.perf_counter() - started))

    @property
    def speed(self) -> float:
        return statistics.median(self.speeds)


def measure_envs(config: Annotated[EnvsConfig, tyro.conf.OmitArgPrefixes]) -> None:
    """Environments only: frames a second of ours, of SyncVectorEnv and of envpool.

    Args:
        config: what to measure.
    """
    torch.set_num_threads(config.num_threads)
    device = pick_device(config.device)
    envpool = import_envpool()
    print(f"torch {torch.__version__} on {device}, {config.num_threads} threads; "
          f"envpool {envpool.__version__ if envpool else 'is not installed'}\n")  # fmt: skip
    columns = ["id", "B", "bytes/env", "frames/s", "SyncVectorEnv", "ratio", "envpool", "ratio"]
    print(table_head(columns))
    for env_id in config.ids:
        for num_envs in config.num_envs:
            print(row(env_id, num_envs, device, envpool, config), flush=True)


def row(env_id: str, num_envs: int, device: torch.device, envpool: Any, config: EnvsConfig) -> str:
    """Return one row of the table."""
    cpu = torch.device("cpu")
    ours = envs.make(env_id, num_envs, device, backend="tensor")
    assert isinstance(ours, TensorEnv)
    ours.reset()
    alternatives = {
        "ours": Measured(tensor_stepper(ours), num_envs, device),
        "sync": Measured(sync_stepper(env_id), SYNC_NUM_ENVS, cpu),
    }
    if envpool and env_id in envpool.list_all_envs():
        stepper = envpool_stepper(envpool, env_id, num_envs, config.num_threads)
        alternatives["envpool"] = Measured(stepper, num_envs, cpu)
    for measured in alternatives.values():
        for _ in range(WARM_UP_STEPS):
            measured.step()
    for _ in range(config.turns):
        for measured in alternatives.values():
            measured.take_turn()
    ours.close()
    speed = alternatives["ours"].speed
    cells = [env_id, str(num_envs), f"{ours.num_bytes // num_envs:,}", f"{speed / 1e6:.2f}M"]
    for name in ("sync", "envpool"):
        other = alternatives.get(name)
        cells += [f"{other.speed / 1e3:.1f}k", f"{speed / other.speed:.0f}"] if other else ["", ""]
    return table_row(cells)


def tensor_stepper(env: TensorEnv) -> Stepper:
    """Step with random actions, drawn beforehand."""
    space = batch_space(env.action_space, env.num_envs)
    return _stepper(
        env.step, [torch.as_tensor(space.sample(), device=env.device) for _ in range(64)]
    )


def sync_stepper(env_id: str) -> Stepper:
    """Step the original in Gymnasium's SyncVectorEnv, in the same autoreset mode."""
    original = env_id.replace("mtxl/popgym-", "popgym:popgym-")
    original = original.replace("mtxl/MortarMayhem-", "memory_gym:MortarMayhem-")  # with pixels
    env = SyncVectorEnv(
        [lambda: make_stock(original)] * SYNC_NUM_ENVS, autoreset_mode=AutoresetMode.SAME_STEP
    )
    env.reset(seed=0)
    return _stepper(env.step, [env.action_space.sample() for _ in range(64)])


def envpool_stepper(envpool: Any, env_id: str, num_envs: int, num_threads: int) -> Stepper:
    """Step envpool's copy of Minigrid."""
    env = envpool.make(env_id, env_type="gymnasium", num_envs=num_envs, num_threads=num_threads)
    env.reset()
    size = (64, num_envs)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=size, dtype=np.int32)
    return _stepper(env.step, actions)


def import_envpool() -> Any:
    """Return envpool, or None where it is not installed or does not run."""
    try:
        return importlib.import_module("envpool")
    except (ImportError, OSError):
        return None


def _stepper(step: Callable[[Any], object], actions: Iterable[Any]) -> Stepper:
    """Step with these actions, round and round."""
    turns = itertools.cycle(actions)
    return lambda: step(next(turns))


def main() -> None:
    """Read the options and measure."""
    with fail_with_one_line():
        commands = {"envs": measure_envs, "train": measure_train, "against": measure_against}
        tyro.extras.subcommand_cli_from_dict(commands, prog=PROGRAM)


if __name__ == "__main__":
    main()
