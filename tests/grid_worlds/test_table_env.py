"""The table of Memory and of the T-mazes against Minigrid: every state, every action."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from chi_squared import are_alike
from minigrid.minigrid_env import MiniGridEnv
from minigrid_solver import next_action
from stock_pair import Pair, compare_every_action, every_state, play, stock

import envs
from envs.grids.table_env import TableEnv
from envs.levels.static_levels import static_levels
from envs.registry import check_id

MEMORY_IDS = [f"MiniGrid-MemoryS{size}-v0" for size in (7, 9, 11, 13, "13Random", "17Random")]
OWN_IDS = [
    "mtxl/TMaze7-v0",
    "mtxl/TMaze13Active-v0",
    "mtxl/TMaze7to20-v0",
    "mtxl/MemoryS9to11RandomCue-v0",
]


@pytest.fixture(autouse=True)
def _registered() -> None:
    for env_id in OWN_IDS:
        check_id(env_id)


@pytest.mark.parametrize("env_id", MEMORY_IDS + OWN_IDS)
def test_every_action_in_every_state_equals_minigrid(env_id: str) -> None:
    num_successes, num_failures = compare_every_action(env_id)
    assert num_successes == num_failures > 0


@pytest.mark.parametrize("env_id", MEMORY_IDS + OWN_IDS)
def test_the_cue_is_in_view_where_minigrid_says_so(env_id: str) -> None:
    states = every_state(env_id)
    env = TableEnv(env_id, len(states))
    env.load(states)
    cue = env.step(torch.zeros(len(states), dtype=torch.int64)).cue
    assert cue is not None
    for index, state in enumerate(states):
        place = (1, state.height // 2 - 1)
        cell = state.grid.get(*place)
        assert cell is not None
        expected = ["key", "ball"].index(cell.type) if state.agent_sees(*place) else -1
        assert cue[index] == expected
    assert set(cue.tolist()) == {-1, 0, 1}


@pytest.mark.parametrize("env_id", ["MiniGrid-MemoryS7-v0", "mtxl/MemoryS9to11RandomCue-v0"])
def test_whole_episodes_equal_minigrid(env_id: str) -> None:
    """With time limits: truncations, and both flags at the last step."""
    rng = np.random.default_rng(0)
    pair = Pair(env_id, 8, TableEnv)

    def policy(env: MiniGridEnv) -> int:
        return next_action(env) if rng.random() < 0.8 else int(rng.integers(7))

    play(pair, policy, 400, rng)
    assert pair.counts["successes"] > 50
    assert pair.counts["truncations"] > 20
    assert pair.counts["both"] > 0


@pytest.mark.parametrize(
    "env_id",
    ["MiniGrid-MemoryS13Random-v0", "mtxl/MemoryS7to11Random-v0", "mtxl/TMaze7to20-v0"],
)
def test_resets_are_distributed_as_minigrids(env_id: str) -> None:
    check_id(env_id)
    env = TableEnv(env_id, 20_000, seed=1)
    env.reset()
    drawn = Counter(env._buffers["state"].tolist())
    original = stock(env_id)
    rows = []
    for seed in range(10_000):
        original.reset(seed=seed)
        rows.append(env._read(original)[0])
    expected = Counter(rows)
    assert len(drawn) == len(env._table.starts)
    assert are_alike(drawn, expected)


def test_the_levels_written_here_are_minigrids() -> None:
    """Walls, objects and ends of every size and corridor that a random level can have."""
    original = stock("MiniGrid-MemoryS17Random-v0")
    known = {
        (cells.tobytes(), tuple(ends))
        for group in static_levels(original)
        for cells, ends in zip(group().cells, group().ends, strict=True)
    }
    env = TableEnv("MiniGrid-MemoryS17Random-v0", 1)
    seen = set()
    for seed in range(1000):
        original.reset(seed=seed)
        env.load([original])
        seen.add(original.grid.encode().tobytes())
    assert len(seen) == len(known) == 44


def test_the_agent_may_start_in_the_corridor() -> None:
    """An oddity of Minigrid's Memory: of ten starts one shows the cue."""
    env = TableEnv("MiniGrid-MemoryS13-v0", 4000)
    image = env.reset()["image"]
    shows_cue = torch.isin(image[:, 2, 6, 0], torch.tensor([5, 6]))  # at the left hand
    columns = {env._atlas.level_of(int(state))[2] % (13 + 6) for state in env._table.starts}
    assert len(columns) == 10
    assert abs(shows_cue.float().mean() - 1 / 10) < 0.02


@pytest.mark.parametrize("size", [7, 13, 65])
def test_cue_variants_start_with_the_cue_in_view(size: int) -> None:
    env = envs.make(f"mtxl/MemoryS{size}Cue-v0", 64)
    image = env.reset()["image"]
    assert torch.isin(image[:, 2, 6, 0], torch.tensor([5, 6])).all()  # at the agent's left hand


def test_active_t_maze_hides_the_cue_until_the_agent_turns() -> None:
    env = envs.make("mtxl/TMaze100Active-v0", 64)

    def shows_cue(observation: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.isin(observation["image"][..., 0], torch.tensor([5, 6])).any(dim=(1, 2))

    assert not shows_cue(env.reset()).any()
    assert shows_cue(env.step(torch.zeros(64, dtype=torch.int64)).observation).all()


def test_a_t_maze_of_100_000_steps() -> None:
    """Its table is small in what it shows, and its end is where it should be."""
    env = TableEnv("mtxl/TMaze100000-v0", 2, level_seeds=[0])
    assert len(env._table.images) < 100
    original = env.prototype
    original.reset(seed=0)
    original.agent_pos = (100_000, 3)
    env.load([original, original])
    env.step(torch.tensor([2, 2]))
    turned = env.step(torch.tensor([0, 1])).observation
    assert turned["direction"].tolist() == [3, 1]
    step = env.step(torch.tensor([2, 2]))
    assert step.terminated.all()
    assert step.success.sum() == 1


def test_mixtures_draw_every_size_alike_with_its_own_time_limit() -> None:
    env = TableEnv("mtxl/MemoryS9to11RandomCue-v0", 10_000)
    env.reset()
    limits = Counter(env._buffers["max_steps"].tolist())
    assert are_alike(limits, Counter({5 * 9**2: 5_000, 5 * 11**2: 5_000}))


def test_load_names_what_does_not_fit() -> None:
    env = TableEnv("MiniGrid-MemoryS9-v0", 1)
    other = stock("MiniGrid-MemoryS11-v0")
    with pytest.raises(ValueError, match="without an episode; reset"):
        env.load([other])
    other.reset(seed=0)
    with pytest.raises(ValueError, match="a state that none of this batch's levels has"):
        env.load([other])
    with pytest.raises(ValueError, match=r"load was given 2 environments; .*num_envs=1"):
        env.load([other, other])
    wrong = stock("MiniGrid-Empty-5x5-v0")
    wrong.reset(seed=0)
    with pytest.raises(ValueError, match="given a EmptyEnv, but this batch is of MemoryEnv"):
        env.load([wrong])
