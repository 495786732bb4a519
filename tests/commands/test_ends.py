"""What a run does with environments that do not end, say nothing, print, or say nonsense."""

from __future__ import annotations

import ctypes
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import odd_env
import pytest
import torch
from minigrid.core.world_object import Goal
from minigrid.minigrid_env import MiniGridEnv
from single_envs import single_envs

import envs
from agents.cores.core import core_config
from agents.learning.acceleration import Trainer
from agents.learning.ppo import PPO, PPOConfig
from envs.wrapped.guarded_env import EnvError
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from experiments.benchmarks.kills import curves
from experiments.plots import plot
from mtxl_rl import evaluate, train
from mtxl_rl.command import RunFailed
from mtxl_rl.config import EvaluateConfig, TrainConfig
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.metrics import EpisodeWindow, Evaluation
from mtxl_rl.runs.run_directory import read_json

pytestmark = pytest.mark.unchecked

FRAMES_PER_UPDATE = 4 * 16
NO_EVALUATION = Evaluation(1, None, None, mean_return=0.0, mean_length=1.0)


def make_config(run_dir: Path, env: str, **options: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "env": env,
        "total_frames": 2 * FRAMES_PER_UPDATE,
        "num_envs": 4,
        "eval_episodes": 4,
        "device": "cpu",
        "num_threads": 1,
        "compile": "off",
        "run_dir": run_dir,
        "core": core_config(dim=8, heads=2, depth=1, seq_len=4, mem_len=2),
        "ppo": PPOConfig(rollout_len=16, num_minibatches=2, num_epochs=1),
    }
    return TrainConfig(**values | options)


def written(run_dir: Path) -> dict[str, Any]:
    return read_json(run_dir / "evaluation.json")


def test_episodes_that_do_not_end_are_cut_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train.train(make_config(run, "Odd-Endless-v0", eval_max_steps=9))
    assert "4 of 4 episodes were cut at 9 steps" in capsys.readouterr().out
    result = written(run)
    assert (result["cut_episodes"], result["max_steps"], result["mean_length"]) == (4, 9, 9.0)
    assert all(each["cut_episodes"] == 4 for each in result["interventions"].values())
    # no episode of training has ended
    monkeypatch.setattr("mtxl_rl.evaluations.evaluation.UNKNOWN_BOUND", 7)
    assert evaluate.evaluate(run, EvaluateConfig(episodes=2)).max_steps == 7
    # none shows in the table, which the evaluation has all the same
    plot(run)
    assert "return (IQM" in (run / "table.md").read_text()


