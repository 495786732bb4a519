"""POPGym's tasks as tensors: ids, both backends, seeds, states, and what they refuse.

That they are POPGym's is in `test_popgym_equality`, their oddities in `test_popgym_oddities`.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import permutations
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from chi_squared import are_alike
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from popgym_tasks import NUM_ENVS, id_of, tensors
from torch import Tensor
from wrong_actions import refuses_wrong_actions

import envs
from envs import memory_gym
from envs.batched_env import EnvStep
from envs.popgym import LEVELS, registrations
from envs.popgym.cards import shuffled
from envs.rules.task_tensors import TaskTensorEnv
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from envs.wrapped.single_env import SeededEpisodes

IDS = list(registrations())
EASY = [env_id for env_id in IDS if "Easy" in env_id] + list(memory_gym.registrations())
"""Memory Gym's tasks have the same forms."""


def random_actions(env: Any, num_steps: int, seed: int = 0) -> list[Tensor]:
    space = env.action_space
    space.seed(seed)
    return [
        torch.as_tensor(np.stack([space.sample() for _ in range(env.num_envs)]))
        for _ in range(num_steps)
    ]


def flat(step: EnvStep) -> Tensor:
    """Return everything that a step shows, but for the final observation, as one tensor."""
    ends = [step.reward, step.terminated, step.truncated, step.success]
    fields = [*step.observation.values(), *ends]
    return torch.cat([field.double().flatten(1) if field.dim() > 1 else field.double().unsqueeze(1)
                      for field in fields], dim=1)  # fmt: skip


def record(env: TaskTensorEnv, actions: list[Tensor]) -> Tensor:
    return torch.stack([flat(env.step(action)) for action in actions])


# --- the registered ids


def test_the_ids_are_popgyms() -> None:
    assert len(IDS) == 3 * len(LEVELS) == 42
    assert "mtxl/popgym-VelocityOnlyCartpoleHard-v0" in IDS
    with pytest.raises(ValueError, match="did you mean mtxl/popgym-RepeatPreviousEasy-v0"):
        envs.make("mtxl/popgym-RepeatPreviouEasy-v0", 1)


@pytest.mark.parametrize("env_id", IDS)
def test_returns_lie_within_popgyms_bounds(env_id: str) -> None:
    """Whole episodes end by themselves, within the steps that they may have, in [-1.5, 1.01]."""
    env = tensors(env_id, 5)
    env.reset()
    returns, lengths, num_ended = torch.zeros(5), torch.zeros(5), 0
    for actions in random_actions(env, env.task.num_steps):
        step = env.step(actions)
        returns, lengths = returns + step.reward, lengths + 1
        done = step.terminated | step.truncated
        assert (returns[done] >= -1.5).all()
        assert (returns[done] <= 1.01).all()
        assert (lengths[done] <= env.task.num_steps).all()
        assert not step.success.any()
        returns, lengths = returns.masked_fill(done, 0), lengths.masked_fill(done, 0)
        num_ended += int(done.sum())
    assert num_ended >= 5
    assert not env.has_success


# --- one function in three forms


@pytest.mark.parametrize("env_id", EASY)
def test_the_same_episodes_on_both_backends(env_id: str) -> None:
    """What evaluation plays: the episodes of given seeds, in their order, round and round."""
    both = [
        envs.make(env_id, 2, backend=backend, level_seeds=[3, 1, 4, 1, 5])
        for backend in ("tensor", "gymnasium")
    ]
    assert isinstance(both[0], TaskTensorEnv)
    assert isinstance(both[1], GymnasiumEnv)
    assert both[0].observation_space == both[1].observation_space
    assert both[0].action_space == both[1].action_space
    first = [env.reset() for env in both]
    for name, value in first[0].items():
        assert torch.equal(value, first[1][name])
        assert value.dtype == first[1][name].dtype
    num_ended = 0
    for actions in random_actions(both[0], min(3 * both[0].task.num_steps, 220)):
        steps = [env.step(actions) for env in both]
        assert torch.equal(flat(steps[0])[:, :-1], flat(steps[1])[:, :-1])  # success is unknown
        num_ended += int((steps[0].terminated | steps[0].truncated).sum())
    assert num_ended >= 2


