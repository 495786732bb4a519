"""A trained policy in one's own code."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from odd_env import OddEnv
from programs import ROOT
from small_run import small_run
from spaces_env import SpacesEnv
from torch.testing import assert_close

import envs
import mtxl_rl
from agents.learning.rollout import act, start
from mtxl_rl import train
from mtxl_rl.policies.policy import RECORDS, Policy
from mtxl_rl.runs.run_directory import load_config, write_config

MEMORY = "MiniGrid-MemoryS7-v0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("runs") / "memory", MEMORY)


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """One that sees a choice: Recall's."""
    run = small_run(tmp_path_factory.mktemp("runs") / "choices", "mtxl/Recall6-v0")
    return mtxl_rl.load(run, device="cpu")


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """One that sees four numbers."""
    run = small_run(tmp_path_factory.mktemp("runs") / "numbers", "CartPole-v1", "gru")
    return mtxl_rl.load(run, device="cpu")


class BytesEnv(OddEnv):
    observation_space = gymnasium.spaces.Box(0, 255, (9, 9, 3), np.uint8)


def test_a_batch_of_tensors_acts_as_evaluation_does(run: Path) -> None:
    policy = mtxl_rl.load(run, device="cpu")
    env = envs.make(MEMORY, num_envs=3, seed=1)
    carry = start(policy.agent, env)
    player = policy.agent.player(carry.state)
    state, num_resets = None, 0
    for step in range(300):
        inputs = carry.inputs
        carry, record = act(player, env.step, carry, is_greedy=True)
        # the observation of the agent is that of the environment: there are no pictures
        action, state = policy.act(
            inputs.observation, state, inputs.prev_reward, inputs.reset, greedy=True
        )
        assert_close(action, record["action"])
        num_resets += int(inputs.reset.sum()) if step else 0
        seen = player.state.segment_valid[:, None, :, None]  # the rest means nothing
        assert_close(state.core.segment * seen, player.state.segment * seen, atol=1e-5, rtol=0)
    assert num_resets > 0


def test_one_env_acts_as_a_batch_does(run: Path) -> None:
    policy = mtxl_rl.load(str(run), device="cpu")
    env = gymnasium.make(MEMORY)
    observation, _ = env.reset(seed=3)
    state, states, reward = None, None, 0.0
    for _ in range(12):
        action, state = policy.act(observation, state, reward, greedy=True)
        arrays = {name: observation[name] for name in ("image", "direction")}
        batch = {name: np.stack([value, value]) for name, value in arrays.items()}
        actions, states = policy.act(batch, states, np.full(2, reward), greedy=True)
        assert actions.tolist() == [action, action]
        observation, reward, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
            state, states, reward = None, None, 0.0
    env.close()


def test_act_leaves_the_state_that_it_is_given(run: Path) -> None:
    policy = mtxl_rl.load(run, device="cpu")
    observation = {"image": np.zeros((7, 7, 3), np.uint8), "direction": 1}
    _, before = policy.act(observation)
    kept = before.core.clone()
    torch.manual_seed(1)
    first, _ = policy.act(observation, before, 0.0)
    torch.manual_seed(1)
    second, _ = policy.act(observation, before, 0.0)
    assert first == second
    assert_close(before.core.segment, kept.segment)


@pytest.mark.parametrize(
    ("env_id", "kind"),
    [("CartPole-v1", "gru"), ("Pendulum-v1", "mtxl"), ("mtxl/Recall6-v0", "mtxl")],
)
def test_actions_are_the_environments(tmp_path: Path, env_id: str, kind: str) -> None:
    policy = mtxl_rl.load(small_run(tmp_path / "run", env_id, kind), device="cpu")  # type: ignore[arg-type]
    env = gymnasium.make(env_id)
    observation, _ = env.reset(seed=1)
    state, reward = None, 0.0
    for _ in range(7):
        action, state = policy.act(observation, state, reward)
        assert env.action_space.contains(action)
        observation, reward, *_ = env.step(action)
    env.close()


@pytest.mark.parametrize("env_id", ["vector_env:Vector-SyncNext-v0", "own_tensors:own/Echo-v0"])
def test_a_policy_of_an_environment_that_makes_batches_only(tmp_path: Path, env_id: str) -> None:
    policy = mtxl_rl.load(small_run(tmp_path / "run", env_id, "gru"), device="cpu")
    batch = [policy.observation_space.sample() for _ in range(3)]
    names = policy.observation_space.spaces  # type: ignore[attr-defined]
    arrays = {name: np.stack([each[name] for each in batch]) for name in names}
    state = states = None
    for _ in range(3):
        actions, states = policy.act(arrays, states, np.zeros(3), greedy=True)
        action, state = policy.act(batch[0], state, 0.0, greedy=True)
        assert policy.action_space.contains(action)
        assert action == actions[0]
    env = envs.make(env_id, 2)
    actions, _ = policy.act(env.reset())  # tensors
    env.step(actions)
    env.close()


