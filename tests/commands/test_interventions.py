"""Interventions change the part of the memory that they name, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from recall_env import RecallEnv

from agents.actor_critic import ActorCritic, Player
from agents.cores.core import core_config
from agents.learning.rollout import Carry, act, start
from mtxl_rl.config import Memory
from mtxl_rl.evaluations.interventions import Intervention, InterventionError, fitting_interventions

NUM_ENVS = 14
SEQ_LEN = 3


def make_agent(kind: Any = "mtxl", **options: Any) -> ActorCritic:
    torch.manual_seed(0)
    env = RecallEnv(NUM_ENVS, delay=9)
    memory: dict[str, Any] = {"seq_len": SEQ_LEN, "mem_len": 4, "heads": 2}
    options = (memory if kind in ("mtxl", "gtrxl") else {}) | options
    config = core_config(kind=kind, dim=8, depth=1, **options)
    return ActorCritic(env.observation_space, env.action_space, config)


def play(agent: ActorCritic, num_steps: int) -> tuple[RecallEnv, Player, Carry]:
    env = RecallEnv(NUM_ENVS, delay=9, is_staggered=False)
    carry = start(agent, env)
    player = agent.player(carry.state)
    for _ in range(num_steps):
        carry, _ = act(player, env.step, carry)
    return env, player, carry


@pytest.mark.parametrize(
    ("memory", "field"), [("without-short", "short_valid"), ("without-long", "long_valid")]
)
def test_empties_one_memory(memory: Memory, field: str) -> None:
    agent = make_agent()
    _, player, carry = play(agent, 2 * SEQ_LEN)
    before, value = player.state.to_dict(), player.peek(carry.inputs)
    assert Intervention(memory, agent, True, NUM_ENVS)(player, carry) is carry
    after = player.state.to_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == (name != field)
    assert before[field].all()
    assert not after[field].any()
    assert not torch.allclose(value, player.peek(carry.inputs))


@pytest.mark.parametrize("memory", ["without-short", "without-long"])
def test_a_memory_stays_empty_at_every_step(memory: Memory) -> None:
    agent = make_agent()
    env, player, carry = play(agent, 0)
    intervene = Intervention(memory, agent, True, NUM_ENVS)
    for _ in range(4 * SEQ_LEN):
        carry = intervene(player, carry)
        is_seen = player.state.to_dict()[
            "short_valid" if memory == "without-short" else "long_valid"
        ]
        assert not is_seen.any()
        carry, _ = act(player, env.step, carry)


def test_swaps_the_long_memory_of_odd_envs_for_one_with_another_cue() -> None:
    agent = make_agent()
    env, player, carry = play(agent, SEQ_LEN)
    intervene = Intervention("swapped-long", agent, True, NUM_ENVS)
    before, value = player.state.long, player.peek(carry.inputs)
    intervene(player, carry)
    after = player.state.long
    cues = env._cue
    assert intervene.plays.tolist() == [False, True] * (NUM_ENVS // 2)
    assert torch.equal(after[::2], before[::2])
    for row in range(1, NUM_ENVS, 2):
        donors = [d for d in range(0, NUM_ENVS, 2) if cues[d] != cues[row]]
        assert any(torch.equal(after[row], before[donor]) for donor in donors)
    assert torch.equal(intervene.has_acted, intervene.plays)
    assert not torch.allclose(value[1::2], player.peek(carry.inputs)[1::2])


def test_swaps_for_any_other_where_no_cue_is_known() -> None:
    agent = make_agent()
    _, player, carry = play(agent, SEQ_LEN)
    carry = replace(carry, cue=torch.full_like(carry.cue, -1))
    intervene = Intervention("swapped-long", agent, False, NUM_ENVS)
    assert torch.equal(intervene.has_acted, intervene.plays)  # short episodes count, too
    before = player.state.long
    assert intervene.is_idle
    intervene(player, carry)
    after = player.state.long
    assert not intervene.is_idle
    assert torch.equal(after[::2], before[::2])
    for row in range(1, NUM_ENVS, 2):
        assert any(torch.equal(after[row], donor) for donor in before[::2])


def test_swaps_only_what_has_been_written_with_a_cue() -> None:
    agent = make_agent()
    for num_steps in (0, SEQ_LEN + 1):
        _, player, carry = play(agent, num_steps)
        intervene = Intervention("swapped-long", agent, True, NUM_ENVS)
        before = player.state.long
        intervene(player, carry)
        assert torch.equal(player.state.long, before)
        assert not intervene.has_acted.any()


def test_an_episode_that_ends_has_received_nothing_afterwards() -> None:
    agent = make_agent()
    intervene = Intervention("swapped-long", agent, True, NUM_ENVS)
    env, player, carry = play(agent, SEQ_LEN)
    carry = intervene(player, carry)
    for _ in range(env.length - SEQ_LEN):
        assert intervene.has_acted.any()
        carry, _ = act(player, env.step, carry)
        carry = intervene(player, carry)
    assert carry.inputs.reset.all()
    assert not intervene.has_acted.any()


def test_knows_what_an_agent_has() -> None:
    assert fitting_interventions(make_agent()) == [
        "cleared", "without-short", "without-long", "swapped-long",
    ]  # fmt: skip
    assert fitting_interventions(make_agent(lmem_len=0)) == ["cleared", "without-short"]
    assert fitting_interventions(make_agent(mem_len=0, lmem_len=0)) == ["cleared"]
    assert fitting_interventions(make_agent("gru")) == ["cleared"]
    assert fitting_interventions(make_agent("feedforward")) == []


def test_says_what_cannot_be_done() -> None:
    with pytest.raises(InterventionError, match="set --memory to kept or cleared or without-short"):
        Intervention("without-long", make_agent("gtrxl"), True, 2)
    with pytest.raises(InterventionError, match="needs two envs or more that play at once, not 1"):
        Intervention("swapped-long", make_agent(), True, 1)
