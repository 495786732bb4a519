"""The junctions on MiniGrid's engine, and their table against it."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import product

import gymnasium
import numpy as np
import pytest
import torch
from chi_squared import are_alike
from gymnasium.utils.env_checker import check_env
from minigrid.core.actions import Actions
from minigrid.minigrid_env import MiniGridEnv
from minigrid_solver import next_action
from stock_pair import Pair, compare_every_action, every_state, play, stock

import envs
from envs.grids.grid_env import GridEnv
from envs.grids.table import MAX_STATES
from envs.grids.table_env import TableEnv
from envs.levels.static_levels import junction_levels, static_levels, t_maze_levels
from envs.memory_tasks.junctions import (
    MAX_JUNCTIONS,
    MIN_DELAY,
    JunctionsEnv,
    junction_columns,
    max_delay,
)
from envs.memory_tasks.t_maze import MIDDLE, time_limit
from envs.registry import check_id

IDS = ["mtxl/Junctions6-v0", "mtxl/Junctions7x2-v0", "mtxl/Junctions6to9x3-v0"]
LEFT, RIGHT, FORWARD = int(Actions.left), int(Actions.right), int(Actions.forward)
OBJECTS = (5, 6)  # a key and a ball, in an image


@pytest.fixture(autouse=True)
def _registered() -> None:
    for env_id in IDS:
        check_id(env_id)


def junctions(env_id: str) -> JunctionsEnv:
    check_id(env_id)
    env = stock(env_id)
    assert isinstance(env, JunctionsEnv)
    return env


def route(delay: int, turns: list[bool]) -> list[int]:
    """Return a way that takes these turns (is it down?), through the middle each time."""
    actions = [FORWARD] * (len(turns) + delay)
    for index, is_down in enumerate(turns):
        turn, back = (RIGHT, LEFT) if is_down else (LEFT, RIGHT)
        actions += [turn, FORWARD]
        if index < len(turns) - 1:
            actions += [back, FORWARD, FORWARD, back, FORWARD, turn, FORWARD]
    return actions


def every_level(env: JunctionsEnv) -> dict[int, JunctionsEnv]:
    """Return the environment in every level of its longest delay, by the number of the cue."""
    levels: dict[int, JunctionsEnv] = {}
    seed = 0
    while len(levels) < 1 << env.num_junctions:
        env.reset(seed=seed)
        number = sum(is_ball << place for place, is_ball in enumerate(env.cues))
        if env.delay == max(env.delays):
            levels.setdefault(number, copy.copy(env))
        seed += 1
    return levels


def views(env: JunctionsEnv, first_column: int) -> np.ndarray:
    """Return what is seen from every cell from a column on, in every direction."""
    images = []
    for x, y in product(range(first_column, env.width), range(env.height)):
        if env.grid.get(x, y) is None:
            for direction in range(4):
                env.agent_pos, env.agent_dir = (x, y), direction
                images.append(env.gen_obs()["image"])
    return np.stack(images)


# --- the task


@pytest.mark.parametrize("env_id", ["mtxl/Junctions20-v0", *IDS])
@pytest.mark.filterwarnings("ignore:.*Box")
def test_is_a_valid_gymnasium_environment(env_id: str) -> None:
    check_env(stock(env_id), skip_render_check=True)


@pytest.mark.parametrize("num_junctions", [1, 2, 3])
def test_the_turns_that_the_cues_tell_lead_to_success(num_junctions: int) -> None:
    """In every level, every combination of turns: the first wrong one ends it without reward."""
    delay = 7
    env = JunctionsEnv((delay,), num_junctions)
    for level in every_level(env).values():
        for turns in product((False, True), repeat=num_junctions):
            episode = copy.copy(level)
            rewards, terminated = [], False
            for action in route(delay, list(turns)):
                _, reward, terminated, truncated, _ = episode.step(action)
                assert not truncated
                rewards.append(float(reward))
                if terminated:
                    break
            assert terminated
            num_right = sum(np.cumprod(np.array(turns) == level.cues))
            is_success = num_right == num_junctions
            num_steps = num_junctions + delay + 9 * min(num_right, num_junctions - 1) + 2
            assert len(rewards) == num_steps
            assert rewards[-1] == (1 - 0.9 * (num_steps / level.max_steps) if is_success else 0)
            assert not any(rewards[:-1])


@pytest.mark.parametrize("num_junctions", [1, 2, 3, MAX_JUNCTIONS])
def test_no_cue_is_in_view_from_the_first_junction_on(num_junctions: int) -> None:
    env = JunctionsEnv((MIN_DELAY,), num_junctions)
    env.reset(seed=0)
    first = junction_columns(MIN_DELAY, num_junctions)[0]
    assert not np.isin(views(env, first)[..., 0], OBJECTS).any()
    assert np.isin(views(env, first - 1)[..., 0], OBJECTS).any()  # the delay is as short as can be


@pytest.mark.parametrize("num_junctions", [1, 2, 5])
def test_nothing_but_memory_tells_the_levels_apart_at_the_junctions(num_junctions: int) -> None:
    env = JunctionsEnv((MIN_DELAY,), num_junctions)
    first = junction_columns(MIN_DELAY, num_junctions)[0]
    images = [views(level, first) for level in every_level(env).values()]
    assert all((image == images[0]).all() for image in images)


def test_both_branches_look_alike() -> None:
    """The walls are their own mirror image, so that the side has no mark of its own."""
    env = JunctionsEnv((MIN_DELAY,), 4)
    env.reset(seed=0)
    cells = env.grid.encode()[junction_columns(MIN_DELAY, 4)[0] - 1 :]  # (x, y, channel)
    assert (cells == cells[:, ::-1]).all()


def test_no_way_leads_round_a_junction() -> None:
    """Without the branches that the cues tell, nothing behind a junction can be reached."""
    env = JunctionsEnv((MIN_DELAY,), 3)
    columns = junction_columns(MIN_DELAY, 3)
    for level in every_level(env).values():
        for column in columns:
            cells = {(1, MIDDLE)}
            frontier = list(cells)
            for x, y in frontier:
                near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} - cells
                new = {
                    cell
                    for cell in near
                    if level.grid.get(*cell) is None
                    and cell not in level.failure_positions
                    and (cell[0] != column or cell[1] == MIDDLE)
                }
                cells |= new
                frontier += new
            assert max(cells) == (column, MIDDLE)


def test_cues_cannot_be_picked_up() -> None:
    env = JunctionsEnv((MIN_DELAY,), 2)
    env.reset(seed=0)
    env.step(LEFT)
    for action in (Actions.pickup, Actions.toggle, Actions.drop, Actions.forward):
        types = env.step(int(action))[0]["image"][..., 0]
        assert np.isin(types, OBJECTS).sum() == 2
    assert env.carrying is None
    assert tuple(env.agent_pos) == (1, MIDDLE)


def test_delays_are_drawn_with_their_own_time_limits() -> None:
    env = junctions("mtxl/Junctions10to40x2-v0")
    limits = set()
    for seed in range(30):
        env.reset(seed=seed)
        limits.add((env.delay, env.max_steps, env.grid.width))
    assert limits == {(n, 8 * (n + 13), n + 8) for n in (10, 20, 40)}


# --- the table


def test_one_junction_is_the_t_maze() -> None:
    ours, t_maze = junction_levels(9, 1), t_maze_levels(10, False, time_limit(10))
    assert (ours.cells == t_maze.cells).all()
    assert (ours.ends == t_maze.ends).all()
    assert (ours.starts, ours.max_steps) == (t_maze.starts, t_maze.max_steps)


@pytest.mark.parametrize("env_id", IDS)
def test_every_action_in_every_state_equals_minigrid(env_id: str) -> None:
    num_successes, num_failures = compare_every_action(env_id)
    num_junctions = junctions(env_id).num_junctions
    assert num_failures >= num_junctions * num_successes > 0


@pytest.mark.parametrize("env_id", IDS)
def test_the_cue_is_that_of_minigrid_in_every_state(env_id: str) -> None:
    states = every_state(env_id)
    env = TableEnv(env_id, len(states))
    env.load(states)
    cue = env.step(torch.zeros(len(states), dtype=torch.int64)).cue
    assert cue is not None
    expected = [state.cue_in_view for state in states if isinstance(state, JunctionsEnv)]
    assert cue.tolist() == expected
    num_junctions = junctions(env_id).num_junctions
    assert set(expected) == set(range(-1, 1 << num_junctions))


@pytest.mark.parametrize("kind", [TableEnv, GridEnv])
@pytest.mark.parametrize("num_junctions", [1, 2, 4])
def test_whole_episodes_equal_minigrid(kind: type, num_junctions: int) -> None:
    """By a scripted player and at random, with time limits."""
    env_id = f"mtxl/Junctions6x{num_junctions}-v0"
    check_id(env_id)
    rng = np.random.default_rng(0)
    pair = Pair(env_id, 8, kind)

    def policy(env: MiniGridEnv) -> int:
        return next_action(env) if rng.random() < 0.9 else int(rng.integers(7))

    play(pair, policy, 400, rng)
    assert pair.counts["successes"] > 10
    assert pair.counts["truncations"] > 10


@pytest.mark.parametrize("num_junctions", [2, MAX_JUNCTIONS])
def test_each_kind_of_failure_equals_minigrid(num_junctions: int) -> None:
    """One env for each junction that is the first to be wrong, and one where none is.

    The time limit is the length of the way: success comes on the very last step, with both flags.
    """
    delay = 11
    env_id = f"mtxl/Junctions{delay}x{num_junctions}-v0"
    check_id(env_id)
    pair = Pair(env_id, num_junctions + 1, TableEnv)
    ways = []
    for index, env in enumerate(pair.stocks):
        assert isinstance(env, JunctionsEnv)
        pair.reset(index, seed=index, max_steps=len(route(delay, [False] * num_junctions)))
        way = route(delay, [cue != (i == index) for i, cue in enumerate(env.cues)])
        ways.append(way)
    ended = []
    pair.load()
    for time in range(len(ways[0])):
        done = pair.step([way[time] for way in ways])
        for index in np.flatnonzero(done).tolist():
            ended.append((index, time + 1))
            pair.stocks[index].reset(seed=0)  # and it plays on, to no end
            pair.stocks[index].max_steps = 10_000
        if done.any():
            pair.load()
    first = num_junctions + delay + 2
    expected = {(index, first + 9 * index) for index in range(num_junctions)}
    assert expected | {(num_junctions, first + 9 * (num_junctions - 1))} <= set(ended)
    assert pair.counts["successes"] == pair.counts["both"] == 1


def test_cues_and_ends_agree_in_all_levels() -> None:
    """The levels of the table, one by one, as MiniGrid's class says them."""
    num_junctions = 6
    levels = junction_levels(MIN_DELAY, num_junctions)
    flat = levels.geometry.flat
    by_number = every_level(JunctionsEnv((MIN_DELAY,), num_junctions))
    assert sorted(by_number) == list(range(len(levels.cells))) == list(range(64))
    for number, env in by_number.items():
        assert levels.ends[number].tolist() == [
            flat(*place) for place in (env.success_pos, *env.failure_positions)
        ]
        cells = levels.geometry.crop(levels.cells[number])
        assert (env.grid.encode()[..., 0] == cells.T & 0xFF).all()