def test_save_writes_what_load_reads(run: Path, tmp_path: Path) -> None:
    policy = mtxl_rl.load(run, device="cpu")
    policy.save(tmp_path / "copy")
    copy = mtxl_rl.load(tmp_path / "copy", device="cpu")
    for name, tensor in policy.agent.state_dict().items():
        assert_close(copy.agent.state_dict()[name], tensor, rtol=0, atol=0)
    for taken in (tmp_path / "copy", ".", ""):
        with pytest.raises(ValueError, match=r"^folder=.* exists and is kept as it is; choose"):
            policy.save(taken)


def test_what_only_acts_is_not_resumed(run: Path, tmp_path: Path) -> None:
    mtxl_rl.load(run, device="cpu").save(tmp_path / "copy")
    options = ["--resume", str(tmp_path / "copy"), "--num-envs", "2", "--allow-changes"]
    with pytest.raises(ValueError, match=r"without what training needs; start .* --init-from"):
        train.train(train.read_options(options))


@pytest.mark.unchecked
def test_what_is_no_path_is_refused(run: Path) -> None:
    anything: Any = None
    with pytest.raises(ValueError, match=r"^folder=None is no path; pass a str or a Path"):
        mtxl_rl.load(run, device="cpu").save(anything)
    with pytest.raises(ValueError, match=r"^run=None is no path"):
        mtxl_rl.load(anything)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"frames": 0, "sessions": [{}]}', '{"frames": 0, "sessions": null}']
)
def test_a_policy_is_loaded_without_a_damaged_record(tmp_path: Path, name: str, text: str) -> None:
    run = small_run(tmp_path / "run", "CartPole-v1", "gru")
    (run / name).write_text(text)
    with pytest.warns(RuntimeWarning, match=f"{name} is not what .* loaded without it"):
        policy = mtxl_rl.load(run, device=torch.device("cpu"))
    assert policy.records == {}


def test_a_reward_that_is_left_out_is_said_once(run: Path) -> None:
    policy = mtxl_rl.load(run, device="cpu")
    observation = {"image": np.zeros((7, 7, 3), np.uint8), "direction": 1}
    _, state = policy.act(observation)
    with pytest.warns(RuntimeWarning, match="sees 0"):
        _, state = policy.act(observation, state)
    policy.act(observation, state)


def test_warnings_point_at_the_line_that_calls(tmp_path: Path) -> None:
    """In a process of its own: the tests' checks of types are between."""
    run = small_run(tmp_path / "run", "mtxl/Recall6-v0")
    (run / "made_by.json").touch()
    program = tmp_path / "program.py"
    program.write_text(
        f"import mtxl_rl\npolicy = mtxl_rl.load({str(run)!r})\n_, state = policy.act(0)\n"
        "policy.act(0, state)\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=True,
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    said = re.findall(r"^(.*): RuntimeWarning", done.stderr, re.MULTILINE)
    assert said == [f"{program}:2", f"{program}:4"]


@pytest.mark.filterwarnings("ignore:this agent sees the reward")
def test_what_does_not_fit_is_one_line(run: Path) -> None:
    policy = mtxl_rl.load(run, device="cpu")
    image = np.zeros((7, 7, 3), np.uint8)
    observation = {"image": image, "direction": 1}
    _, state = policy.act(observation)
    wrong = [
        (({"image": image},), "does not fit"),
        (({"image": image[:5], "direction": 1},), "does not fit"),
        (({"image": image + 99, "direction": 1},), "category 99"),
        (({"image": torch.zeros(7, 7, 3)},), "has tensors"),
        (({"image": torch.rand(7, 7, 3), "direction": torch.tensor(1)},), "float32, not of whole"),
        (({"image": image[None].repeat(2, 0), "direction": np.ones(2, int)}, state), "of 1 envs"),
        ((observation, state, np.zeros(3)), "reward is"),
        ((observation, state, "1"), "reward is '1'; pass numbers"),
        ((observation, state, None, 0.5), "reset is 0.5; pass True or False"),
        ((observation, state, 0.0, np.nan), "reset is nan; pass True or False"),
        (({"image": image, "direction": 1.0},), "'direction' is 1.0, which is not Discrete"),
        ((observation, None, "abc"), "reward is 'abc'; pass numbers"),
        ((observation, None, None, [True, False]), r"reset is \(2,\)"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message) as error:
            policy.act(*arguments)
        assert "\n" not in str(error.value)
    unchecked: Any = inspect.unwrap(type(policy).act)  # by the tests' own types
    with pytest.raises(ValueError, match="the state is of type float; pass the one that act"):
        unchecked(policy, observation, 0.0)
    with pytest.raises(ValueError, match="not a run directory"):
        mtxl_rl.load("no/such/run")


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (torch.tensor([7, 1]), "category 7"),
        (torch.tensor(-1), "category -1"),
        (torch.tensor(1.0), "float32, not of whole"),
        (torch.tensor([True]), "bool, not of whole"),
        (torch.tensor([[0, 1], [2, 3]]), r"\(2, 2\) as a batch, and must be \(2,\)"),
        (torch.zeros(0, dtype=torch.long), r"and must be \('B',\)"),
        (np.array([[0, 1], [2, 3]]), r"shape \(2, 2\) and dtype int64, which is not 2 of Disc"),
        (np.zeros((0,), int), r"and must be \('B',\)"),
        ("2", "is '2', which is not Discrete"),
        (np.array("2"), "which is not Discrete"),
        (None, "is None, which is not Discrete"),
        (9, "category 9"),
    ],
)
def test_what_is_no_choice_is_refused(choices: Policy, observation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"the observation does not fit .*{message}"):
        choices.act({"observation": observation} if torch.is_tensor(observation) else observation)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_of_any_dtype_are_choices(choices: Policy, dtype: torch.dtype) -> None:
    action, _ = choices.act({"observation": torch.tensor([1, 2], dtype=dtype)}, greedy=True)
    expected, _ = choices.act(np.array([1, 2]), greedy=True)
    assert action.tolist() == expected.tolist()


