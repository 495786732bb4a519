"""What every tensor environment does: seeds, states, autoreset, errors; and Minigrid's oddities."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from chi_squared import are_alike
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall, WorldObj
from minigrid.envs.dynamicobstacles import DynamicObstaclesEnv
from programs import output_of
from stock_pair import Pair, stock
from torch import Tensor
from wrong_actions import refuses_wrong_actions

import envs
from envs.batched_env import EnvStep
from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv
from envs.levels.level_pool import POOL_LEN, RENEW_EVERY, RENEWED_LEN
from envs.tensor_env import TensorEnv
from envs.wrapped.gymnasium_adapter import GymnasiumEnv
from envs.wrapped.single_env import SeededEpisodes

NUM_ENVS = 7
MEMORY, DOOR_KEY, FETCH = (
    "MiniGrid-MemoryS7-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-Fetch-5x5-N2-v0",
)
DYNAMIC = "MiniGrid-Dynamic-Obstacles-5x5-v0"
KINDS = [(TableEnv, MEMORY), (GridEnv, MEMORY), (GridEnv, FETCH), (GridEnv, DYNAMIC)]


def random_actions(num_steps: int, seed: int = 0, num_envs: int = NUM_ENVS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(7, (num_steps, num_envs), generator=generator)


def flat(step: EnvStep) -> Tensor:
    """Return everything that a step shows, but for the final observation, as one vector."""
    fields = [*step.observation.values(), step.reward, step.terminated, step.truncated]
    return torch.cat([field.flatten().double() for field in fields])


def record(env: TensorEnv, actions: Tensor) -> Tensor:
    return torch.stack([flat(env.step(action)) for action in actions])


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


GRAPH_PROGRAM = """
import torch
from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv

for kind, env_id in ((TableEnv, {memory!r}), (GridEnv, {fetch!r}), (GridEnv, {dynamic!r})):
    env = kind(env_id, 7, seed=1)
    env._on_host = False
    env.reset()
    torch._dynamo.reset()
    compiled = torch.compile(env.device_step, backend={backend!r}, fullgraph=True, dynamic=False)
    state = env.state_dict()
    actions = torch.randint(3, (30, 7), generator=torch.Generator().manual_seed(0))
    expected = [env.device_step(action) for action in actions]
    env.load_state_dict(state)
    for action, plain in zip(actions, expected, strict=True):
        step = compiled(action)
        for name in ("reward", "terminated", "truncated", "success"):
            assert torch.equal(getattr(step, name), getattr(plain, name)), name
        for name, value in step.observation.items():
            assert torch.equal(value, plain.observation[name]), name