def test_levels_are_drawn_alike_and_as_minigrids() -> None:
    env_id = "mtxl/Junctions6to9x3-v0"
    env = TableEnv(env_id, 16_000, seed=1)
    env.reset()
    drawn = Counter(env._buffers["state"].tolist())
    original = stock(env_id)
    made: Counter[int] = Counter()
    for seed in range(8_000):
        original.reset(seed=seed)
        made[env._read(original)[0]] += 1
    assert len(drawn) == len(env._table.starts) == 2 * 8
    assert are_alike(drawn, Counter(dict.fromkeys(drawn, 1_000)))
    assert are_alike(drawn, made)


def test_both_backends_play_the_same_levels_and_see_the_same_cues() -> None:
    pair = [
        envs.make("mtxl/Junctions6to9x3-v0", 7, backend=backend, level_seeds=[3, 1, 4, 1, 5])
        for backend in ("tensor", "gymnasium")
    ]
    assert [env.has_cue for env in pair] == [True, True]
    observations = [env.reset() for env in pair]
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(300):
        for name in observations[0]:
            assert torch.equal(observations[0][name], observations[1][name])
        actions = torch.randint(4, (7,), generator=generator).clamp(max=FORWARD)
        steps = [env.step(actions) for env in pair]
        for name in ("cue", "reward", "terminated", "truncated", "success"):
            assert torch.equal(getattr(steps[0], name), getattr(steps[1], name)), name
        observations = [step.observation for step in steps]
        assert steps[0].cue is not None
        seen |= set(steps[0].cue.tolist())
    assert len(seen) > 3