@pytest.mark.parametrize("name", ["AutoencodeEasy", "MineSweeperEasy", "ConcentrationEasy"])
def test_autoreset_equals_sync_vector_env(name: str) -> None:
    seeds = list(range(100, 170))
    env = gymnasium.make_vec(id_of(name), num_envs=NUM_ENVS, level_seeds=seeds)
    make = partial(gymnasium.make, id_of(name))
    expected = SyncVectorEnv(
        [
            partial(lambda i: SeededEpisodes(make(), seeds, i, NUM_ENVS), index)
            for index in range(NUM_ENVS)
        ],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert env.observation_space == expected.observation_space
    assert env.action_space == expected.action_space
    np.testing.assert_equal(env.reset()[0], expected.reset()[0])
    env.action_space.seed(0)
    num_episodes = 0
    for _ in range(120):
        actions = env.action_space.sample()
        step, reference = env.step(actions), expected.step(actions)
        assert env.observation_space.contains(step[0])
        for ours, theirs in zip(step[:4], reference[:4], strict=True):
            np.testing.assert_equal(ours, theirs)
        rows = np.flatnonzero(step[2] | step[3])
        num_episodes += len(rows)
        for row in rows:
            np.testing.assert_equal(step[4]["final_obs"][row], reference[4]["final_obs"][row])
    assert num_episodes >= NUM_ENVS


@pytest.mark.parametrize("env_id", EASY)
@pytest.mark.parametrize("level_seeds", [None, [2, 7, 1]])
def test_resets_without_looking_equal_on_host(env_id: str, level_seeds: Any) -> None:
    """The way of a GPU, with no synchronisation, and that of a CPU are one function."""
    pair = [tensors(env_id, seed=1, level_seeds=level_seeds) for _ in range(2)]
    pair[1]._on_host = False
    for env in pair:
        env.keeps_final = True
        env.reset()
    num_ended = 0
    for actions in random_actions(pair[0], pair[0].task.num_steps + 20):
        steps = [env.step(actions) for env in pair]
        assert torch.equal(flat(steps[0]), flat(steps[1]))
        rows = steps[0].terminated | steps[0].truncated
        num_ended += int(rows.sum())
        if rows.any():
            finals = [step.final_observation for step in steps]
            assert finals[0] is not None
            assert finals[1] is not None
            for name, value in finals[0].items():
                assert torch.equal(value[rows], finals[1][name][rows])
        if num_ended >= 10 * NUM_ENVS:  # of an endless task, whose episodes may be long
            break
    assert num_ended >= NUM_ENVS


# --- seeds and states


@pytest.mark.parametrize("env_id", EASY)
def test_the_seed_decides_everything(env_id: str) -> None:
    def run(seed: int) -> Tensor:
        env = tensors(env_id, seed=seed)
        env.reset()
        return record(env, random_actions(env, 120))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("env_id", EASY)
def test_a_saved_state_goes_on_the_same_way_anywhere(env_id: str) -> None:
    env, other = tensors(env_id, seed=1), tensors(env_id, seed=99)
    env.reset()
    record(env, random_actions(env, 30, seed=2))
    state = env.state_dict()
    actions = random_actions(env, 100, seed=3)
    after = record(env, actions)
    other.load_state_dict(state)
    assert torch.equal(record(other, actions), after)


@pytest.mark.parametrize("env_id", EASY)
def test_observations_are_not_written_over_by_later_steps(env_id: str) -> None:
    env = tensors(env_id)
    seen = [env.reset(), *(env.step(a).observation for a in random_actions(env, 10))]
    copies = [{name: value.clone() for name, value in fields.items()} for fields in seen]
    num_bytes = env.num_bytes
    record(env, random_actions(env, 70, seed=5))
    for observation, copy in zip(seen, copies, strict=True):
        assert all(torch.equal(value, copy[name]) for name, value in observation.items())
    assert env.num_bytes == num_bytes


def test_decks_are_uniform_however_they_are_sorted() -> None:
    """NumPy's sort, on the host, and torch's, elsewhere, are one function."""
    bits = torch.randint(2**31, (24_000, 4), generator=torch.Generator().manual_seed(0))
    decks = shuffled(bits)
    assert torch.equal(decks, bits.argsort(dim=1, stable=True))
    drawn = Counter(map(tuple, decks.tolist()))
    assert are_alike(drawn, Counter(dict.fromkeys(permutations(range(4)), 1000)))


# --- errors


def test_wrong_actions_are_named_and_change_nothing() -> None:
    refuses_wrong_actions(tensors("RepeatFirstEasy", 3), highest=3, named="0, 1, 2, 3")
    board = tensors("BattleshipEasy", 3)
    board.reset()
    with pytest.raises(ValueError, match=r"actions are \(3,\) .*and part: \(3, 2\) int64"):
        board.step(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="action 8 must be from 0 to 7"):
        board.step(torch.full((3, 2), 8))
    pendulum = tensors("PositionOnlyPendulumEasy", 3)
    pendulum.reset()
    with pytest.raises(ValueError, match=r"torch.int64; pass numbers, .*: \(3, 1\) float32"):
        pendulum.step(torch.zeros(3, 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RepeatPreviousEasy", {"k": 52}, "k=52 must be a whole number from 1 to 51"),
        ("RepeatPreviousEasy", {"num_decks": 0}, "num_decks=0 must be .* from 1 to 1000"),
        ("RepeatPreviousEasy", {"size": 3}, "size"),
        ("CountRecallEasy", {"deck_type": "stars"}, "'stars' must be one of colors, suits, ranks"),
        ("ConcentrationEasy", {"deck_type": "suits"}, "'suits' must be colors or ranks"),
        ("BattleshipEasy", {"board_size": 7}, "board_size=7 must be .* from 8 to 100"),
        ("MineSweeperEasy", {"num_mines": 14}, "num_mines=14 must be .* from 1 to 13"),
        ("PositionOnlyCartPoleEasy", {"noise_sigma": -1.0}, "noise_sigma=-1.0 must be 0 or more"),
    ],
)
def test_options_that_cannot_be_are_named(name: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.make(id_of(name), 1, env_kwargs=options)


def test_other_options_make_other_tasks() -> None:
    env = tensors("RepeatPreviousEasy", 1, env_kwargs={"k": 16, "num_decks": 2})
    assert env.task.num_steps == 103
    other = tensors("RepeatPreviousEasy", 1)
    env.reset()
    other.reset()
    with pytest.raises(ValueError, match="state"):
        other.load_state_dict(env.state_dict())


def test_it_draws_no_pictures_and_has_no_step_after_the_end() -> None:
    with pytest.raises(ValueError, match="does not draw pictures as 'rgb_array'"):
        envs.make(id_of("AutoencodeEasy"), 1, render_mode="rgb_array")
    with pytest.raises(
        ValueError, match=r"mtxl.popgym-AutoencodeEasy-v0 draws no pictures; use an env"
    ):
        tensors("AutoencodeEasy", 1).render(0)
    single = gymnasium.make(id_of("MineSweeperEasy")).unwrapped
    with pytest.raises(ValueError, match="no episode has started, or it has ended; call reset"):
        single.step(np.array([0, 0]))


# --- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("env_id", EASY)
def test_cuda_equals_cpu_and_synchronises_nothing(env_id: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pair = [tensors(env_id, device=device, seed=1) for device in ("cpu", "cuda")]
    for env in pair:
        env.reset()
    for actions in random_actions(pair[0], 120):
        expected = flat(pair[0].step(actions))
        on_device = actions.to("cuda")
        pair[1].host_step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step = pair[1].device_step(on_device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(flat(step).cpu(), expected, rtol=0, atol=1e-5)
