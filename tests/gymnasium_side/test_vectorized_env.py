"""Vector environments of each autoreset mode play the episodes that single ones play."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from vector_env import FAULTY_STEP

import envs
from envs.batched_env import BatchedEnv, EnvStep
from envs.vectorized.vectorized_env import VectorizedEnv
from envs.wrapped.guarded_env import EnvError
from mtxl_rl import evaluate, train

NUM_ENVS = 5
ACTIONS = torch.zeros(NUM_ENVS, dtype=torch.int64)
RESETS_IN_THE_SAME_STEP = ["SyncSame", "SyncDisabled", "SyncNext", "AsyncNext", "Pool"]


def make(name: str, num_envs: int = NUM_ENVS, **options: Any) -> BatchedEnv:
    return envs.make(f"vector_env:Vector-{name}-v0", num_envs, seed=3, **options)


def single_steps(num_steps: int, first: Tensor, bound: int | None = None) -> list[EnvStep]:
    """Return the steps of single environments that start with episodes of the same numbers."""
    # a seed k starts episode number k + 1
    seeds = [(int(number) - 1) % 4 for number in first]
    env = envs.make("vector_env:Vector-Single-v0", NUM_ENVS, vectorize="sync")
    env._seeds = seeds  # type: ignore[attr-defined]
    if bound is not None:
        env.bound_episodes(bound)
    assert torch.equal(env.reset()["number"], first)
    return [env.step(ACTIONS) for _ in range(num_steps)]


@pytest.mark.parametrize("bound", [None, 3])
@pytest.mark.parametrize("name", RESETS_IN_THE_SAME_STEP)
def test_equals_single_environments_step_by_step(name: str, bound: int | None) -> None:
    if (name, bound) == ("SyncSame", 3):
        pytest.skip("envs that reset themselves cannot be reset by us")
    env = make(name)
    assert isinstance(env, VectorizedEnv)
    if bound is not None:
        env.bound_episodes(bound)
    first = env.reset()["number"]
    num_truncated = 0
    for expected in single_steps(40, first, bound):
        step = env.step(ACTIONS)
        for field in ("reward", "terminated"):
            assert torch.equal(getattr(step, field), getattr(expected, field)), field
        rows = step.truncated & ~step.terminated
        assert torch.equal(rows, expected.truncated & ~expected.terminated)
        unknown = 0 if name == "Pool" else -1  # which says success at every step
        assert torch.equal(step.success.nan_to_num(unknown), expected.success.nan_to_num(unknown))
        for key, values in expected.observation.items():
            assert torch.equal(step.observation[key], values)
        num_truncated += int(rows.sum())
        for key, values in (expected.final_observation or {}).items() if rows.any() else ():
            assert step.final_observation is not None
            assert torch.equal(step.final_observation[key][rows], values[rows])
    assert num_truncated > 5
    env.close()


def test_a_reset_that_takes_a_step_is_the_last_step_of_the_episode() -> None:
    """Episodes are one step longer, and have the same return."""
    env = make("Plain")
    first = env.reset()
    number, time = first["number"].clone(), torch.zeros(NUM_ENVS)
    expected_return, return_ = torch.zeros(NUM_ENVS), torch.zeros(NUM_ENVS)
    num_ended = 0
    for _ in range(40):
        step = env.step(ACTIONS)
        time += 1
        return_ += step.reward
        expected_return += torch.where(time <= number + 2, time, 0.0)
        done = step.terminated | step.truncated
        assert torch.equal(done, time == number + 3)
        assert torch.equal(step.terminated, done & (number % 2 == 1))
        assert torch.equal(step.success == 1, step.terminated)
        assert torch.equal(return_, expected_return)
        if step.truncated.any():
            assert step.final_observation is not None
            last = step.final_observation["time"][step.truncated, 0]
            assert torch.equal(last, number[step.truncated] + 2.0)
        num_ended += int(done.sum())
        number = torch.where(done, (number + 1) % 4, number)
        assert torch.equal(step.observation["number"], number)
        assert torch.equal(step.observation["time"][done], torch.zeros(int(done.sum()), 1))
        for tensor in (time, return_, expected_return):
            tensor[done] = 0
    assert num_ended > 20


def test_where_envs_cannot_be_reset_a_cut_episode_goes_on_as_the_next() -> None:
    env = make("SyncSame")
    env.bound_episodes(1)
    env.reset()
    first, second = env.step(ACTIONS), env.step(ACTIONS)
    assert (first.terminated | first.truncated).all()
    assert first.final_observation is not None
    assert first.observation["time"].eq(1).all()
    assert second.observation["time"].max() == 2


def test_seeds_decide_the_episodes() -> None:
    def first(name: str, **options: Any) -> list[int]:
        env = envs.make(f"vector_env:Vector-{name}-v0", NUM_ENVS, **options)
        return env.reset()["number"].tolist()

    for name in ("SyncSame", "Plain"):
        assert first(name, seed=1) == first(name, seed=1)
        assert len({tuple(first(name, seed=seed)) for seed in range(8)}) > 1
        assert len({tuple(first(name, level_seeds=[seed])) for seed in range(8)}) > 1


def test_what_is_registered_is_known() -> None:
    env = make("Pool", env_kwargs={"max_episode_steps": 7})
    assert (env.has_time_limit, env.reward_threshold) == (True, 3.5)
    assert not make("Plain").has_time_limit
    own = envs.make("CartPole-v1", 3, backend="vector")  # Gymnasium's own
    assert (own.backend, own.has_time_limit, own.reward_threshold) == ("vector", True, 475)
    own.reset()
    steps = [own.step(torch.ones(3, dtype=torch.int64)) for _ in range(14)]
    assert all(step.reward.le(1).all() for step in steps)
    assert torch.stack([step.terminated for step in steps]).any(0).all()
    drawn = envs.make("CartPole-v1", 2, backend="vector", render_mode="rgb_array")
    drawn.reset()
    assert drawn.render(1).shape[2] == 3
    own.close()
    drawn.close()


STARTS = {
    "another number": ({"made": 4}, "made 4 environments where num_envs=5 were asked for; let it"),
    "no mode": ({"mode": None}, "has metadata['autoreset_mode']=None; set it to a gymnasium.vec"),
    "a mask": ({"info": {"action_mask": 1}}, "has action_mask in its info, where it is not read"),
    "an argument": ({"max_speed": [1]}, None),
}


@pytest.mark.parametrize("name", STARTS)
def test_what_cannot_start_says_why(name: str) -> None:
    env_kwargs, message = STARTS[name]
    if message is None:
        make("Faulty", env_kwargs=env_kwargs).close()
        return
    with pytest.raises(ValueError, match=r"^env='vector_env:Vector-Faulty-v0' ") as error:
        make("Faulty", env_kwargs=env_kwargs)
    assert message in str(error.value)


def test_what_is_no_vector_env_is_named() -> None:
    with pytest.raises(ValueError, match=r"cannot be made: ValueError: its vector_entry_point m"):
        make("NoVector")


ALL, NONE = np.ones(NUM_ENVS, bool), np.zeros(NUM_ENVS, bool)
FAULTS = {
    "raises": ("raises", "step 3 failed: RuntimeError: the simulator crashed"),
    "hangs": ("hangs", "step 3 failed: TookTooLong: it has not ended after 0.4 s"),
    "rows": ({"observation": np.zeros((2, 2), np.float32)}, "an array of shape (2, 2) and dtype "
             "float32, which is no batch of 5 of its space Box"),
    "kind": ({"observation": np.full((NUM_ENVS, 2), "a")}, "for observation 'observation' an arr"),
    "ragged": ({"observation": [[1], [2, 3]]}, "for observation 'observation' [[1], [2, 3]], wh"),
    "reward": ({"reward": np.zeros((NUM_ENVS, 1))}, "step 3 returned an array of shape (5, 1) and "
               "dtype float64 as reward, not 5 numbers"),
    "ragged reward": ({"reward": [1, [2]]}, "step 3 returned [1, [2]] as reward, not 5 numbers"),
    "final of one": ({"truncated": ALL, "info": {"final_obs": [np.zeros(2)]}},
                     "truncated env 1 without its info['final_obs'], which"),
    "flags": ({"terminated": np.full(NUM_ENVS, 2)}, "as terminated, not true or false"),
    "info": ({"info": [{}] * NUM_ENVS}, "returned the info [{}, {}, {}, {}, {}], not a dict"),
    "success": ({"terminated": ALL, "info": {"success": np.full(NUM_ENVS, 7)}},
                "as success of its info, which must be true or false"),
    "successes": ({"terminated": ALL, "info": {"success": True}},
                  "returned True as success of its info, not one for each of the 5 environments"),
    "no final": ({"truncated": ALL}, "truncated env 0 without its info['final_obs'], which"),
    "final": ({"truncated": ALL, "info": {"final_obs": np.zeros((NUM_ENVS, 3))}},
              "final_obs of env 0, returned for observation 'observation' an array of shape (1,"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong_is_named(name: str) -> None:
    fault, message = FAULTS[name]
    timeout = 0.4 if name == "hangs" else None
    env = make("Faulty", env_kwargs={"fault": fault}, timeout=timeout)
    env.reset()
    for _ in range(FAULTY_STEP - 1):
        env.step(ACTIONS)
    with pytest.raises(EnvError, match=r"^vector_env:Vector-Faulty-v0: step 3") as error:
        env.step(ACTIONS)
    env.close()
    assert message in str(error.value)


def test_infos_of_every_kind_and_what_is_not_finite_do_no_harm() -> None:
    info = {"x": {"y": set()}, 3: None, "final_info": "mine", "_is_success": 1, "list": [1, [2]]}
    reward = np.full(NUM_ENVS, np.nan)
    env = make("Faulty", env_kwargs={"fault": {"info": info, "terminated": ALL, "reward": reward}})
    env.reset()
    steps = [env.step(ACTIONS) for _ in range(FAULTY_STEP)]
    assert steps[-1].terminated.all()
    assert steps[-1].success.isnan().all()
    assert steps[-1].reward.isnan().all()


def test_tensors_are_taken_for_arrays() -> None:
    fault = {
        "observation": torch.full((NUM_ENVS, 2), 0.5),
        "reward": torch.full((NUM_ENVS,), 2.0),
        "truncated": torch.ones(NUM_ENVS, dtype=torch.bool),
        "info": {"final_obs": torch.full((NUM_ENVS, 2), 0.25)},
    }
    env = make("Faulty", env_kwargs={"fault": fault})
    env.reset()
    steps = [env.step(ACTIONS) for _ in range(FAULTY_STEP)]
    assert steps[-1].reward.eq(2).all()
    assert steps[-1].observation["observation"].eq(0.5).all()
    assert steps[-1].final_observation is not None
    assert steps[-1].final_observation["observation"].eq(0.25).all()


@pytest.mark.parametrize("name", ["Pool", "Plain"])
@pytest.mark.unchecked
def test_a_run_is_trained_evaluated_and_resumed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: Any, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        command.main()
        return capsys.readouterr().out

    options = """--num-envs 4 --eval-episodes 8 --device cpu --num-threads 1 --compile off
        --ppo.rollout-len 16 --ppo.num-minibatches 2 --core.dim 8 --core.depth 1 --core.heads 2
        --core.seq-len 8 --total-frames 128""".split()  # noqa: SIM905  (as one would type it)
    run_dir = str(tmp_path / "run")
    env_id = f"vector_env:Vector-{name}-v0"
    assert "vector backend" in run(train, "--env", env_id, *options, "--run-dir", run_dir)
    lengths = json.loads(run(evaluate, run_dir, "--json", "--episodes", "8"))["mean_length"]
    assert 2 <= lengths <= 6
    out = run(train, "--resume", run_dir, "--total-frames", "192")
    assert "these environments cannot save their state" in out


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")
class TestEnvPool:
    """The package itself, where it is installed: pip install -e ".[envpool]"."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("envpool")

    def test_equals_its_own_steps(self) -> None:
        import envpool  # pyright: ignore[reportMissingImports]

        env = envs.make("envpool:CartPole-v1", NUM_ENVS, seed=3)
        number = int(np.random.SeedSequence(3).generate_state(1)[0] >> 1)
        theirs = envpool.make("CartPole-v1", "gymnasium", num_envs=NUM_ENVS, seed=number)
        expected, _ = theirs.reset()
        assert torch.equal(env.reset()["observation"], torch.as_tensor(expected))
        num_ended = 0
        for _ in range(60):
            step = env.step(ACTIONS)
            observation, reward, terminated, truncated, _ = theirs.step(ACTIONS.numpy())
            done = terminated | truncated
            if done.any():
                rows = np.flatnonzero(done).astype(np.int32)
                observation = observation.copy()
                observation[rows], _ = theirs.reset(rows)
            assert torch.equal(step.observation["observation"], torch.as_tensor(observation))
            assert torch.equal(step.terminated, torch.as_tensor(terminated))
            assert torch.equal(step.reward, torch.as_tensor(reward))
            num_ended += int(done.sum())
        assert num_ended > NUM_ENVS
        assert (env.has_time_limit, env.reward_threshold) == (True, 475)
        env.close()

    def test_minigrids_grids_are_grids(self) -> None:
        env = envs.make("envpool:MiniGrid-MemoryS7-v0", 2)
        assert isinstance(env.observation_space["image"], spaces.MultiDiscrete)

    def test_what_cannot_be_made_is_named(self) -> None:
        with pytest.raises(ValueError, match="is not among EnvPool's; did you mean envpool:CartPo"):
            envs.make("envpool:CartPol-v1", 2)
        with pytest.raises(ValueError, match="unexpected keyword argument 'speed'; change --en"):
            envs.make("envpool:CartPole-v1", 2, env_kwargs={"speed": 2})
        with pytest.raises(ValueError, match=r"CartPole-v1' makes batches only .*use backend='a"):
            envs.make("envpool:CartPole-v1", 2, backend="gymnasium")