@pytest.mark.parametrize("num_envs", [None, 2])
@pytest.mark.parametrize("reward", [np.nan, np.float32("inf"), -1e300, torch.tensor(torch.inf)])
def test_one_reward_that_is_not_finite_is_refused(
    numbers: Policy, num_envs: int | None, reward: Any
) -> None:
    observation = np.zeros((4,) if num_envs is None else (num_envs, 4))
    _, state = numbers.act(observation)
    with pytest.raises(ValueError, match=r"^reward is (nan|-?inf) in env 0, and must be finite"):
        numbers.act(observation, state, reward)


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
    ],
    ids=lambda values: f"{values.dtype}-{values.layout}-{values.device}",
)
def test_what_are_no_real_numbers_is_refused(numbers: Policy, values: torch.Tensor) -> None:
    observation = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"reward is .*, and must be a dense tensor of real"):
        numbers.act({"observation": observation}, None, values)
    wrong = observation.to(values.device, values.dtype)
    if values.is_sparse:
        wrong = wrong.to_sparse()
    with pytest.raises(ValueError, match=r"'observation' is .*, and must be a dense tensor"):
        numbers.act({"observation": wrong})


@pytest.mark.parametrize("as_form", [np.array, torch.tensor], ids=lambda form: form.__name__)
@pytest.mark.parametrize(
    ("action", "allowed", "forbidden", "part"),
    [
        (Discrete(3, start=4), [0, 7, -1], [0, 0, -1], ""),
        (MultiDiscrete([2, 1]), [0, 1, 1], [1, 1, 0], " for part 1"),
    ],
    ids=str,
)
def test_a_mask_that_allows_nothing_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_form: Any,
    action: Space,
    allowed: list[int],
    forbidden: list[int],
    part: str,
) -> None:
    parts = Dict({"number": Box(-1, 1, (2,)), "action_mask": Box(1, 1, (3,), np.int8)})
    spec = EnvSpec("Spaces-v0", lambda **_: SpacesEnv(parts, action))
    monkeypatch.setitem(gymnasium.registry, "Spaces-v0", spec)
    policy = mtxl_rl.load(small_run(tmp_path / "run", "Spaces-v0", "gru"), device="cpu")

    def look(mask: Any) -> dict[str, Any]:
        numbers = np.zeros((*np.shape(mask)[:-1], 2), np.float32)
        return {"number": as_form(numbers), "action_mask": as_form(mask)}

    policy.act(look(allowed))
    policy.act(look([allowed, forbidden]))  # the second episode has ended
    with pytest.raises(ValueError, match=f"action_mask allows no action{part}; allow one"):
        policy.act(look(forbidden))


