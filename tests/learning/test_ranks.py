"""Two ranks are one run: the rollout of one process to the bit, its updates to rounding."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gymnasium import spaces
from programs import ROOT
from rank_programs import (
    CORE,
    FRAMES,
    NUM_ENVS,
    play,
    run_on_ranks,
    small_config,
    train_and_fail,
    train_and_interrupt,
    train_until,
)
from torch.testing import assert_close

import envs
from agents import ranks
from agents.actions import ActionHead
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from agents.learning.acceleration import CapturedTrainer, Trainer
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import start
from agents.ranks import ALONE, Share
from experiments.benchmarks.kills import curves
from mtxl_rl import train
from mtxl_rl.config import TrainConfig
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.made_by import begin_session, launch
from mtxl_rl.runs.run_directory import create_run, read_json

ENVS = [
    "MiniGrid-MemoryS7-v0",  # a table
    "MiniGrid-DoorKey-5x5-v0",  # levels of a pool
    "mtxl/Recall1to4x2-v0",
    "mtxl/popgym-PositionOnlyPendulumEasy-v0",  # actions that are numbers
]
IN_STEP = "mtxl/Recall20-v0"
"""Its episodes are equally long."""
EXACT = ("inputs", "action", "reward", "terminated", "truncated", "success", "episode", "cue_age")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What two ranks and one process have played, by env: (parts of two ranks, whole)."""
    folder = tmp_path_factory.mktemp("played")
    codes, said = run_on_ranks(folder, play, folder, ENVS)
    assert codes == [0, 0], said
    play(folder, ENVS)
    load = lambda number, part: torch.load(folder / f"{number}-{part}.pt")  # noqa: E731
    return {
        env_id: ([load(number, f"{rank}-of-2") for rank in range(2)], load(number, "0-of-1"))
        for number, env_id in enumerate(ENVS)
    }


@pytest.mark.parametrize("env_id", ENVS)
def test_the_rollout_is_that_of_one_process_to_the_bit(env_id: str, played: Any) -> None:
    """What is computed in batches of another size (values, log-probabilities) to rounding."""
    (first, second), whole = played[env_id]
    for name, tensor in whole.items():
        if name.startswith("rollout."):
            axis = 0 if name == "rollout.next_value" else 1
            both = torch.cat((first[name], second[name]), dim=axis)
            is_exact = name.removeprefix("rollout.").startswith(EXACT)
            is_exact &= not (env_id.endswith("PendulumEasy-v0") and tensor.is_floating_point())
            tolerance = 0 if is_exact else 1e-5
            assert_close(both, tensor, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: n + m)
    assert not (first["rollout.action"] == second["rollout.action"]).all()


@pytest.mark.parametrize("env_id", ENVS)
def test_an_update_is_that_of_one_process_to_rounding(env_id: str, played: Any) -> None:
    """The gradients of its first step; Adam makes rounding of those near 0 larger in the others."""
    parts, whole = played[env_id]
    tolerances = {"gradient.": 1e-6, "scalar.": 1e-4, "agent.": 1e-4}
    for part in parts:
        for name, tensor in whole.items():
            for kind, atol in tolerances.items():
                if name.startswith(kind) and "memory/" not in name:
                    words = lambda m, n=name: f"{n}: {m}"  # noqa: E731
                    assert_close(part[name], tensor, atol=atol, rtol=1e-4, msg=words)
            if name.startswith("agent.") and name.endswith((".mean", ".num_observed", ".num")):
                assert_close(part[name], tensor, atol=1e-6, rtol=1e-5)
        assert_close(part["end"], whole["end"], atol=1e-4, rtol=1e-3)
        assert torch.equal(part["end"], parts[0]["end"])  # the same agent, to the bit
        for name, tensor in parts[0].items():
            if name.startswith("agent."):
                assert torch.equal(part[name], tensor)


def evaluation(run_dir: Path) -> dict[str, Any]:
    return {k: v for k, v in read_json(run_dir / "evaluation.json").items() if k != "interventions"}


