"""Evaluation starts its episodes at several steps of a segment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recall_env import RecallEnv

from agents.actor_critic import ActorCritic, Player
from agents.cores.core import core_config
from envs import EnvStep
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.evaluations import evaluation
from mtxl_rl.evaluations.evaluation import evaluate_agent, play, start_places


def make_agent(env: Any, kind: Any = "mtxl", **options: Any) -> ActorCritic:
    torch.manual_seed(0)
    memory: dict[str, Any] = {"seq_len": 8, "mem_len": 2, "heads": 2}
    options = (memory if kind in ("mtxl", "gtrxl") else {}) | options
    config = core_config(kind=kind, dim=8, depth=1, past_action=False, **options)
    return ActorCritic(env.observation_space, env.action_space, config)


@pytest.mark.parametrize(
    ("kind", "seq_len", "episodes", "places"),
    [
        ("mtxl", 16, 200, [0, 4, 8, 12]),
        ("gtrxl", 6, 200, [0, 1, 3, 4]),
        ("mtxl", 2, 200, [0, 1]),
        ("mtxl", 16, 5, [0, 8]),
        ("mtxl", 16, 1, [0]),
        ("gru", None, 200, [0]),
    ],
)
def test_places_are_spread_over_the_segment(
    kind: str, seq_len: int | None, episodes: int, places: list[int]
) -> None:
    options = {} if seq_len is None else {"seq_len": seq_len}
    assert start_places(make_agent(RecallEnv(1, delay=2), kind, **options), episodes) == places


def spy(
    monkeypatch: pytest.MonkeyPatch, agent: ActorCritic, env: RecallEnv, place: int
) -> list[tuple[int, bool, torch.Tensor]]:
    """Play one episode in each env; return position, reset and value of each step of the agent."""
    seen = []
    original = Player.step

    def step(player: Player, inputs: Any) -> Any:
        position = player.state.position
        policy, value = original(player, inputs)
        seen.append((position, bool(inputs.reset.all()), value))
        return policy, value

    monkeypatch.setattr(Player, "step", step)
    play(agent, env, EvaluateConfig(episodes=env.num_envs), place)
    monkeypatch.undo()
    return seen


def test_an_episode_starts_at_its_place_and_sees_nothing_earlier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = RecallEnv(3, delay=2, is_staggered=False)  # episodes of 4 steps
    agent = make_agent(env)
    seen = spy(monkeypatch, agent, env, place=5)
    assert [(position, reset) for position, reset, _ in seen] == [
        *((step, True) for step in range(5)),  # on the way to the place
        (5, True), (6, False), (7, False), (0, False),
    ]  # fmt: skip
    first = [
        value
        for _, _, value in spy(monkeypatch, agent, RecallEnv(3, 2, is_staggered=False), place=0)
    ]
    torch.testing.assert_close(seen[5][2], first[0])
    torch.testing.assert_close(seen[7][2], first[2])  # before a write the place makes no difference


@pytest.mark.parametrize("memory", ["kept", "swapped-long"])
def test_all_episodes_are_played_between_the_places(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_id = "mtxl/Recall20-v0"
    agent = make_agent(evaluation.envs.make(env_id, 1))
    played: list[tuple[int, int, int]] = []

    def recorded(
        agent: ActorCritic, env: Any, config: EvaluateConfig, place: int, watch: Any, bound: int
    ) -> Any:
        played.append((config.episodes, env.num_envs, place))
        return play(agent, env, config, place, watch, bound)

    monkeypatch.setattr(evaluation, "play", recorded)
    options = EvaluateConfig(episodes=10, num_envs=2, memory=memory)
    evaluated = evaluate_agent(agent, env_id, options).episodes
    assert evaluated == 10 if memory == "kept" else 0 < evaluated <= 10  # those that received
    assert played == [(3, 2, 0), (3, 2, 2), (2, 2, 4), (2, 2, 6)]


class PoisonedEnv(RecallEnv):
    """Gives a reward that is not finite, at one step of one env."""

    def __init__(self, num_envs: int, poison: float):
        super().__init__(num_envs, delay=2, is_staggered=False)
        self.poison, self.step_number = poison, -1

    def step(self, actions: torch.Tensor) -> EnvStep:
        step = super().step(actions)
        self.step_number += 1
        if self.step_number == 5:
            step.reward[2] = self.poison
        return step


@pytest.mark.parametrize("poison", [float("nan"), float("-inf")])
def test_says_once_what_is_not_finite_where_and_in_how_many_episodes(
    poison: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = PoisonedEnv(1, poison)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(dim=8, heads=2))
    monkeypatch.setattr(
        evaluation.envs, "make", lambda _, num_envs, **options: PoisonedEnv(num_envs, poison)
    )
    # four shares of eight episodes, two of each env, and the second of env 2 is damaged
    message = f"reward is {poison} in env 2, from step 5 of the evaluation on: 4 of 32 episodes"
    with pytest.warns(RuntimeWarning, match=message) as warned:
        evaluated = evaluate_agent(agent, "any", EvaluateConfig(episodes=32, num_envs=4))
    assert len(warned) == 1
    assert evaluated.episodes == 32
