"""The package's own tasks."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env
from minigrid.core.actions import Actions
from minigrid.envs.memory import MemoryEnv

from envs.memory_tasks.recall import DELAYS, RecallEnv, recall_options
from envs.memory_tasks.t_maze import TMazeEnv, doubled
from envs.registry import check_id

IDS = [
    *(f"mtxl/Recall{n}-v0" for n in (*DELAYS, "3to20", "3to20x2", "5x63", "3to20x3gap4shows4")),
    *(f"mtxl/TMaze{n}{variant}-v0" for n in (7, 10, 300) for variant in ("", "Active")),
    *(f"mtxl/MemoryS{size}{variant}-v0" for size in (7, "9to13") for variant in ("", "RandomCue")),
]


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.filterwarnings("ignore:.*Box")
def test_is_a_valid_gymnasium_environment(env_id: str) -> None:
    check_id(env_id)
    check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("delay", [0, 1, 6])
def test_recall_shows_the_cue_once_and_rewards_it_at_the_end(delay: int) -> None:
    env = RecallEnv([delay])
    cues = set()
    for seed in range(20):
        cue, _ = env.reset(seed=seed)
        cues.add(cue)
        answer = cue if seed % 2 else 1 - cue
        steps = [env.step(answer) for _ in range(delay + 2)]
        assert [step[0] for step in steps] == [2] * delay + [3, 3]
        assert [step[2] for step in steps] == [False] * (delay + 1) + [True]
        assert not any(step[3] for step in steps)
        _, reward, _, _, info = steps[-1]
        assert reward == seed % 2
        assert info == {"is_success": bool(seed % 2)}
    assert cues == {0, 1}


@pytest.mark.parametrize(("delay", "num_items"), [(0, 2), (3, 1), (3, 8)])
def test_recall_asks_for_each_cue_in_turn(delay: int, num_items: int) -> None:
    env = RecallEnv([delay], num_items)
    codes = set()
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        shown = [observation]
        codes_in_view = [env.cue_in_view]
        for _ in range(num_items + delay):
            observation, reward, *ends, _ = env.step(seed % 2)  # not an answer
            assert (reward, ends) == (0, [False, False])
            shown.append(observation)
            codes_in_view.append(env.cue_in_view)
        cues = [int(cue) for cue in shown[:num_items]]
        assert shown[num_items:] == [2] * delay + [3]
        code = sum(cue << place for place, cue in enumerate(cues))
        others = [-1] * (num_items + delay)
        expected = [*others[: num_items - 1], code, *others[num_items - 1 :]]
        assert codes_in_view == expected
        codes.add(code)

        wrong = seed % (num_items + 1)  # the question to answer wrongly; at num_items none
        steps = [env.step(cue if i != wrong else 1 - cue) for i, cue in enumerate(cues)]
        assert [step[0] for step in steps[:-1]] == list(range(4, 3 + num_items))
        assert [step[1] for step in steps] == [(i != wrong) / num_items for i in range(num_items)]
        assert [step[2] for step in steps] == [False] * (num_items - 1) + [True]
        assert steps[-1][4] == {"is_success": wrong == num_items}
    assert len(codes) > 1


def test_recall_shows_blank_steps_between_cues() -> None:
    env = RecallEnv([1], num_items=3, max_gap=2)
    patterns = set()
    for seed in range(60):
        shown = [env.reset(seed=seed)[0], *(env.step(0)[0] for _ in range(env.questions_at))]
        times = [time for time, symbol in enumerate(shown) if symbol < 2]
        assert shown[-2:] == [2, 3]  # one blank step, and the first question
        assert len(times) == 3
        assert times[0] == 0
        assert times[-1] == len(shown) - 3
        assert [shown[time] for time in times] == env.answers
        patterns.add(tuple(np.diff(times) - 1))
    assert len(patterns) == 3**2


def test_recall_asks_for_the_last_value_of_each_kind() -> None:
    env = RecallEnv([2], num_items=2, num_shows=3)
    orders = set()
    for seed in range(200):
        shown = [env.reset(seed=seed)[0]]
        codes = [env.cue_in_view]
        for _ in range(6 + 2):
            shown.append(env.step(0)[0])
            codes.append(env.cue_in_view)
        cues = [int(cue) for cue in shown[:6]]
        assert shown[6:] == [4, 4, 5]
        assert sorted(cue // 2 for cue in cues) == [0, 0, 0, 1, 1, 1]
        last = {cue // 2: cue % 2 for cue in cues}
        assert codes == [-1] * 5 + [last[0] + 2 * last[1]] + [-1] * 3
        steps = [env.step(last[kind]) for kind in (0, 1)]
        assert [step[0] for step in steps] == [6, 6]
        assert [step[1] for step in steps] == [0.5, 0.5]
        assert steps[-1][4] == {"is_success": True}
        orders.add(tuple(cue // 2 for cue in cues))
    assert len(orders) == 20  # 6 choose 3


def test_what_recall_can_do_leaves_the_episodes_of_a_seed_alone() -> None:
    """Those of before gaps and rewriting: a delay and the cues are drawn, and nothing else."""
    env = RecallEnv((3, 6, 12), 4)
    env.reset(seed=5)
    for _ in range(3):
        env.reset()
    rng, _ = seeding.np_random(5)
    drawn = [(rng.choice((3, 6, 12)), rng.integers(2, size=4).tolist()) for _ in range(4)]
    assert (env.delay, env.answers) == drawn[-1]


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        ("mtxl/Recall0-v0", ((0,), 1, 0, 1)),
        ("mtxl/Recall20x8-v0", ((20,), 8, 0, 1)),
        ("mtxl/Recall10to160-v0", ((10, 20, 40, 80, 160), 1, 0, 1)),
        ("mtxl/Recall10to40x4gap12-v0", ((10, 20, 40), 4, 12, 1)),
        ("mtxl/Recall10to20x3gap4shows5-v0", ((10, 20), 3, 4, 5)),
        ("mtxl/Recall30000x3shows5-v0", ((30000,), 3, 0, 5)),
        ("mtxl/Recall7shows2-v0", ((7,), 1, 0, 2)),
    ],
)
def test_ids_of_recall_name_its_options(env_id: str, options: tuple[Any, ...]) -> None:
    check_id(env_id)
    env: Any = gymnasium.make(env_id).unwrapped
    assert (env.delays, env.num_items, env.max_gap, env.num_shows) == options
    assert tuple(recall_options(env_id).values()) == options  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "06",
            r"env='mtxl/Recall06-v0' must be mtxl/Recall\{first\}.* without leading zeros; write",
        ),
        ("6x08", "must be .* without leading zeros"),
        ("6to", "must be .* in this order"),
        ("6gap2x3", "must be .* in this order"),
        ("6x3gap-2", "must be .* in this order"),
        ("6.5", "must be .* in this order"),
        ("40to10", "names sizes from 40 to 10; swap them"),
        ("6x3shows0", "num_shows=0 must be from 1 to 100; raise num_shows"),
        ("6x3shows101", "num_shows=101 must be from 1 to 100; lower num_shows"),
        ("6gap3", "max_gap=3 must be 0 where one cue is shown once: .*; leave it out, or raise"),
        ("6x2gap1000001", "max_gap=1000001 must be from 0 to 1000000; lower max_gap"),
        ("10000000000000000000000", "delay=10000000000000000000000 must be from 0 to 1000000"),
    ],
)
def test_ids_that_are_none_of_recall_say_what_is(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_id(f"mtxl/Recall{name}-v0")


@pytest.mark.parametrize("env_id", ["mtxl/Recall-v0", "mtxl/RecallOther-v0", "CartPole-v1"])
def test_other_ids_are_not_of_recall(env_id: str) -> None:
    assert recall_options(env_id) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delays": ()}, "delays is empty; name one delay or more"),
        ({"num_items": 2, "max_gap": -1}, "max_gap=-1 must be from 0 to 1000000; raise max_gap"),
        ({"num_shows": 0}, "num_shows=0 must be from 1 to 100; raise num_shows"),
    ],
)
def test_recall_rejects_options_that_make_no_task(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecallEnv(**options)


def walk(env: TMazeEnv, seed: int, turn: int) -> tuple[bool, float, list[np.ndarray]]:
    """Walk to the T, turn, step; return whether the cue was a key, the reward, and all images."""
    observation, _ = env.reset(seed=seed)
    actions = [Actions.forward] * env.length + [turn, Actions.forward]
    steps = [env.step(int(action)) for action in actions]
    images = [observation["image"], *(step[0]["image"] for step in steps)]
    _, reward, terminated, truncated, _ = steps[-1]
    assert terminated
    assert not truncated
    types = images[0][..., 0]
    return bool((types == 5).any()), float(reward), images


def test_t_maze_pays_for_the_turn_that_the_cue_tells() -> None:
    env = TMazeEnv(lengths=(10,))
    seen = set()
    for seed in range(20):
        for turn in (Actions.left, Actions.right):
            was_key, reward, _ = walk(env, seed, turn)
            seen.add(was_key)
            is_right = was_key == (turn == Actions.left)
            num_steps = 10 + 2
            assert reward == (1 - 0.9 * num_steps / env.max_steps if is_right else 0)
    assert seen == {True, False}


def test_t_maze_shows_the_cue_at_the_first_step_only() -> None:
    """On the way to the T nothing but the first image tells a key from a ball."""
    env = TMazeEnv(lengths=(10,))
    walks = [walk(env, seed, Actions.left) for seed in range(20)]
    images_by_cue = {was_key: images for was_key, _, images in walks}
    key, ball = images_by_cue[True], images_by_cue[False]
    assert (key[0] != ball[0]).any()
    for key_image, ball_image in zip(key[1:], ball[1:], strict=True):
        assert (key_image == ball_image).all()


def test_the_cue_is_out_of_view_from_the_t_in_every_direction() -> None:
    for length in (7, 10):
        env = TMazeEnv(lengths=(length,))
        env.reset(seed=0)
        for _ in range(length):
            env.step(int(Actions.forward))
        for _ in range(4):
            types = env.step(int(Actions.left))[0]["image"][..., 0]
            assert not np.isin(types, (5, 6)).any()


def test_the_cue_cannot_be_picked_up() -> None:
    env = TMazeEnv(lengths=(10,))
    env.reset(seed=0)
    env.step(int(Actions.left))
    types = env.step(int(Actions.pickup))[0]["image"][..., 0]
    assert np.isin(types, (5, 6)).sum() == 1
    assert env.carrying is None


@pytest.mark.parametrize(("task", "size"), [(RecallEnv, (-1,)), (TMazeEnv, (6,))])
def test_rejects_sizes_that_make_no_task(task: type, size: Any) -> None:
    with pytest.raises(ValueError, match=r"=(-1|6) must be"):
        task(size)


@pytest.mark.parametrize("num_items", [0, 64])
def test_rejects_numbers_of_cues_that_make_no_task(num_items: int) -> None:
    with pytest.raises(ValueError, match=rf"num_items={num_items} must be from 1 to 63"):
        RecallEnv([6], num_items)
    with pytest.raises(ValueError, match=rf"num_items={num_items} must be from 1 to 63"):
        check_id(f"mtxl/Recall6x{num_items}-v0")


def test_lengths_double_up_to_the_last() -> None:
    assert doubled(10, 80) == (10, 20, 40, 80)
    assert doubled(10, 100) == (10, 20, 40, 80, 100)
    assert doubled(10, 10) == (10,)
    assert doubled(0, 5) == (0, 1, 2, 4, 5)
    env = TMazeEnv(doubled(7, 20))
    limits = set()
    for seed in range(20):
        env.reset(seed=seed)
        assert env.max_steps == 8 * (env.length + 4)
        assert env.grid.width == env.length + 3
        limits.add(env.length)
    assert limits == {7, 14, 20}


def test_recall_draws_one_of_its_delays() -> None:
    env = RecallEnv((1, 3))
    drawn = set()
    for seed in range(20):
        env.reset(seed=seed)
        drawn.add(env.delay)
        for step in range(env.delay + 2):
            assert env.step(0)[2] == (step == env.delay + 1)
    assert drawn == {1, 3}


@pytest.mark.parametrize(("size", "needs_memory"), [(7, False), (9, False), (11, True), (13, True)])
def test_which_memory_task_shows_the_cue_with_an_end(size: int, needs_memory: bool) -> None:
    """Up to size 9 the cue and both ends are in one view, facing west at the junction."""
    env = gymnasium.make(f"MiniGrid-MemoryS{size}-v0").unwrapped
    assert isinstance(env, MemoryEnv)
    env.reset(seed=0)
    middle, junction = size // 2, size - 2
    cue, ends = (1, middle - 1), [(junction, middle - 2), (junction, middle + 2)]
    empty = [(x, y) for x in range(size) for y in range(size) if env.grid.get(x, y) is None]
    places = set()
    for place in empty:
        for direction in range(4):
            env.agent_pos, env.agent_dir = place, direction
            if env.agent_sees(*cue) and any(env.agent_sees(*end) for end in ends):
                places.add((place, direction))
    assert (not places) == needs_memory
    env.agent_pos, env.agent_dir = (junction, middle), 2
    assert all(env.agent_sees(*place) for place in (cue, *ends)) != needs_memory