def test_a_signal_to_one_stops_both_and_one_process_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with the evaluation of one that was never stopped, and never of two ranks."""
    monkeypatch.setattr(train, "evaluate_interventions", lambda *_: {})
    stopped = small_config(tmp_path / "stopped")
    codes, said = run_on_ranks(tmp_path / "said", train_until, stopped, {3: "SIGTERM"})
    assert codes == [143, 143], said
    assert f"{NUM_ENVS} envs: 3 on each of 2 ranks" in said[0]
    assert f"in the run's last checkpoint, of {3 * FRAMES} frames" in said[0]
    assert said[1] == ""
    (*_, newest) = checkpoint.list_checkpoints(tmp_path / "stopped")
    assert newest.name == f"frames_{3 * FRAMES:012d}"

    resumed = dataclasses.replace(stopped, run_dir=None, resume=tmp_path / "stopped")
    train.train(resumed)
    assert "; ranks: 1 now, 2 before, the same run to rounding" in capsys.readouterr().out
    train.train(small_config(tmp_path / "whole"))
    assert evaluation(tmp_path / "stopped") == evaluation(tmp_path / "whole")
    theirs, ours = curves(tmp_path / "stopped"), curves(tmp_path / "whole")
    for name in ("losses/entropy", "losses/loss", "charts/episodic_return"):
        assert [step for step, _ in theirs[name]] == [step for step, _ in ours[name]]
        assert [x for _, x in theirs[name]] == pytest.approx([x for _, x in ours[name]], abs=1e-3)
    sessions = read_json(tmp_path / "stopped" / "made_by.json")["sessions"]
    assert [session["ranks"] for session in sessions] == [2, 1]


def test_two_ranks_set_the_same_envs_apart(tmp_path: Path, without_interventions: None) -> None:
    def config(name: str) -> TrainConfig:
        return dataclasses.replace(small_config(tmp_path / name), env=IN_STEP, env_kwargs={})

    codes, said = run_on_ranks(tmp_path / "said", train_until, config("ranks"), {})
    assert codes == [0, 0], said
    train.train(config("whole"))
    theirs, ours = curves(tmp_path / "ranks"), curves(tmp_path / "whole")
    for name in ("losses/entropy", "losses/loss", "charts/episodic_return"):
        assert [step for step, _ in theirs[name]] == [step for step, _ in ours[name]]
        assert [x for _, x in theirs[name]] == pytest.approx([x for _, x in ours[name]], abs=1e-3)


def test_a_killed_rank_ends_the_other_and_torchrun_goes_on_from_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    config = small_config(tmp_path / "run")
    started = time.monotonic()
    codes, said = run_on_ranks(tmp_path / "said", train_until, config, {4: "SIGKILL"})
    assert codes == [1, -9], said
    assert time.monotonic() - started < 60
    assert "error: rank 0 has lost another rank" in said[0]

    again = {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}
    codes, said = run_on_ranks(tmp_path / "said", train_until, config, {}, **again)
    assert codes == [0, 0], said
    assert f"Resumed:      from {2 * FRAMES} frames\n" in said[0]
    assert evaluation(tmp_path / "run")["frames"] == 6 * FRAMES


def test_only_the_launch_that_made_a_run_goes_on_with_it_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "tests")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train.as_started_again(config).resume is None  # it died before there was a run
    create_run(tmp_path / "run", config)
    begin_session(tmp_path / "run", torch.device("cpu"), {})
    assert train.as_started_again(config).resume == tmp_path / "run"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert train.as_started_again(config).resume is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "tests")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert train.as_started_again(config).resume is None


@pytest.mark.slow
def test_torchrun_itself_starts_again_after_a_kill_and_hands_a_signal_on(tmp_path: Path) -> None:
    options = (
        "--env", "MiniGrid-MemoryS7-v0", "--num-envs", "6", "--device", "cpu", "--num-threads", "1",
        "--core.dim", "8", "--core.heads", "2", "--core.depth", "1", "--ppo.rollout-len", "20",
        "--ppo.num-minibatches", "2", "--compile", "off", "--checkpoint-every", "240",
        "--total-frames", "100000000", "--run-dir", str(tmp_path / "run"),
    )  # fmt: skip
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
               "2", "--max-restarts", "3", "-m", "mtxl_rl.train")  # fmt: skip
    process = subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    guard = threading.Timer(300, process.kill)  # what hangs fails, and lets the others run
    guard.start()
    while not process.stdout.readline().startswith("Run:"):
        assert process.poll() is None
    while not checkpoint.list_checkpoints(tmp_path / "run"):
        assert process.poll() is None
        time.sleep(0.1)
    ranks_of = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    os.kill(int(ranks_of.stdout.split()[-1]), signal.SIGKILL)
    while not (line := process.stdout.readline()).startswith("Resumed:"):
        assert process.poll() is None
    while not process.stdout.readline().startswith("Run:"):
        assert process.poll() is None
    assert re.match("Resumed:      from [1-9][0-9,]* frames$", line)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    guard.cancel()
    assert "stopped by SIGTERM; what was trained is in the run's last checkpoint" in err
    assert process.returncode == 1
    sessions = read_json(tmp_path / "run" / "made_by.json")["sessions"]
    assert len(sessions) == 2
    assert sessions[-1]["ended"] is not None
    assert checkpoint.newest_checkpoint(tmp_path / "run")


def test_a_rank_that_fails_says_why_and_what_was_trained_is_saved(tmp_path: Path) -> None:
    """And what is not finite on one rank is skipped on both."""
    config = small_config(tmp_path / "run")
    happens = {2: "nan", 4: "fails"}
    codes, said = run_on_ranks(tmp_path / "said", train_until, config, happens)
    assert codes == [1, 1], said
    assert said[1].splitlines()[-1] == "error: rank 1: the simulator crashed"
    assert "error" not in said[0]
    skipped = "warning: 100% of the update to 240 frames was skipped: reward is nan in env 4, from"
    assert (said[0] + said[1]).count(skipped) == 1
    assert [x for _, x in curves(tmp_path / "run")["losses/skipped"]] == [0, 1, 0]
    (*_, newest) = checkpoint.list_checkpoints(tmp_path / "run")
    assert newest.name == f"frames_{3 * FRAMES:012d}"


def test_ctrl_c_in_the_evaluation_says_what_is_saved(tmp_path: Path) -> None:
    """Though those that wait for it go first."""
    config = small_config(tmp_path / "run", total_frames=2 * FRAMES)
    codes, said = run_on_ranks(tmp_path / "said", train_and_interrupt, config)
    assert codes[0] == 130, said
    assert codes[1] in (1, 130), said  # 1 where it has seen the first one go
    last = "stopped by SIGINT; what was trained is in the run's last checkpoint, of 240 frames."
    assert said[0].splitlines()[-1].startswith(last)
    assert "error" not in said[0] + said[1]


@pytest.mark.parametrize("where", ["reset", "defect"])
def test_one_that_fails_in_whatever_way_is_the_only_one_to_speak(
    where: str, tmp_path: Path
) -> None:
    config = small_config(tmp_path / "run")
    codes, said = run_on_ranks(tmp_path / "said", train_and_fail, config, where)
    assert codes == [1, 1], said
    assert "lost another rank" not in said[0]
    reasons = {"reset": "error: the simulator crashed", "defect": "KeyError: 'a defect'"}
    assert said[1].splitlines()[-1] == reasons[where]


def test_torchruns_launches_that_have_no_name_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    ours = launch()
    assert ours == launch() != "none"
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert launch() != ours


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]
)
def test_collectives_can_be_recorded(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank that meets itself: on a GPU by NCCL, within CUDA graphs."""

    def weights() -> torch.Tensor:
        torch.manual_seed(1)
        env = envs.make("MiniGrid-MemoryS7-v0", 4, device, seed=2, part=ranks.share())
        agent = ActorCritic(env.observation_space, env.action_space, CORE).to(device)
        ppo = PPO(agent, PPOConfig(rollout_len=8, num_minibatches=2, num_epochs=2))
        trainer = CapturedTrainer.of(Trainer(agent, ppo, env, start(agent, env), 8))
        for _ in range(2):
            trainer.update(trainer.collect(), 0.0)
        return torch.cat([p.detach().flatten() for p in agent.parameters()])

    alone = weights()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {"WORLD_SIZE": 1, "RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(ranks, "is_launched", lambda: True)
    before = signal.getsignal(signal.SIGTERM)
    with ranks.joined(torch.device(device, 0) if device == "cuda" else torch.device(device)):
        together = weights()
    signal.signal(signal.SIGTERM, before)
    assert_close(together, alone, atol=1e-4, rtol=1e-3)


def test_refuses_what_the_ranks_cannot_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "share", lambda: Share(0, 4))
    with pytest.raises(ValueError, match="by 4 ranks; set --num-envs to 4 or 8, or let torchrun"):
        train.check_ranks(small_config(tmp_path))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "tests")
    config = small_config(tmp_path, num_envs=8)
    train.check_ranks(config)
    with pytest.raises(ValueError, match=r"--max-restarts 3, .*: set --run-dir"):
        train.check_ranks(dataclasses.replace(config, run_dir=None))