def test_the_bound_is_ten_times_the_longest_episode_of_training(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train.train(make_config(run, "Odd-Odd-v0"))
    assert checkpoint.longest_episode(checkpoint.newest_checkpoint(run)) == odd_env.LENGTH
    assert written(run)["max_steps"] == 10 * odd_env.LENGTH
    assert written(run)["cut_episodes"] == 0
    assert evaluate.evaluate(run, EvaluateConfig(episodes=2, max_steps=3)).cut_episodes == 2


def test_an_environments_own_limit_is_the_bound(tmp_path: Path) -> None:
    assert envs.make("CartPole-v1", 1).has_time_limit
    assert envs.make("MiniGrid-Empty-5x5-v0", 1, backend="gymnasium").has_time_limit
    assert envs.make("mtxl/Recall6-v0", 1, backend="gymnasium").has_time_limit
    assert not envs.make("Blackjack-v1", 1).has_time_limit
    config = make_config(tmp_path / "run", "mtxl/Recall6-v0", eval_max_steps=3)
    with pytest.raises(ValueError, match="max_steps=3 cannot be set for environments that are ten"):
        train.train(config)
    assert not (tmp_path / "run").exists()


def test_infos_that_are_not_used_are_not_read(tmp_path: Path) -> None:
    train.train(make_config(tmp_path / "run", "Odd-Info-v0"))
    assert written(tmp_path / "run")["mean_length"] == odd_env.LENGTH


def test_a_success_that_is_neither_yes_nor_no_is_an_error_with_its_value(tmp_path: Path) -> None:
    message = "env 0 of 4: step 5 returned 'no' as success of its info, which must be true or false"
    with pytest.raises(EnvError, match=message):
        train.train(make_config(tmp_path / "run", "Odd-SaysNo-v0"))


def test_episodes_that_do_not_say_are_counted_apart(tmp_path: Path) -> None:
    core = core_config(kind="gru", dim=8)
    train.train(make_config(tmp_path / "run", "Odd-Sometimes-v0", core=core))
    options = EvaluateConfig(episodes=6, num_envs=1)
    result = evaluate.evaluate(tmp_path / "run", options)
    assert (result.success_rate, result.success_unknown) == (0.5, 2)
    assert "2 of 6 episodes did not say" in result.describe_success()
    rates = [rate for _, rate in curves(tmp_path / "run")["charts/success_rate"]]
    assert all(math.isfinite(rate) for rate in rates)


def test_success_is_of_minigrids_own_reward_and_an_episode_that_terminated() -> None:
    env = envs.make("Odd-Bonus-v0", 8, seed=1)
    assert isinstance(env, GymnasiumEnv)
    env.reset()
    counts = dict.fromkeys(("goal", "lava", "time"), 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        singles: list[Any] = [each.unwrapped for each in single_envs(env)]
        before = [(single, single.grid) for single in singles]
        actions = torch.multinomial(
            torch.tensor([0.2, 0.2, 0.6]), 8, replacement=True, generator=generator
        )
        ahead = [grid.get(*single.front_pos) for single, grid in before]
        step = env.step(actions)
        for row in (step.terminated | step.truncated).nonzero().flatten().tolist():
            is_goal = bool(actions[row] == 2) and isinstance(ahead[row], Goal)
            assert step.reward[row] > 0  # the bonus
            assert bool(step.success[row]) == is_goal
            counts["goal" if is_goal else "lava" if step.terminated[row] else "time"] += 1
    assert counts["lava"] > 5
    assert counts["time"] > 0
    env.close()


def test_a_goal_that_is_reached_counts_below_a_bonus() -> None:
    env = envs.make("Odd-Bonus-v0", 1, seed=1)
    assert isinstance(env, GymnasiumEnv)
    env.reset()
    single = single_envs(env)[0].unwrapped
    assert isinstance(single, MiniGridEnv)
    single.put_obj(Goal(), *single.front_pos)
    step = env.step(torch.tensor([2]))
    assert (step.terminated.item(), step.success.item()) == (True, 1.0)
    env.close()


@pytest.mark.parametrize(("place", "saved"), [("collect", 1), ("update", 0)])
def test_a_value_error_in_the_loop_is_no_refusal(
    place: str, saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(Trainer, place)
    calls = []

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("shapes differ")
        return original(*arguments)

    monkeypatch.setattr(Trainer, place, fail)
    message = f"failed .*after {FRAMES_PER_UPDATE} frames: shapes differ"
    with pytest.raises(RunFailed, match=message):
        train.train(make_config(tmp_path / "run", "Odd-Odd-v0"))
    assert len(checkpoint.list_checkpoints(tmp_path / "run")) == saved  # an update may be torn


def test_memory_is_taken_away_where_there_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config(tmp_path / "run", "CartPole-v1", eval_episodes=30)
    train.train(config)
    interventions = written(tmp_path / "run")["interventions"]
    assert set(interventions) == {"cleared", "without-short", "without-long", "swapped-long"}
    assert {each["success_rate"] for each in interventions.values()} == {None}
    assert all(each["mean_return"] > 5 for each in interventions.values())
    # few, where training was short
    assert {each["episodes"] for each in interventions.values()} == {train.MIN_INTERVENED}
    lines = (out := capsys.readouterr().out).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("The same agent"))
    # the first row, too, is of the episodes that the others have played, and the headline of all
    assert lines[start + 1].split()[-1] == "20"
    assert (written(tmp_path / "run")["episodes"], "Evaluated:    30 new" in out) == (30, True)
    same = asdict(evaluate.evaluate(tmp_path / "run", EvaluateConfig(episodes=20)))
    assert written(tmp_path / "run")["kept"] == json.loads(json.dumps(same))
    assert [line.split("  ")[1] for line in lines[start + 1 : start + 6]] == [
        "as it was trained", *train.WORDS.values()
    ]  # fmt: skip
    tags = curves(tmp_path / "run")
    assert "eval_intervened/mean_return_cleared" in tags
    assert "charts/success_rate" not in tags


def test_the_interventions_take_a_tenth_of_the_frames_of_training() -> None:
    for frames, expected in ((10**3, 20), (10**5, 25), (10**6, 200)):
        assert train.num_intervened(200, frames, num_kinds=4, mean_length=100.0) == expected
    assert train.num_intervened(5, 10**3, num_kinds=4, mean_length=100.0) == 5


def test_a_resumed_run_draws_new_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    make = envs.make

    def recorded(*arguments: Any, **options: Any) -> Any:
        env: Any = make(*arguments, **options)
        seeds.append(set(env._seeds))
        return env

    monkeypatch.setattr(train, "_evaluate", lambda _: NO_EVALUATION)
    monkeypatch.setattr("mtxl_rl.train.envs.make", recorded)
    config = make_config(tmp_path / "run", "Odd-Odd-v0")
    train.train(config)
    for updates in (3, 4):
        total = updates * FRAMES_PER_UPDATE
        train.train(replace(config, total_frames=total, run_dir=None, resume=tmp_path / "run"))
    assert len(set.union(*seeds)) == 3 * 4


def test_json_is_json_where_an_environment_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train.train(make_config(tmp_path / "run", "Odd-Printing-v0"))
    ctypes.CDLL(None).fflush(None)
    assert "from C" in capfd.readouterr().out
    monkeypatch.setattr("sys.argv", ["", str(tmp_path / "run"), "--json", "--episodes", "2"])
    evaluate.main()
    out, err = capfd.readouterr()
    assert json.loads(out)["episodes"] == 2
    assert "from Python" in err
    assert "from C" in err


def test_generators_that_a_process_has_one_of_are_seeded(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train.train(make_config(tmp_path / name, "Odd-GlobalRandom-v0"))
        np.random.random(3)
    first, second = (curves(tmp_path / name) for name in ("one", "two"))
    assert first["charts/episodic_return"] == second["charts/episodic_return"]
    assert written(tmp_path / "one")["mean_return"] == written(tmp_path / "two")["mean_return"]


def test_one_step_in_a_minibatch_is_refused_or_learns(tmp_path: Path) -> None:
    ppo = PPOConfig(rollout_len=1, num_minibatches=4, num_epochs=1)
    with pytest.raises(ValueError, match=r"is one step in a minibatch, .* --ppo\.no-norm-adv"):
        make_config(tmp_path / "run", "Odd-Odd-v0", ppo=ppo)
    ppo = PPOConfig(rollout_len=1, num_minibatches=1, num_epochs=1, norm_adv=False)
    config = make_config(tmp_path / "run", "Odd-Odd-v0", num_envs=1, total_frames=12, ppo=ppo)
    train.train(config)
    found = curves(tmp_path / "run")
    assert [value for _, value in found["losses/skipped"]] == [0] * 12
    assert all(value > 0 for _, value in found["losses/grad_norm"])
    assert len(found["losses/explained_variance"]) == 12


@pytest.mark.parametrize(
    ("env_id", "options", "words"),
    [
        ("Odd-Odd-v0", {"stop_at_return": 0.5}, None),
        ("Odd-Solved-v0", {"stop_at_success": 0.9}, "stops at a mean return of 0.5, the reward_th"),
        ("Odd-Odd-v0", {"stop_at_success": 0.9}, "trains to total_frames=1,280; give --stop-at-re"),
        ("Odd-Odd-v0", {"stop_at_return": 9.0}, None),
    ],
)
def test_stops_at_a_return(
    env_id: str, options: Any, words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtxl_rl.run.EpisodeWindow", lambda: EpisodeWindow(size=5))
    monkeypatch.setattr("mtxl_rl.runs.schedule.WIND_DOWN_UPDATES", 4)
    monkeypatch.setattr(train, "_evaluate", lambda _: NO_EVALUATION)
    total = 20 * FRAMES_PER_UPDATE
    config = make_config(tmp_path / "run", env_id, total_frames=total, **options)
    if words is None:
        train.train(config)
    else:
        with pytest.warns(RuntimeWarning, match=words):
            train.train(config)
    learning_rates = curves(tmp_path / "run")["charts/learning_rate"]
    is_reached = env_id == "Odd-Solved-v0" or options == {"stop_at_return": 0.5}
    assert (len(learning_rates) < 20) == is_reached
    assert learning_rates[-1][1] < 0.3 * learning_rates[0][1]  # it has wound down


def test_one_target_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other; leave one out"):
        make_config(tmp_path, "Odd-Odd-v0", stop_at_return=1.0, stop_at_success=0.5)
    with pytest.raises(ValueError, match="stop_at_return=nan must be finite"):
        make_config(tmp_path, "Odd-Odd-v0", stop_at_return=math.nan)


def test_there_is_a_checkpoint_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_evaluate", lambda _: NO_EVALUATION)
    saved: list[int] = []
    save = checkpoint.save_checkpoint

    def recorded(*arguments: Any) -> Any:
        saved.append(arguments[3])
        return save(*arguments)

    monkeypatch.setattr("mtxl_rl.run.checkpoint.save_checkpoint", recorded)
    for seconds, expected in ((600.0, [3]), (0.0, [1, 2, 3])):
        saved.clear()
        monkeypatch.setattr("mtxl_rl.run.CHECKPOINT_SECONDS", seconds)
        config = make_config(
            tmp_path / f"{seconds}", "Odd-Odd-v0", total_frames=3 * FRAMES_PER_UPDATE
        )
        train.train(config)
        assert saved == [number * FRAMES_PER_UPDATE for number in expected]


def test_a_failed_check_of_an_update_is_no_refusal_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("torn")

    monkeypatch.setattr(PPO, "update", fail)
    arguments = ["--env", "Odd-Odd-v0", "--num-envs", "4", "--run-dir", str(tmp_path / "run")]
    arguments += ["--compile", "off", "--device", "cpu", "--num-threads", "1"]
    monkeypatch.setattr("sys.argv", ["", *arguments])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 1
    assert "error: failed after 0 frames: torn" in capsys.readouterr().err