def test_gymnasium_makes_them_one_by_one_and_as_tensors() -> None:
    env = gymnasium.make_vec("mtxl/Junctions20x4-v0", num_envs=3)
    observation, _ = env.reset(seed=1)
    assert observation["mission"] == (stock("mtxl/Junctions20x4-v0").mission,) * 3
    assert env.step(np.full(3, FORWARD))[0]["image"].shape == (3, 7, 7, 3)
    env.close()


def test_renders_what_minigrid_renders() -> None:
    original = stock("mtxl/Junctions7x2-v0", render_mode="rgb_array")
    original.reset(seed=1)
    env = TableEnv("mtxl/Junctions7x2-v0", 1)
    env.load([original])
    assert (env.render(0) == original.render()).all()


def test_eight_junctions_after_a_thousand_steps() -> None:
    """All 256 cues have numbers of their own, and what is shown does not grow with the delay."""
    env = envs.make("mtxl/Junctions1000x8-v0", 2_048)
    assert isinstance(env, TableEnv)
    env.reset()
    env.step(torch.full((2_048,), FORWARD))  # the eighth cue is in view from the second cell
    cue = env.step(torch.full((2_048,), FORWARD)).cue
    assert cue is not None
    assert set(cue.tolist()) == set(range(256))
    assert len(env._table.images) < 2_000