def test_what_all_find_before_they_meet_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a store of torchrun itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert ranks.is_first_to_say("a")
    environment = {"WORLD_SIZE": 2, "RANK": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                   "TORCHELASTIC_RUN_ID": "tests"}  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert ranks.is_first_to_say("a")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)  # pyright: ignore[reportPrivateImportUsage]
    assert [ranks.is_first_to_say(text) for text in ("a", "a", "b")] == [True, False, True]
    for times in (1, 0):
        with pytest.raises(SystemExit):
            train.read_options(["--num-envz", "2"])
        assert capsys.readouterr().err.count("Unrecognized options: --num-envz") == times
    del store


@pytest.mark.parametrize("num_all", [24, 1024])
def test_minibatches_are_those_of_one_process(
    num_all: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def minibatches(share: Share) -> list[torch.Tensor]:
        monkeypatch.setattr(ranks, "share", lambda: share)
        torch.manual_seed(4)
        own_envs = num_all // share.num_ranks
        assert ppo.has_equal_minibatches(own_envs) == (share == ALONE or num_all == 1024)
        return [part + share.rank * own_envs for part in ppo._minibatches(own_envs)]

    space = spaces.Dict({"x": spaces.Discrete(2)})
    agent = ActorCritic(space, spaces.Discrete(2), core_config("feedforward", dim=8))
    ppo = PPO(agent, PPOConfig(num_minibatches=2))
    whole = minibatches(ALONE)
    parts = [minibatches(Share(rank, 4)) for rank in range(4)]
    assert sorted(torch.cat(whole).tolist()) == list(range(num_all))
    for number, envs_of_all in enumerate(whole):
        assert len(envs_of_all) == num_all // 2
        together = torch.cat([part[number] for part in parts])
        assert sorted(together.tolist()) == sorted(envs_of_all.tolist())
        if num_all == 1024:
            assert [len(part[number]) for part in parts] == [128] * 4


@pytest.mark.parametrize(
    "space", [spaces.Discrete(5), spaces.MultiDiscrete([2, 3]), spaces.Box(-2, 3, (3,))]
)
def test_samples_of_a_share_are_those_of_all(space: spaces.Space) -> None:
    torch.manual_seed(0)
    policy = ActionHead(space, feature_dim=4, embed_dim=8)
    features = torch.randn(6, 4)

    def sample(share: Share) -> torch.Tensor:
        torch.manual_seed(1)
        with torch.no_grad():
            return policy(features[share.rows(6 // share.num_ranks)]).sample(share=share)

    whole = sample(ALONE)
    assert_close(torch.cat([sample(Share(rank, 3)) for rank in range(3)]), whole)
    assert len(whole.unique()) > 1