"""


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_step_has_no_graph_break(backend: str) -> None:
    """Nothing in it depends on data on the host: what a CUDA graph needs too.

    In a process of its own, without jaxtyping's checks, which are not part of the product.
    """
    program = GRAPH_PROGRAM.format(memory=MEMORY, fetch=FETCH, dynamic=DYNAMIC, backend=backend)
    output_of(program)


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


@pytest.mark.parametrize("env_id", [MEMORY, FETCH, "MiniGrid-MultiRoom-N2-S4-v0"])
def test_the_same_levels_on_both_backends(env_id: str) -> None:
    """What evaluation plays: the levels of given seeds, in their order, round and round."""
    seeds = [3, 1, 4, 1, 5]
    tensors = envs.make(env_id, 2, backend="tensor", level_seeds=seeds)
    gym = envs.make(env_id, 2, backend="gymnasium", level_seeds=seeds)
    assert isinstance(tensors, TensorEnv)
    assert isinstance(gym, GymnasiumEnv)
    assert tensors.observation_space == gym.observation_space
    assert tensors.action_space == gym.action_space
    observations = [tensors.reset(), gym.reset()]
    for actions in random_actions(250, num_envs=2):
        for name in observations[0]:
            assert torch.equal(observations[0][name], observations[1][name])
            assert observations[0][name].dtype == observations[1][name].dtype
        observations = [env.step(actions).observation for env in (tensors, gym)]


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


# --- levels


def test_the_pool_holds_minigrids_levels_and_renews_them() -> None:
    env = GridEnv(DOOR_KEY, 2, seed=1)
    env.reset()
    pool = env._pool
    original = stock(DOOR_KEY)
    played = GridEnv(DOOR_KEY, 1)

    def assert_holds(place: int, seed: int) -> None:
        original.reset(seed=seed)
        played.load([original])
        assert torch.equal(pool.levels.cells[place], played._buffers["cells"][0])
        assert pool.levels.position[place] == played._buffers["position"][0]

    first = pool._seeds_held()
    assert len(set(first)) == POOL_LEN
    record(env, random_actions(2 * RENEW_EVERY, num_envs=2))
    seeds = pool._seeds_held()
    assert seeds[2 * RENEWED_LEN :] == first[2 * RENEWED_LEN :]
    assert not set(seeds[: 2 * RENEWED_LEN]) & set(first)
    for place in (0, 5, RENEWED_LEN + 3, 2 * RENEWED_LEN, POOL_LEN - 1):
        assert_holds(place, seeds[place])
    env.close()


def test_levels_are_the_same_when_their_process_dies() -> None:
    env, other = (GridEnv(DOOR_KEY, NUM_ENVS, seed=1) for _ in range(2))
    for each in (env, other):
        each.reset()
    actions = random_actions(2 * RENEW_EVERY)
    expected = record(other, actions)
    half = RENEW_EVERY // 2
    first = record(env, actions[:half])
    process = env._pool._process
    assert process is not None
    process._process.kill()
    with pytest.warns(UserWarning, match="has ended; from now on levels are made in this process"):
        rest = record(env, actions[half:])
    assert torch.equal(torch.cat([first, rest]), expected)
    env.close()
    other.close()


def test_levels_are_drawn_alike() -> None:
    env = GridEnv("MiniGrid-Empty-Random-5x5-v0", 50_000, seed=3)
    env.reset()
    env._pool.levels.step_count.copy_(torch.arange(POOL_LEN))  # marks the levels
    env.reset()
    drawn = Counter(env._buffers["step_count"].tolist())
    assert are_alike(drawn, Counter(dict.fromkeys(range(POOL_LEN), 50_000 // POOL_LEN)))


@pytest.mark.parametrize("env_id", ["MiniGrid-Empty-Random-5x5-v0", "MiniGrid-DoorKey-5x5-v0"])
def test_first_observations_are_distributed_as_minigrids(env_id: str) -> None:
    env = GridEnv(env_id, POOL_LEN, seed=3)
    env.reset()
    levels = env._pool.levels
    drawn = Counter(zip(levels.position.tolist(), levels.direction.tolist(), strict=True))
    original = stock(env_id)
    expected: Counter[tuple[int, int]] = Counter()
    for seed in range(2000):
        original.reset(seed=seed)
        x, y = map(int, original.agent_pos)
        expected[env._geometry.flat(x, y), original.agent_dir] += 1
    assert are_alike(drawn, expected)


# --- the step


def random_thing(rng: np.random.Generator) -> WorldObj | None:
    colour = str(rng.choice(COLOR_NAMES))
    is_open = bool(rng.integers(2))
    things: list[WorldObj | None] = [
        None, None, None, None, Wall(), Floor(colour), Key(colour), Ball(colour), Box(colour),
        Box(colour, Key(colour)), Box(colour, Ball("red")), Box(colour, Box(colour)),
        Door(colour, is_open=is_open), Door(colour, is_locked=True), Goal(), Lava(),
    ]  # fmt: skip
    return things[rng.integers(len(things))]


def test_random_worlds_equal_minigrid() -> None:
    """Every kind of object everywhere, hands full or empty: more than any level holds."""
    rng = np.random.default_rng(0)
    num_envs = 64
    pair = Pair("MiniGrid-DoorKey-8x8-v0", num_envs)
    hands = [None, Key("red"), Key("blue"), Ball("grey"), Box("red", Key("blue"))]
    for round_ in range(12):
        for env in pair.stocks:
            env.reset(seed=round_)
            for x in range(1, 7):
                for y in range(1, 7):
                    env.grid.set(x, y, random_thing(rng))
            env.agent_pos = (int(rng.integers(1, 7)), int(rng.integers(1, 7)))
            env.grid.set(*env.agent_pos, None)
            env.carrying = hands[int(rng.integers(len(hands)))]
        pair.load()
        is_over = np.zeros(num_envs, dtype=bool)
        for _ in range(30):
            for env in np.array(pair.stocks, object)[is_over]:  # go on in a world without danger
                env.reset(seed=1)
            pair.load()
            is_over = pair.step(rng.choice([0, 1, 2, 2, 3, 3, 4, 5, 5, 6], num_envs).tolist())


def test_goal_and_open_door_underfoot_show_as_empty() -> None:
    """An oddity of Minigrid: the agent's own cell shows what it carries, and nothing else."""
    pair = Pair("MiniGrid-DoorKey-8x8-v0", 1)
    pair.reset(0, seed=0)
    env = pair.stocks[0]
    env.grid.set(int(env.agent_pos[0]), int(env.agent_pos[1]), Door("red", is_open=True))
    pair.load()
    assert pair.env._observe()["image"][0, 3, 6].tolist() == [1, 0, 0]
    env.carrying = Key("blue")
    pair.load()
    assert pair.env._observe()["image"][0, 3, 6].tolist() == [5, 2, 0]


