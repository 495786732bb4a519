"""Recall as tensors against its Gymnasium form, at every step; its seeds and states."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from recall_forms import MIXED, NUM_ENVS, original, tensors
from torch import Tensor

import envs
from envs.batched_env import EnvStep
from envs.memory_tasks.recall import RecallEnv
from envs.memory_tasks.recall_tensors import RecallTensorEnv
from envs.registry import check_id
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from envs.wrapped.single_env import SeededEpisodes

IDS = [
    "mtxl/Recall0-v0",
    "mtxl/Recall6-v0",
    "mtxl/Recall3to20-v0",
    "mtxl/Recall0x2-v0",
    "mtxl/Recall2to11x3-v0",
    "mtxl/Recall5x63-v0",
    "mtxl/Recall0to3x4gap5-v0",
    "mtxl/Recall7x2gap1-v0",
    "mtxl/Recall4x1shows3-v0",
    "mtxl/Recall2to5x3gap4shows4-v0",
    "mtxl/Recall1x63gap2shows2-v0",
]
KINDS = ["mtxl/Recall6-v0", "mtxl/Recall1to8x3gap2-v0", MIXED]


def random_actions(num_steps: int, seed: int = 0, num_envs: int = NUM_ENVS) -> Tensor:
    return torch.randint(2, (num_steps, num_envs), generator=torch.Generator().manual_seed(seed))


def flat(step: EnvStep) -> Tensor:
    """Return everything that a step shows, but for the final observation, as one tensor."""
    assert step.cue is not None
    fields = [step.observation["observation"], step.reward, step.terminated, step.truncated]
    return torch.stack([field.double() for field in [*fields, step.success, step.cue]])


def record(env: RecallTensorEnv, actions: Tensor) -> Tensor:
    return torch.stack([flat(env.step(action)) for action in actions])


@pytest.mark.parametrize("env_id", IDS)
def test_whole_episodes_equal_the_gymnasium_form(env_id: str) -> None:
    """From whatever step they are loaded at, half of the players right and half of them random."""
    rng = np.random.default_rng(0)
    num_envs = 12
    singles = [original(env_id) for _ in range(num_envs)]
    env = tensors(env_id, num_envs)
    env.keeps_final = True
    ends: Counter[bool] = Counter()

    def action_of(single: RecallEnv, index: int) -> int:
        item = single.time - single.questions_at
        is_player = index % 2 == 0 and item >= 0
        return single.answers[item] if is_player else int(rng.integers(2))

    for round_ in range(4):
        seen = []
        for index, single in enumerate(singles):
            seen.append(int(single.reset(seed=100 * round_ + index)[0]))
            length = single.questions_at + single.num_items
            for _ in range(int(rng.integers(length)) if round_ else 0):
                seen[index] = int(single.step(action_of(single, index))[0])
        assert env.load(singles)["observation"].tolist() == seen
        is_playing = [True] * num_envs
        while any(is_playing):
            actions = [action_of(s, i) if is_playing[i] else 0 for i, s in enumerate(singles)]
            cues = [single.cue_in_view for single in singles]
            step = env.step(torch.tensor(actions))
            assert step.cue is not None
            for index in np.flatnonzero(is_playing):
                single = singles[index]
                assert step.cue[index] == cues[index]
                symbol, reward, terminated, truncated, info = single.step(actions[index])
                assert step.reward[index] == np.float32(reward)
                assert bool(step.terminated[index]) == terminated
                assert bool(step.truncated[index]) == truncated
                assert bool(step.success[index]) == info.get("is_success", False)
                seen_now = step.final_observation if terminated else step.observation
                assert seen_now is not None
                assert seen_now["observation"][index] == symbol
                is_playing[index] = not terminated
                if terminated:
                    ends[info["is_success"]] += 1
    assert ends[True] >= 2 * num_envs
    assert ends[False] > 0


@pytest.mark.parametrize("env_id", IDS)
def test_the_same_episodes_on_both_backends(env_id: str) -> None:
    """What evaluation plays: the episodes of given seeds, in their order, round and round."""
    check_id(env_id)
    both = [
        envs.make(env_id, 2, backend=backend, level_seeds=[3, 1, 4, 1, 5])
        for backend in ("tensor", "gymnasium")
    ]
    assert isinstance(both[0], RecallTensorEnv)
    assert isinstance(both[1], GymnasiumEnv)
    assert both[0].observation_space == both[1].observation_space
    assert both[0].action_space == both[1].action_space
    first = [env.reset()["observation"] for env in both]
    assert torch.equal(first[0], first[1])
    assert first[0].dtype == first[1].dtype
    num_ended = 0
    while num_ended < 2 * 6:
        actions = random_actions(1, seed=num_ended, num_envs=2)[0]
        steps = [env.step(actions) for env in both]
        assert torch.equal(flat(steps[0]), flat(steps[1]))
        num_ended += int(steps[0].terminated.sum())


def test_autoreset_equals_sync_vector_env() -> None:
    """The infos and the final observations too."""
    seeds = list(range(100, 170))
    check_id(MIXED)
    env = gymnasium.make_vec(MIXED, num_envs=NUM_ENVS, level_seeds=seeds)
    expected = SyncVectorEnv(
        [
            partial(lambda i: SeededEpisodes(gymnasium.make(MIXED), seeds, i, NUM_ENVS), index)
            for index in range(NUM_ENVS)
        ],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert env.metadata["autoreset_mode"] == expected.metadata["autoreset_mode"]
    assert env.observation_space == expected.observation_space
    assert env.action_space == expected.action_space
    assert (env.reset()[0] == expected.reset()[0]).all()
    num_episodes = 0
    for actions in np.random.default_rng(0).integers(2, size=(300, NUM_ENVS)):
        step, reference = env.step(actions), expected.step(actions)
        assert env.observation_space.contains(step[0])
        assert (step[0] == reference[0]).all()
        assert (step[1] == reference[1].astype(np.float32)).all()
        assert (step[2] == reference[2]).all()
        assert (step[3] == reference[3]).all()
        info, expected_info = step[4], reference[4]
        assert info.keys() == expected_info.keys()
        rows = np.flatnonzero(step[2])
        num_episodes += len(rows)
        if len(rows):
            assert (info["_final_obs"] == expected_info["_final_obs"]).all()
            assert info["final_info"].keys() == expected_info["final_info"].keys()
            for name, values in expected_info["final_info"].items():
                assert (info["final_info"][name] == values).all()
            for row in rows:
                assert info["final_obs"][row] == expected_info["final_obs"][row]
    assert num_episodes > 60


def test_the_seed_decides_everything() -> None:
    def run(seed: int) -> Tensor:
        env = tensors(MIXED, seed=seed)
        env.reset()
        return record(env, random_actions(100))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("env_id", KINDS)
def test_a_saved_state_goes_on_the_same_way_anywhere(env_id: str) -> None:
    env, other = tensors(env_id, seed=1), tensors(env_id, seed=99)
    env.reset()
    record(env, random_actions(50, seed=2))
    state = env.state_dict()
    actions = random_actions(100, seed=3)
    after = record(env, actions)
    other.load_state_dict(state)
    assert torch.equal(record(other, actions), after)


@pytest.mark.parametrize("env_id", KINDS)
@pytest.mark.parametrize("level_seeds", [None, [2, 7, 1]])
def test_resets_without_looking_equal_on_host(env_id: str, level_seeds: Any) -> None:
    """The way of a GPU, with no synchronisation, and that of a CPU are one function."""
    pair = [tensors(env_id, seed=1, level_seeds=level_seeds) for _ in range(2)]
    pair[1]._on_host = False
    for env in pair:
        env.keeps_final = True
        env.reset()
    num_ended = 0
    for actions in random_actions(200):
        steps = [env.step(actions) for env in pair]
        assert torch.equal(flat(steps[0]), flat(steps[1]))
        rows = steps[0].terminated
        num_ended += int(rows.sum())
        if rows.any():
            finals = [step.final_observation for step in steps]
            assert finals[0] is not None
            assert finals[1] is not None
            assert torch.equal(finals[0]["observation"][rows], finals[1]["observation"][rows])
    assert num_ended > 30


def test_observations_are_not_written_over_by_later_steps() -> None:
    env = tensors(MIXED)
    seen = [env.reset(), *(env.step(actions).observation for actions in random_actions(20))]
    copies = [observation["observation"].clone() for observation in seen]
    record(env, random_actions(40, seed=5))
    for observation, copy in zip(seen, copies, strict=True):
        assert torch.equal(observation["observation"], copy)


def test_the_memory_of_a_delay_does_not_grow_with_it() -> None:
    short, long = tensors("mtxl/Recall6x4gap3-v0"), tensors("mtxl/Recall1000000x4gap3000-v0")
    assert short.num_bytes == long.num_bytes


def test_a_delay_of_ten_thousand_steps() -> None:
    single = original("mtxl/Recall10000x2-v0")
    single.reset(seed=0)
    for _ in range(2 + 9_997):
        single.step(0)
    env = tensors("mtxl/Recall10000x2-v0", 1)
    seen = [env.load([single])]
    seen += [env.step(torch.tensor([0])).observation for _ in range(3)]
    assert [int(observation["observation"]) for observation in seen] == [2, 2, 2, 3]
    assert env.step(torch.tensor([single.answers[0]])).reward == 0.5
    assert env.step(torch.tensor([single.answers[1]])).success


@pytest.mark.gpu
@pytest.mark.parametrize("env_id", KINDS)
def test_cuda_equals_cpu_and_synchronises_nothing(env_id: str, cuda: torch.device) -> None:
    pair = [tensors(env_id, device=device, seed=1) for device in ("cpu", cuda)]
    for env in pair:
        env.reset()
    for actions in random_actions(100):
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
@pytest.mark.parametrize("env_id", KINDS)
def test_a_step_is_captured_in_a_cuda_graph(env_id: str, cuda: torch.device) -> None:
    pair = [tensors(env_id, device=cuda, seed=1) for _ in range(2)]
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
