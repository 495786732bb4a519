"""What tensor environments refuse, and in which words: ids, devices, actions, states."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest
import torch
from minigrid.core.world_object import Box, Goal
from stock_pair import stock
from tensor_grids import DOOR_KEY, KINDS, MEMORY, NUM_ENVS, random_actions, record
from wrong_actions import refuses_wrong_actions

import envs
from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv
from envs.levels.level_pool import RENEW_EVERY


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("mtxl/MemoryS8-v0", "size=8 must be odd and from 7 to 201; the nearest is 7"),
        ("mtxl/MemoryS5-v0", "size=5 must be odd and from 7 to 201; the nearest is 7"),
        ("mtxl/MemoryS203Cue-v0", "size=203 must be .* the nearest is 201"),
        ("mtxl/MemoryS17to9-v0", "names sizes from 17 to 9; swap them"),
        ("mtxl/TMaze100001-v0", "length=100001 must be from 7 to 100000"),
        ("mtxl/MiniGrid-MemoryS13-v1", "did you mean mtxl/MiniGrid-MemoryS13-v0"),
    ],
)
def test_an_id_that_does_not_exist_says_what_does(env_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.make(env_id, 1)


def test_a_backend_that_does_not_know_an_id_says_so() -> None:
    with pytest.raises(ValueError, match="backend='tensor' does not know env='CartPole-v1'; use"):
        envs.make("CartPole-v1", 1, backend="tensor")
    assert envs.make("CartPole-v1", 1).backend == "gymnasium"
    assert envs.make(MEMORY, 1).backend == "tensor"
    assert envs.make(MEMORY, 1, backend="gymnasium").backend == "gymnasium"
    with pytest.raises(ValueError, match="level_seeds is empty"):
        envs.make(MEMORY, 1, level_seeds=[])


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used .*; use 'cpu'"):
        envs.make(MEMORY, 1, device=device)


def test_a_module_of_the_users_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_a_user.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Large-v0', 'minigrid.envs:DoorKeyEnv', kwargs={'size': 10})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = envs.make("module_of_a_user:Large-v0", NUM_ENVS)
    assert isinstance(env, GridEnv)
    env.reset()
    record(env, random_actions(RENEW_EVERY))
    env.close()
    with pytest.raises(
        ValueError, match=r"env='module_of_a_user:Small-v0' is not there .*register"
    ):
        envs.make("module_of_a_user:Small-v0", 1)
    with pytest.raises(ValueError, match="names the module 'nothing', which cannot be imported"):
        envs.make("nothing:Small-v0", 1)
    with pytest.raises(ValueError, match="render_mode='human' must be 'rgb_array' or left out"):
        envs.make(MEMORY, 1, render_mode="human")


@pytest.mark.parametrize(("kind", "env_id"), KINDS)
def test_wrong_actions_are_named_and_change_nothing(kind: type, env_id: str) -> None:
    env = kind(env_id, 3)
    refuses_wrong_actions(env, highest=6, named="left")


def test_states_that_do_not_fit_are_named_and_change_nothing() -> None:
    env = GridEnv(DOOR_KEY, 3)
    env.reset()
    before = env.state_dict()
    other = GridEnv(DOOR_KEY, 2)
    other.reset()
    with pytest.raises(ValueError, match=r"state\['.*'\] is \(2,.*num_envs"):
        env.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="no episode has started; call reset"):
        GridEnv(DOOR_KEY, 3).step(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="state has the entries"):
        env.load_state_dict({})
    assert all(torch.equal(value, before[name]) for name, value in env.state_dict().items())


def test_a_state_of_another_environment_is_refused() -> None:
    env, other = TableEnv("MiniGrid-MemoryS13-v0", 3), TableEnv(MEMORY, 3)
    with pytest.raises(ValueError, match="no episode has started; call reset"):
        env.state_dict()
    env.reset()
    before = env.state_dict()
    other.reset()
    with pytest.raises(ValueError, match="the state is of another environment, other options"):
        env.load_state_dict(other.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in env.state_dict().items())


def test_two_objects_that_look_like_the_target_are_refused() -> None:
    """Minigrid asks for the object itself, which a tensor cannot tell from its like."""
    env = gymnasium.make_vec("mtxl/MiniGrid-KeyCorridorS4R3-v0", obj_type="key", level_seeds=[6])
    with pytest.raises(ValueError, match=r"two \w+ keys, which tensors cannot tell apart"):
        env.reset()
    env.close()


def test_load_rejects_another_kind_and_strange_boxes() -> None:
    env = GridEnv("MiniGrid-DoorKey-5x5-v0", 1)
    larger = stock("MiniGrid-DoorKey-8x8-v0")
    larger.reset(seed=0)
    with pytest.raises(ValueError, match="grids of another size than 5 x 5"):
        env.load([larger])
    strange = stock("MiniGrid-DoorKey-5x5-v0")
    strange.reset(seed=0)
    strange.grid.set(1, 1, Box("red", Goal()))
    with pytest.raises(ValueError, match="a box holds green goal, but a tensor environment"):
        env.load([strange])
