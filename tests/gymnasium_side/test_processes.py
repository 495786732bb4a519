"""Environments in processes of their own are those of one process, and no process outlives them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from faulty_env import FAULTY_STEP
from gymnasium import spaces
from odd_env import OddEnv
from programs import started, started_module
from torch import Tensor

import envs
from envs.batched_env import BatchedEnv
from envs.wrapped import gymnasium_adapter
from envs.wrapped.guarded_env import EnvError
from mtxl_rl.runs import checkpoint

NUM_ENVS = 3
TINY = """
--num-envs 4 --eval-episodes 4 --device cpu --num-threads 1 --compile off --ppo.rollout-len 16
--ppo.num-minibatches 2 --core.dim 8 --core.depth 1 --core.heads 2 --core.seq-len 8
""".split()  # noqa: SIM905  (as one would type it)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


class MaskedEnv(OddEnv):
    """Its mask is in the info."""

    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0], {"action_mask": np.array([0, 1], np.int8)}

    def info(self, is_done: bool) -> dict[Any, Any]:
        return {"action_mask": np.array([1, self.time % 2], np.int8)}


gymnasium.register("ProcessesMasked-v0", MaskedEnv)


def played(env_id: str, vectorize: Any, num_steps: int = 40, **options: Any) -> list[list[Tensor]]:
    """Return all that the steps of random play give."""
    env = envs.make(env_id, NUM_ENVS, seed=7, vectorize=vectorize, **options)
    assert env.num_processes == (NUM_ENVS if vectorize == "async" else 0)
    steps = [list(env.reset().values())]
    generator = torch.Generator().manual_seed(0)
    num_actions = int(env.action_space.n)  # type: ignore[attr-defined]
    for _ in range(num_steps):
        step = env.step(torch.randint(num_actions, (NUM_ENVS,), generator=generator))
        tensors = [*step.observation.values(), *(step.final_observation or {}).values()]
        tensors += [step.reward, step.terminated, step.truncated, step.success.float()]
        steps.append(tensors if step.cue is None else [*tensors, step.cue])
    env.close()
    return steps


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("CartPole-v1", {"env_kwargs": {"max_episode_steps": 9}}),
        ("CartPole-v1", {"wrap": ["TimeAwareObservation"], "level_seeds": [4, 5, 6, 7]}),
        ("mtxl/TMaze10to40-v0", {"backend": "gymnasium", "level_seeds": [4, 5, 6, 7]}),  # a cue
        ("MiniGrid-MemoryS7-v0", {"backend": "gymnasium", "env_kwargs": {"max_steps": 20}}),
        ("ProcessesMasked-v0", {}),
    ],
)
def test_processes_play_what_one_process_plays(env_id: str, options: dict[str, Any]) -> None:
    both = [played(env_id, vectorize, **options) for vectorize in ("sync", "async")]
    for ours, expected in zip(*both, strict=True):
        for tensor, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(tensor, other, rtol=0, atol=0, equal_nan=True)


def until_it_fails(fault: Any, timeout: float | None = None) -> str:
    env = envs.make(
        "faulty_env:FaultySeed-v0", NUM_ENVS, vectorize="async", timeout=timeout,
        env_kwargs={"fault": fault}, level_seeds=[0, 1, 2],
    )  # fmt: skip
    env.reset()
    actions = torch.zeros(NUM_ENVS, dtype=torch.int64)
    try:
        for _ in range(FAULTY_STEP - 1):
            env.step(actions)
        with pytest.raises(EnvError) as error:
            env.step(actions)
    finally:
        env.close()
    return str(error.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "failed: RuntimeError: the simulator crashed"),
        ("hangs", "failed: TookTooLong: it has not ended after 0.4 s"),
        ("is killed", "failed: its process was killed by SIGKILL"),
        ("exits", "failed: its process ended with exit code 3"),
        ({"reward": None}, "returned the reward None, not a number"),
        ({"result": (0, 1)}, "returned (0, 1), not 5 values"),
    ],
)
def test_what_goes_wrong_is_named(fault: Any, message: str) -> None:
    timeout = 0.4 if fault == "hangs" else None
    assert until_it_fails(fault, timeout) == (
        f"faulty_env:FaultySeed-v0, env 1 of 3: step {FAULTY_STEP} {message}"
    )


@pytest.mark.slow
def test_one_that_never_returns_to_python_is_killed_and_named() -> None:
    assert until_it_fails("hangs in C", 0.4) == (
        f"faulty_env:FaultySeed-v0, env 1 of 3: step {FAULTY_STEP} failed: it has not ended after "
        "0.4 s, could not be interrupted, and was killed"
    )


def test_what_is_not_finite_is_passed_on() -> None:
    env = envs.make(
        "faulty_env:FaultySeed-v0", NUM_ENVS, vectorize="async", level_seeds=[0, 1, 2],
        env_kwargs={"fault": {"reward": float("nan")}},
    )  # fmt: skip
    env.reset()
    steps = [env.step(torch.zeros(NUM_ENVS, dtype=torch.int64)) for _ in range(FAULTY_STEP)]
    assert steps[-1].reward.isnan().tolist() == [False, True, False]
    env.close()


@pytest.mark.parametrize("name", ["Info", "Printing"])
def test_infos_of_every_kind_and_prints_do_no_harm(name: str) -> None:
    steps = played(f"odd_env:Odd-{name}-v0", "async", num_steps=OddEnv.length)
    assert steps[-1][-3].all()  # terminated


class Unmakable(OddEnv):
    def __init__(self, **_: Any):
        if multiprocessing.parent_process() is not None:
            raise RuntimeError("no license for another process")


class Uneven(OddEnv):
    def __init__(self, **_: Any):
        is_worker = multiprocessing.parent_process() is not None
        self.observation_space = spaces.Box(-1, 2 if is_worker else 1, (2,))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unmakable, "cannot be made: RuntimeError: no license for another process; mend its cons"),
        (Uneven, "has other spaces in each copy; make them, bounds included, the same in all"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(kind: type[OddEnv], message: str) -> None:
    gymnasium.register("Made-v0", kind)
    try:
        with pytest.raises(ValueError, match=r"^env='Made-v0' ") as error:
            envs.make("Made-v0", NUM_ENVS, vectorize="async")
    finally:
        del gymnasium.registry["Made-v0"]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_each_process_has_generators_of_its_own_seeds() -> None:
    first, again = (played("odd_env:Odd-GlobalRandom-v0", "async", num_steps=2) for _ in range(2))
    rewards = first[1][-4]
    assert torch.equal(rewards, again[1][-4])
    assert len(set(rewards.tolist())) == NUM_ENVS


def test_auto_takes_processes_for_slow_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    def num_processes(env_id: str, **options: Any) -> int:
        env: BatchedEnv = envs.make(env_id, NUM_ENVS, **options)
        env.close()
        return env.num_processes

    monkeypatch.setattr(gymnasium_adapter, "num_cores", lambda: 2)
    assert num_processes("CartPole-v1") == 0
    monkeypatch.setattr(gymnasium_adapter, "PROCESS_SECONDS", 1e-9)
    assert num_processes("CartPole-v1") == NUM_ENVS
    assert num_processes("CartPole-v1", vectorize="sync") == 0
    assert num_processes("odd_env:Odd-Picture-v0", render_mode="rgb_array") == 0
    monkeypatch.setattr(gymnasium_adapter, "num_cores", lambda: 1)
    assert num_processes("CartPole-v1") == 0


def descendants(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [each for child in map(int, text.split()) for each in (child, *descendants(child))]


def have_ended(pids: list[int], seconds: float = 20.0) -> bool:
    """Wait until none of the processes is left."""
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def start(module: str, *arguments: Any) -> subprocess.Popen[str]:
    return started_module(module, *arguments, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["is killed", "hangs and is killed", "forgets to close"])
def test_no_process_outlives_the_one_that_made_it(how: str) -> None:
    env_id = "Faulty-hangs-v0" if "hangs" in how else "Faulty-raises-v0"
    num_steps = FAULTY_STEP if "hangs" in how else 1
    seconds = 0 if "forgets" in how else 600
    process = started("env_until_killed", env_id, num_steps, seconds, start_new_session=True,
                      stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    pids = descendants(process.pid)
    assert len(pids) >= 3
    if "forgets" not in how:
        time.sleep(1)
        process.kill()
    process.communicate(timeout=30)
    assert have_ended(pids)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_and_ends_all(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As Ctrl-C, and a scheduler's SIGTERM, are."""
    process = start(
        "mtxl_rl.train", "--env", "CartPole-v1", "--vectorize", "async", *TINY,
        "--run-dir", str(tmp_path / "run"),
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    while not (line := process.stdout.readline()).startswith("Run:"):
        assert process.poll() is None
        lines.append(line)
    assert "4 envs in 4 processes, gymnasium backend" in "".join(lines)
    time.sleep(2)
    pids = descendants(process.pid)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 128 + number
    assert "what was trained is in the run's last checkpoint" in err
    assert "Traceback" not in err
    assert checkpoint.list_checkpoints(tmp_path / "run")
    assert have_ended(pids)


@pytest.mark.slow
@pytest.mark.unchecked
def test_a_run_is_trained_evaluated_and_resumed_in_processes(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    env = ("--env", "odd_env:Odd-Printing-v0", "--run-dir", run_dir)
    out, err = start("mtxl_rl.train", *TINY, *env, "--vectorize", "async",
                     "--total-frames", "128").communicate(timeout=300)  # fmt: skip
    assert "Evaluate:" in out, err
    out, err = start("mtxl_rl.evaluate", run_dir, "--json").communicate(timeout=300)
    assert out.startswith("{"), err
    assert out.count("\n") == 1  # what processes print is not in it
    out, err = start("mtxl_rl.train", "--resume", run_dir, "--total-frames", "256",
                     "--vectorize", "sync").communicate(timeout=300)  # fmt: skip
    assert "Evaluate:" in out, err
