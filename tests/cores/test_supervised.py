"""Supervised trials: their tasks, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.cores.core import core_config
from experiments.supervised import (
    NO_ANSWER,
    Stream,
    TrialConfig,
    play,
    recall_episode,
    train,
    xor_episode,
)


def test_recall_asks_for_the_last_value_of_each_cue() -> None:
    config = TrialConfig(task="rewrite", items=3, shows=4, max_gap=2)
    episode = recall_episode(config, np.random.default_rng(0), delay=5)
    last = {}
    for symbol in episode.symbols[:-3]:
        if symbol:
            last[(symbol - 1) // 2] = (symbol - 1) % 2
    assert episode.answers[-3:] == [last[kind] for kind in range(3)]
    assert episode.symbols[-3:] == [7, 8, 9]
    assert set(episode.answers[:-3]) == {NO_ANSWER}


def test_back_asks_for_the_symbol_of_so_many_steps_ago() -> None:
    symbols, resets, answers = Stream(TrialConfig(task="back", distance=3), 0, 2).take(20)
    assert torch.equal(answers[:, 3:], symbols[:, :-3])
    assert (answers[:, :3] == NO_ANSWER).all()
    assert resets.sum().item() == 2


def test_xor_asks_for_the_exclusive_or_of_cue_and_order() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        episode = xor_episode(TrialConfig(task="xor"), random)
        (cue,) = {symbol - 6 for symbol in episode.symbols if symbol in (6, 7)}
        assert episode.answers[-1] == cue ^ (episode.symbols[-1] - 8)


def test_updates_without_a_question_are_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    core = core_config(kind="gru", dim=8)
    config = TrialConfig(
        items=1, delays=(30,), num_steps=8, num_envs=2, updates=8, report_every=4, core=core
    )
    model = train(config, seed=1)
    assert "nan" not in capsys.readouterr().out
    assert 0 <= play(config, model, delay=3) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": 0}, "items=0 must be 1 or more; set --items"),
        ({"updates": 0}, "updates=0 must be 1 or more"),
        ({"episodes": 0}, "episodes=0 must be 1 or more"),
        ({"delays": (-5,)}, r"delays=\(-5,\) must be one or more numbers from 0"),
        ({"max_gap": -1}, "max_gap=-1 must be 0 or more"),
        ({"task": "xor", "num_steps": 8}, "num_steps=8 must be 20 or more for this task"),
    ],
)
def test_refuses_what_cannot_be_tried(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialConfig(**options)