# --- sizes


@pytest.mark.parametrize("num_junctions", range(1, MAX_JUNCTIONS + 1))
def test_the_longest_delay_fits_in_the_table(num_junctions: int) -> None:
    def num_states(delay: int) -> int:
        levels = junction_levels(delay, num_junctions)
        num_cells = (levels.geometry.crop(levels.cells[0])[1:-1] == 1).sum()
        return 4 * int(num_cells) << num_junctions

    short, longest = num_states(MIN_DELAY), max_delay(num_junctions)
    more = 4 * (longest - MIN_DELAY) << num_junctions
    assert short + more <= MAX_STATES
    assert longest == 100_000 or short + more + (4 << num_junctions) > MAX_STATES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("20x0", "num_junctions=0 must be from 1 to 8"),
        ("20x9", "num_junctions=9 must be from 1 to 8"),
        ("5", "delay=5 must be from 6 to 100000 with num_junctions=1: after a shorter"),
        ("5to20x2", "delay=5 must be from 6 to 100000"),
        ("100001", "delay=100001 must be from 6 to 100000"),
        ("4030x8", "delay=4030 must be from 6 to 4029 with num_junctions=8: .* take fewer"),
        ("20to10x3", "names sizes from 20 to 10; swap them"),
    ],
)
def test_sizes_that_make_no_task_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        envs.make(f"mtxl/Junctions{name}-v0", 1)


def test_mixtures_that_are_too_large_name_another_way() -> None:
    with pytest.raises(ValueError, match="more than 4,194,304 states; use fewer sizes, or backend"):
        envs.make("mtxl/Junctions1500to3000x8-v0", 1)
    assert envs.make("mtxl/Junctions1500to3000x8-v0", 1, backend="gymnasium").has_cue


def test_delays_of_a_mixture_are_groups_of_their_own() -> None:
    groups = [group() for group in static_levels(junctions("mtxl/Junctions10to40x2-v0"))]
    assert [group.max_steps for group in groups] == [8 * (n + 13) for n in (10, 20, 40)]
    assert [group.weight for group in groups] == [1 / 3] * 3