def test_numbers_that_are_too_large_are_one_line(numbers: Policy) -> None:
    with pytest.raises(ValueError, match=r"^observation 'observation' is inf in env 0, and must"):
        numbers.act(np.full(4, 1e300))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "as_form", [np.float64, np.float32, torch.tensor], ids=lambda form: form.__name__
)
def test_what_is_not_finite_is_refused(numbers: Policy, value: float, as_form: Any) -> None:
    zeros = torch.zeros if as_form is torch.tensor else np.zeros
    batch = zeros((2, 4))
    observation: Any = {"observation": batch} if as_form is torch.tensor else batch
    _, state = numbers.act(observation)
    with pytest.raises(ValueError, match=r"^reward is (nan|-?inf) in env 1, and must be finite"):
        numbers.act(observation, state, as_form([0.0, value]))
    batch[1, 2] = value
    with pytest.raises(ValueError, match=r"^observation 'observation' is (nan|-?inf) in env 1,"):
        numbers.act(observation, state, zeros(2))


def test_bytes_are_not_wrapped(tmp_path: Path) -> None:
    gymnasium.register("Bytes-v0", lambda **_: BytesEnv())
    try:
        policy = mtxl_rl.load(small_run(tmp_path / "run", "Bytes-v0", "gru"), device="cpu")
    finally:
        del gymnasium.registry["Bytes-v0"]
    picture = np.zeros((9, 9, 3), np.int64)
    policy.act(picture)
    policy.act({"observation": torch.from_numpy(picture)})
    for wrong in (300, -1):
        for observation in (picture + wrong, {"observation": torch.from_numpy(picture + wrong)}):
            with pytest.raises(ValueError, match="does not fit"):
                policy.act(observation)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("lstm", {}, "kind is lstm in the state and gru here; pass"),
        ("mtxl", {}, "kind is mtxl in the state and gru here; pass"),
        ("mingru", {}, "kind is mingru in the state and gru here; pass"),
        ("gru", {"dim": 8}, "dim is 8 in the state and 12 here; pass"),
    ],
)
def test_the_state_of_another_core_is_refused(
    numbers: Policy, tmp_path: Path, kind: Any, options: dict[str, Any], message: str
) -> None:
    other = mtxl_rl.load(small_run(tmp_path / "run", "CartPole-v1", kind, **options), device="cpu")
    observation = np.zeros(4)
    _, state = other.act(observation)
    with pytest.raises(ValueError, match=f"the state is of another policy: {message}"):
        numbers.act(observation, state, 0.0)
    other.act(observation, state, 0.0)


@pytest.mark.parametrize(
    ("env", "seed", "message"),
    [
        ("Acrobot-v1", 1, "env is Acrobot-v1 in the state and CartPole-v1 here; observation space"),
        ("Spaces-v0", 1, "env is Spaces-v0 in the state and CartPole-v1 here; pass"),
        ("CartPole-v1", 2, "seed is 2 in the state and 1 here; pass"),
    ],
)
def test_the_state_of_another_policy_is_refused(
    numbers: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    env: str,
    seed: int,
    message: str,
) -> None:
    """Of one core, so that the state would fit."""
    spaces = numbers.observation_space, numbers.action_space
    spec = EnvSpec("Spaces-v0", lambda **_: SpacesEnv(*spaces))
    monkeypatch.setitem(gymnasium.registry, "Spaces-v0", spec)
    run = small_run(tmp_path / "run", env, "gru")
    write_config(run, replace(load_config(run), seed=seed))
    other = mtxl_rl.load(run, device="cpu")
    _, state = other.act(np.zeros(other.observation_space.shape or ()))
    with pytest.raises(ValueError, match=f"the state is of another policy: {message}"):
        numbers.act(np.zeros(4), state, 0.0)


def test_the_state_of_a_copy_is_taken(numbers: Policy, tmp_path: Path) -> None:
    numbers.save(tmp_path / "copy")
    _, state = numbers.act(np.zeros(4))
    mtxl_rl.load(tmp_path / "copy", device="cpu").act(np.zeros(4), state, 0.0)


def test_a_home_and_a_checkpoint_are_places(
    numbers: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    numbers.save("~/run")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    for place in ("~/run", Path("~/run"), checkpoint, "~/run/checkpoints/frames_000000000000"):
        assert mtxl_rl.load(place, device="cpu").config == numbers.config
    mtxl_rl.load("~/run", "cpu", f"~/run/checkpoints/{checkpoint.name}")
    core = mtxl_rl.MemoryTransformerXL(dim=8, depth=1, seq_len=2, mem_len=2, lmem_len=2)
    core.save_pretrained("~/core")
    mtxl_rl.MemoryTransformerXL.from_pretrained("~/core")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["core", "run"]


def test_the_page_s_example_acts(run: Path) -> None:
    page = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    program = program.replace("runs/RUN", str(run)).replace("MiniGrid-MemoryS11-v0", MEMORY)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["done"]
    names["env"].close()
