"""What every tensor environment does: seeds, states, autoreset, pictures; and on a GPU."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stock_pair import stock
from tensor_grids import (
    DOOR_KEY,
    FETCH,
    KINDS,
    MEMORY,
    NUM_ENVS,
    flat,
    random_actions,
    record,
)
from torch import Tensor

import envs
from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv
from envs.levels.level_pool import RENEW_EVERY
from envs.wrapped.single_env import SeededEpisodes


@pytest.mark.parametrize(("kind", "env_id"), KINDS)
def test_the_seed_decides_everything(kind: type, env_id: str) -> None:
    def run(seed: int) -> Tensor:
        env = kind(env_id, NUM_ENVS, seed=seed)
        env.reset()
        return record(env, random_actions(200))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize(("kind", "env_id"), KINDS)
def test_a_saved_state_goes_on_the_same_way_anywhere(kind: type, env_id: str) -> None:
    """Also in an environment of another seed, and across renewals of the levels."""
    env = kind(env_id, NUM_ENVS, seed=1)
    env.reset()
    record(env, random_actions(RENEW_EVERY + 50, seed=2))
    state = env.state_dict()
    actions = random_actions(RENEW_EVERY, seed=3)
    after = record(env, actions)
    other = kind(env_id, NUM_ENVS, seed=99)
    other.load_state_dict(state)
    assert torch.equal(record(other, actions), after)
    env.load_state_dict(state)
    assert torch.equal(record(env, actions), after)
    env.close()
    other.close()


@pytest.mark.parametrize(("kind", "env_id"), KINDS)
def test_resets_without_looking_equal_on_host(kind: type, env_id: str) -> None:
    """The way of a GPU, with no synchronisation, and that of a CPU are one function."""
    pair = [kind(env_id, NUM_ENVS, seed=1) for _ in range(2)]
    pair[1]._on_host = False
    for env in pair:
        env.reset()
    num_truncated = 0
    for env in pair:
        env._buffers["max_steps"].fill_(9)
    for time, actions in enumerate(random_actions(200)):
        if time % 40 == 0:  # and in between the resets bring the limit of the task back
            for env in pair:
                env._buffers["max_steps"].fill_(9)
        steps = [env.step(actions) for env in pair]
        assert torch.equal(flat(steps[0]), flat(steps[1]))
        rows = steps[0].truncated
        num_truncated += int(rows.sum())
        if rows.any():
            finals = [step.final_observation for step in steps]
            assert finals[0] is not None
            assert finals[1] is not None
            for name in finals[0]:
                assert torch.equal(finals[0][name][rows], finals[1][name][rows])
    assert num_truncated > 10
    assert (pair[0]._buffers["max_steps"] > 9).any()


@pytest.mark.parametrize("env_id", [MEMORY, DOOR_KEY, FETCH, "MiniGrid-RedBlueDoors-6x6-v0"])
def test_autoreset_equals_sync_vector_env(env_id: str) -> None:
    """Step by step, over the same levels: every field, the infos and the final observations."""
    seeds = list(range(100, 170))
    options: dict[str, Any] = {"max_steps": 25}
    env = gymnasium.make_vec(f"mtxl/{env_id}", num_envs=NUM_ENVS, level_seeds=seeds, **options)

    def make_one(index: int) -> gymnasium.Env:
        return SeededEpisodes(gymnasium.make(env_id, **options), seeds, index, NUM_ENVS)

    expected = SyncVectorEnv(
        [partial(make_one, index) for index in range(NUM_ENVS)],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert env.metadata["autoreset_mode"] == expected.metadata["autoreset_mode"]
    assert env.observation_space == expected.observation_space
    assert env.action_space == expected.action_space
    counts: Counter[str] = Counter()
    assert_same(env.reset()[0], expected.reset()[0])
    for actions in np.random.default_rng(0).choice([0, 1, 2, 2, 3, 5], (300, NUM_ENVS)):
        step, reference = env.step(actions), expected.step(actions)
        assert env.observation_space.contains(step[0])
        assert_same(step[0], reference[0])
        assert (step[1] == reference[1].astype(np.float32)).all()
        assert (step[2] == reference[2]).all()
        assert (step[3] == reference[3]).all()
        info, expected_info = step[4], reference[4]
        assert info.keys() == expected_info.keys()
        for row in np.flatnonzero(step[2] | step[3]):
            assert_same(info["final_obs"][row], expected_info["final_obs"][row])
            assert info["_final_obs"][row]
            counts["episodes"] += 1
    assert counts["episodes"] > 60
    env.close()
    expected.close()


def assert_same(observation: dict[str, Any], expected: dict[str, Any]) -> None:
    assert observation.keys() == expected.keys()
    assert (observation["image"] == expected["image"]).all()
    assert (observation["direction"] == expected["direction"]).all()
    assert observation["mission"] == expected["mission"]


def test_vector_env_begins_again_with_a_seed_and_goes_on_without_one() -> None:
    env = gymnasium.make_vec("mtxl/MiniGrid-MemoryS17Random-v0", num_envs=64)
    first, _ = env.reset(seed=5)
    second, _ = env.reset()
    again, _ = env.reset(seed=5)
    assert (first["image"] == again["image"]).all()
    assert (first["image"] != second["image"]).any()
    assert isinstance(env, gymnasium.vector.VectorEnv)
    with pytest.raises(ValueError, match="agent_view_size=5 must be 7 for tensors"):
        gymnasium.make_vec("mtxl/MiniGrid-Empty-8x8-v0", agent_view_size=5)
    with pytest.raises(ValueError, match="are not supported; leave them out"):
        env.reset(options={"reset_mask": None})


def test_vector_env_takes_options_and_gymnasiums_wrappers() -> None:
    env = gymnasium.make_vec(
        "mtxl/MiniGrid-MemoryS13-v0", num_envs=3, size=65, render_mode="rgb_array"
    )
    recorded = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    recorded.reset(seed=1)
    for _ in range(5):
        recorded.step(recorded.action_space.sample())
    pictures: Any = env.render()
    assert len(pictures) == 3
    assert pictures[0].shape == (65 * 32, 65 * 32, 3)
    env.close()


@pytest.mark.parametrize(
    ("kind", "env_id"), [(TableEnv, MEMORY), (GridEnv, "MiniGrid-DoorKey-8x8-v0")]
)
def test_renders_what_minigrid_renders(kind: type, env_id: str) -> None:
    original = stock(env_id, render_mode="rgb_array")
    original.reset(seed=1)
    for action in (1, 2, 0):
        original.step(action)
    env = kind(env_id, 1)
    env.load([original])
    assert (env.render(0) == original.render()).all()
    with pytest.raises(ValueError, match="index=1 must be from 0 to 0"):
        env.render(1)


def test_observations_are_not_written_over_by_later_steps() -> None:
    for kind, env_id in KINDS:
        env = kind(env_id, NUM_ENVS)
        seen = [env.reset()]
        for actions in random_actions(40):
            step = env.step(actions)
            seen.append(step.observation)
            if step.final_observation is not None:
                seen.append(step.final_observation)
        copies = [{name: value.clone() for name, value in each.items()} for each in seen[:20]]
        record(env, random_actions(40, seed=5))
        for before, copy in zip(seen, copies, strict=False):
            assert all(torch.equal(before[name], copy[name]) for name in copy)


@pytest.mark.parametrize(("kind", "env_id"), [(TableEnv, MEMORY), (GridEnv, MEMORY)])
def test_a_loaded_time_limit_is_that_of_one_episode(kind: type, env_id: str) -> None:
    original = stock(env_id)
    original.reset(seed=0)
    original.max_steps = 3
    env = kind(env_id, 1)
    env.load([original])
    ends = [bool(env.step(torch.tensor([0])).truncated) for _ in range(12)]
    assert ends == [time == 2 for time in range(12)]


@pytest.mark.parametrize(
    ("kind", "env_id", "level_seeds", "stored"),
    [
        (TableEnv, MEMORY, None, 69116115277648137),
        (TableEnv, MEMORY, [3, 1, 4], 6199223990721428),
        (GridEnv, DOOR_KEY, None, 33797995211818036),
    ],
)
def test_states_of_old_checkpoints_still_belong(
    kind: type, env_id: str, level_seeds: Any, stored: int
) -> None:
    """By the number that every stored state carries."""
    env = kind(env_id, 2, level_seeds=level_seeds)
    env.reset()
    assert env.state_dict()["kind"] == stored


def test_a_new_seed_leaves_nothing_of_the_old_one() -> None:
    original = stock("MiniGrid-MemoryS17Random-v0")
    original.reset(seed=0)

    def next_levels(is_used: bool) -> Tensor:
        env = TableEnv("MiniGrid-MemoryS17Random-v0", 8, seed=1)
        if is_used:
            env.reset()
            record(env, random_actions(3, num_envs=8))
        env.seed(5)
        env.load([original] * 8)
        env._buffers["max_steps"].fill_(1)
        return env.step(torch.zeros(8, dtype=torch.int64)).observation["image"]

    assert torch.equal(next_levels(is_used=False), next_levels(is_used=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_actions_of_any_whole_type(dtype: torch.dtype) -> None:
    env, other = (GridEnv(DOOR_KEY, NUM_ENVS, seed=1) for _ in range(2))
    for each in (env, other):
        each.reset()
    actions = random_actions(20)
    assert torch.equal(record(env, actions), record(other, actions.to(dtype)))


def test_both_backends_go_on_at_a_second_reset() -> None:
    for backend in ("tensor", "gymnasium"):
        env = envs.make("MiniGrid-MemoryS17Random-v0", 16, backend=backend)
        assert (env.reset()["image"] != env.reset()["image"]).any()


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "env_id"), KINDS)
def test_cuda_equals_cpu_and_synchronises_nothing(
    kind: type, env_id: str, cuda: torch.device
) -> None:
    pair = [kind(env_id, NUM_ENVS, device=device, seed=1) for device in ("cpu", cuda)]
    for env in pair:
        env.reset()
    for actions in random_actions(RENEW_EVERY + 50):
        expected = flat(pair[0].step(actions))
        on_device = actions.to(cuda)
        pair[1].host_step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step = pair[1].device_step(on_device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(flat(step).cpu(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "env_id"), KINDS)
def test_a_step_is_captured_in_a_cuda_graph(kind: type, env_id: str, cuda: torch.device) -> None:
    pair = [kind(env_id, NUM_ENVS, device=cuda, seed=1) for _ in range(2)]
    for env in pair:
        env.reset()
    actions = torch.zeros(NUM_ENVS, dtype=torch.int64, device=cuda)
    warm_up = pair[0].state_dict()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            pair[0].device_step(actions)
    torch.cuda.current_stream().wait_stream(stream)
    pair[0].load_state_dict(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step = pair[0].device_step(actions)
    for chosen in random_actions(50).to(cuda):
        actions.copy_(chosen)
        graph.replay()
        assert torch.equal(flat(step), flat(pair[1].device_step(chosen)))