def test_pickup_does_nothing_in_memory() -> None:
    """An oddity of Minigrid: Memory takes `pickup` for `toggle`."""
    env = TableEnv("mtxl/MemoryS7Cue-v0", 16)
    env.reset()
    facing = env.step(torch.full((16,), int(Actions.left))).observation  # the cue is ahead
    assert torch.isin(facing["image"][:, 3, 5, 0], torch.tensor([5, 6])).all()
    for action in (Actions.pickup, Actions.drop, Actions.toggle, Actions.done):
        step = env.step(torch.full((16,), int(action)))
        assert torch.equal(step.observation["image"], facing["image"])
        assert not step.terminated.any()


def test_multi_room_n4_v0_has_six_rooms() -> None:
    """An oddity of Minigrid: N4 of version 0 has six rooms, of version 1 four."""
    for version, num_doors in ((0, 5), (1, 3)):
        env = envs.make(f"MiniGrid-MultiRoom-N4-S5-v{version}", 4, level_seeds=[0, 1, 2, 3])
        assert isinstance(env, GridEnv)
        env.reset()
        doors = ((env._buffers["cells"] & 0xFF) == 4).sum(dim=1)
        assert doors.tolist() == [num_doors] * 4


def take(pair: Pair, *actions: int) -> tuple[int, bool]:
    """Take actions in the only env of a pair; return successes, and if the last one ended it."""
    pair.load()
    done = [bool(pair.step([int(action)])[0]) for action in actions]
    assert not any(done[:-1])
    return pair.counts["successes"], done[-1]


def place(
    pair: Pair, pos: tuple[int, int], direction: int, things: dict[tuple[int, int], Any]
) -> Any:
    """Empty the room of the only env of a pair and put things and the agent into it."""
    pair.reset(0, seed=0)
    env: Any = pair.stocks[0]
    for x in range(1, env.width - 1):
        for y in range(1, env.height - 1):
            env.grid.set(x, y, things.get((x, y)))
    env.agent_pos, env.agent_dir = pos, direction
    return env


def test_go_to_object_rewards_the_place_after_the_object_is_gone() -> None:
    """An oddity of Minigrid: the target is where the object was at first."""
    pair = Pair("MiniGrid-GoToObject-6x6-N2-v0", 1)
    env = place(pair, (1, 1), 0, {(2, 1): Ball("red")})
    env.target_pos = (2, 1)
    assert take(pair, Actions.pickup, Actions.done) == (1, True)


def test_go_to_ends_at_toggle_and_at_done_far_from_the_target() -> None:
    for action in (Actions.toggle, Actions.done):
        pair = Pair("MiniGrid-GoToObject-6x6-N2-v0", 1)
        env = place(pair, (1, 1), 0, {(4, 4): Ball("red")})
        env.target_pos = (4, 4)
        assert take(pair, action) == (0, True)


def test_put_near_ends_at_a_drop_that_fails() -> None:
    """An oddity of Minigrid: `drop` with full hands ends the episode, dropped or not."""
    pair = Pair("MiniGrid-PutNear-6x6-N2-v0", 1)
    env = place(pair, (1, 1), 2, {(3, 1): Ball("red")})  # facing the wall
    env.target_pos, env.move_type, env.moveColor = (3, 1), "key", "blue"
    env.carrying = Key("blue")
    assert take(pair, Actions.drop) == (0, True)


def test_fetch_ends_with_whatever_is_picked_up() -> None:
    pair = Pair("MiniGrid-Fetch-5x5-N2-v0", 1)
    env = place(pair, (1, 1), 0, {(2, 1): Ball("red")})
    env.targetType, env.targetColor = "ball", "blue"
    assert take(pair, Actions.pickup) == (0, True)


