"""What an episode of Recall as tensors draws: delays, gaps, orders and values, all alike."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import torch
from chi_squared import are_alike
from recall_forms import original, tensors
from torch import Tensor


def episodes(env_id: str, num_envs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return cue times, cue symbols and delays of the second episode of many envs."""
    env = tensors(env_id, num_envs, seed=1)
    env.reset()
    env.reset()
    state = env.state_dict()
    delays = state["questions_at"] - 1 - state["cue_times"][:, -1]
    return state["cue_times"], state["cue_symbols"], delays


def is_uniform(drawn: Tensor, outcomes: list[Any]) -> bool:
    """Tell whether rows are drawn uniformly from all of some outcomes."""
    counts = Counter(tuple(row) for row in drawn.tolist())
    assert set(counts) == {tuple(outcome) for outcome in outcomes}
    share = len(drawn) // len(outcomes)
    return are_alike(counts, Counter({tuple(outcome): share for outcome in outcomes}))


def test_delays_are_drawn_alike() -> None:
    delays = episodes("mtxl/Recall10to160-v0", 20_000)[2]
    assert is_uniform(delays.unsqueeze(1), [[10], [20], [40], [80], [160]])


def test_gaps_are_drawn_alike_and_alone() -> None:
    times = episodes("mtxl/Recall5x4gap2-v0", 20_000)[0]
    assert (times[:, 0] == 0).all()
    assert is_uniform(times.diff() - 1, list(product(range(3), repeat=3)))


def test_values_are_drawn_alike_and_alone() -> None:
    symbols = episodes("mtxl/Recall5x4-v0", 20_000)[1]
    assert is_uniform(symbols, list(product(range(2), repeat=4)))


def test_orders_and_values_of_rewriting_are_drawn_alike() -> None:
    """Of two kinds, each shown twice: every order with every four values, 96 outcomes."""
    symbols = episodes("mtxl/Recall5x2shows2-v0", 60_000)[1]
    orders = [order for order in product(range(2), repeat=4) if sum(order) == 2]
    outcomes = [
        [2 * kind + value for kind, value in zip(order, values, strict=True)]
        for order in orders
        for values in product(range(2), repeat=4)
    ]
    assert is_uniform(symbols, outcomes)


def test_episodes_are_distributed_as_the_gymnasium_forms() -> None:
    """Delay, gaps, order and values together; the values of the gaps are few here."""
    env_id = "mtxl/Recall1to2x2gap1shows2-v0"
    times, symbols, delays = episodes(env_id, 30_000)
    single = original(env_id)
    expected: Counter[tuple[int, ...]] = Counter()
    single.reset(seed=0)
    for _ in range(30_000):
        single.reset()
        delay = single.questions_at - 1 - single.cue_times[-1]
        # one of 16 gap patterns and delays, and the kinds in their order
        expected[
            delay, *np.diff(single.cue_times).tolist(), *(s // 2 for s in single.cue_symbols)
        ] += 1
    columns = torch.cat([delays.unsqueeze(1), times.diff(), symbols // 2], dim=1)
    drawn = Counter(tuple(row) for row in columns.tolist())
    assert len(drawn) == 2 * 2**3 * 6
    assert are_alike(drawn, expected)


def test_the_last_value_of_each_kind_counts() -> None:
    env = tensors("mtxl/Recall5x3gap2shows4-v0", 500, seed=2)
    env.reset()
    state = env.state_dict()
    for symbols, answers in zip(state["cue_symbols"].tolist(), state["answers"], strict=True):
        last = {symbol // 2: symbol % 2 for symbol in symbols}
        assert sum(value << kind for kind, value in last.items()) == answers


def test_episodes_of_an_env_and_of_two_envs_have_nothing_in_common() -> None:
    env = tensors("mtxl/Recall5x63-v0", 500, seed=3)
    env.reset()
    before = env.state_dict()["cue_symbols"].double()
    env.reset()
    after = env.state_dict()["cue_symbols"].double()
    for pair in ((before, after), (before[1:], before[:-1])):
        share = (pair[0] == pair[1]).double().mean()
        assert abs(share - 0.5) < 4 * 0.5 / (499 * 63) ** 0.5
