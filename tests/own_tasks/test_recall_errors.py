"""What Recall as tensors refuses, and in which words."""

from __future__ import annotations

import gymnasium
import pytest
import torch
from recall_forms import MIXED, original, tensors
from wrong_actions import refuses_wrong_actions

import envs
from envs.memory_tasks.recall import RecallEnv


class OtherRecallEnv(RecallEnv):
    """Recall by rules of its own."""


def test_wrong_actions_are_named_and_change_nothing() -> None:
    env = tensors(MIXED, 3)
    refuses_wrong_actions(env, highest=1, named="answer 0, answer 1")


def test_states_that_do_not_fit_are_named_and_change_nothing() -> None:
    env = tensors(MIXED, 3)
    with pytest.raises(ValueError, match="no episode has started; call reset"):
        env.step(torch.zeros(3, dtype=torch.int64))
    env.reset()
    before = env.state_dict()
    others = {
        r"state\['.*'\] is \(2,.*num_envs": tensors(MIXED, 2),
        "the state is of another environment, other options": tensors(MIXED, 3, level_seeds=[1]),
        r"state\['cue_times'\] is \(3, 9\)": tensors("mtxl/Recall1to8x3gap2shows3-v0", 3),
        "of another environment, other options or": tensors("mtxl/Recall1to9x3gap2shows2-v0", 3),
    }
    for message, other in others.items():
        other.reset()
        with pytest.raises(ValueError, match=message):
            env.load_state_dict(other.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in env.state_dict().items())


def test_load_names_what_does_not_fit() -> None:
    env = tensors("mtxl/Recall2x2-v0", 1)
    single = original("mtxl/Recall2x2-v0")
    with pytest.raises(ValueError, match="an environment without an episode; reset"):
        env.load([single])
    single.reset(seed=0)
    with pytest.raises(ValueError, match=r"load was given 2 environments; .*num_envs=1"):
        env.load([single, single])
    for _ in range(2 + 2 + 2):
        single.step(0)
    with pytest.raises(ValueError, match="an environment without an episode; reset"):
        env.load([single])
    other = original("mtxl/Recall2x3-v0")
    other.reset(seed=0)
    with pytest.raises(ValueError, match="with num_items=3, but this batch has num_items=2; pass"):
        env.load([other])
    with pytest.raises(ValueError, match="given a OtherRecallEnv, but this batch is of RecallEnv"):
        env.load([OtherRecallEnv((2,), 2)])


def test_it_draws_no_pictures_and_says_so() -> None:
    with pytest.raises(
        ValueError, match=r"'mtxl/Recall6-v0' does not draw pictures as 'rgb_array'"
    ):
        envs.make("mtxl/Recall6-v0", 1, render_mode="rgb_array")
    with pytest.raises(ValueError, match="does not draw pictures as 'rgb_array'"):
        gymnasium.make_vec("mtxl/Recall6-v0", num_envs=2, render_mode="rgb_array")
    with pytest.raises(
        ValueError, match=r"mtxl/Recall.* draws no pictures; use an environment that does"
    ):
        envs.make("mtxl/Recall6-v0", 1).render(0)