def test_blue_door_first_is_a_failure() -> None:
    pair = Pair("MiniGrid-RedBlueDoors-6x6-v0", 1)
    pair.reset(0, seed=0)
    env: Any = pair.stocks[0]
    index = next(i for i, thing in enumerate(env.grid.grid) if thing is env.blue_door)
    env.agent_pos, env.agent_dir = (index % env.width - 1, index // env.width), 0
    assert take(pair, Actions.toggle) == (0, True)


def test_dynamic_obstacles_take_other_actions_for_left() -> None:
    """An oddity of Minigrid: an action that is not there turns the agent to the left."""
    pair = Pair(DYNAMIC, 1)
    for action in range(3, 7):
        pair.reset(0, seed=action)
        pair.load()
        pair.step([action])
        assert pair.stocks[0].agent_dir == 3


def test_a_collision_costs_one_even_if_the_obstacle_has_moved_on() -> None:
    """An oddity of Minigrid: what was ahead before the obstacles moved counts."""
    pair = Pair("MiniGrid-Dynamic-Obstacles-16x16-v0", 1)
    pair.reset(0, seed=0)
    env: Any = pair.stocks[0]
    ahead = tuple(map(int, env.front_pos))
    ball = env.obstacles[0]
    env.grid.set(*ball.cur_pos, None)
    env.grid.set(*ahead, ball)
    ball.cur_pos = ahead
    pair.load()
    step_reward = pair.env.step
    rewards: list[Tensor] = []

    def spy(actions: Tensor) -> EnvStep:
        step = step_reward(actions)
        rewards.append(step.reward)
        return step

    pair.env.step = spy  # type: ignore[method-assign]
    assert pair.step([int(Actions.forward)])[0]
    assert tuple(map(int, ball.cur_pos)) != ahead
    assert rewards[0].item() == -1


def test_obstacles_move_as_minigrids() -> None:
    """Where two obstacles are after a step, against Minigrid's own draws."""
    original = stock(DYNAMIC)
    assert isinstance(original, DynamicObstaclesEnv)
    original.reset(seed=3)
    num_envs = 20_000
    env = GridEnv(DYNAMIC, num_envs, seed=4, level_seeds=[0])
    env.reset()
    read = GridEnv(DYNAMIC, 1, level_seeds=[0])
    read.load([original])
    for name, buffer in read._buffers.items():
        if name not in ("episode", "step_count"):
            env._buffers[name].copy_(buffer.expand_as(env._buffers[name]))
    env.step(torch.zeros(num_envs, dtype=torch.int64))
    drawn = Counter(map(tuple, env._buffers["registers"].tolist()))
    start = [(int(ball.cur_pos[0]), int(ball.cur_pos[1])) for ball in original.obstacles]
    expected: Counter[tuple[int, ...]] = Counter()
    for _ in range(5000):
        for ball, pos in zip(original.obstacles, start, strict=True):
            original.grid.set(int(ball.cur_pos[0]), int(ball.cur_pos[1]), None)
            ball.cur_pos = pos
        for ball, pos in zip(original.obstacles, start, strict=True):
            original.grid.set(*pos, ball)
        original.agent_dir = 0
        original.step(0)
        expected[tuple(read._geometry.flat(*map(int, b.cur_pos)) for b in original.obstacles)] += 1
    assert len(drawn) > 10
    assert are_alike(drawn, expected)


# --- errors


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


@pytest.mark.parametrize(("kind", "env_id"), [(TableEnv, MEMORY), (GridEnv, MEMORY)])
def test_a_loaded_time_limit_is_that_of_one_episode(kind: type, env_id: str) -> None:
    original = stock(env_id)
    original.reset(seed=0)
    original.max_steps = 3
    env = kind(env_id, 1)
    env.load([original])
    ends = [bool(env.step(torch.tensor([0])).truncated) for _ in range(12)]
    assert ends == [time == 2 for time in range(12)]


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


def test_two_objects_that_look_like_the_target_are_refused() -> None:
    """Minigrid asks for the object itself, which a tensor cannot tell from its like."""
    env = gymnasium.make_vec("mtxl/MiniGrid-KeyCorridorS4R3-v0", obj_type="key", level_seeds=[6])
    with pytest.raises(ValueError, match=r"two \w+ keys, which tensors cannot tell apart"):
        env.reset()
    env.close()


def test_both_backends_go_on_at_a_second_reset() -> None:
    for backend in ("tensor", "gymnasium"):
        env = envs.make("MiniGrid-MemoryS17Random-v0", 16, backend=backend)
        assert (env.reset()["image"] != env.reset()["image"]).any()


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


# --- on a GPU


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


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
