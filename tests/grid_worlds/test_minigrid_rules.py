"""Minigrid's rules and oddities, step by step against Minigrid itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from chi_squared import are_alike
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall, WorldObj
from minigrid.envs.dynamicobstacles import DynamicObstaclesEnv
from stock_pair import Pair, stock
from tensor_grids import DYNAMIC
from torch import Tensor

import envs
from envs.batched_env import EnvStep
from envs.grids.grid_env import GridEnv
from envs.grids.table_env import TableEnv


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
    for round_ in range(6):
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
