"""An evaluation from all starts: each once for each step of the segment, and exact."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import core_config
from envs.grids.table_env import TableEnv
from mtxl_rl.config import EvaluateConfig
from mtxl_rl.evaluations import evaluation
from mtxl_rl.runs.metrics import Episodes

pytestmark = pytest.mark.usefixtures("without_interventions")


def test_all_starts_are_played_once_for_each_step_of_the_segment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S7 has 4 levels x 4 starts; the mean is that of the episodes, by how often they begin so."""
    env = envs.make("mtxl/MemoryS7to11Random-v0", 1)
    agent = ActorCritic(
        env.observation_space,
        env.action_space,
        core_config(dim=8, heads=2, depth=1, seq_len=3, mem_len=2),
    )
    seen: list[torch.Tensor] = []
    places: list[int] = []

    def play(_: Any, env: Any, config: EvaluateConfig, place: int) -> Episodes:
        env.reset()
        seen.append(env._buffers["state"].clone())
        places.append(place)
        success = (torch.arange(config.episodes) == 5).numpy().astype(float)
        unknown = success * math.nan
        return Episodes(success, success, success + 1, unknown, success > 1)

    monkeypatch.setattr(evaluation, "play", play)
    config = EvaluateConfig(all_starts=True)
    result = evaluation.evaluate_agent(agent, "mtxl/MemoryS7to11Random-v0", config)
    assert isinstance(env, TableEnv)
    shares = env.start_shares
    assert shares.sum() == pytest.approx(1)
    assert len(set(shares.tolist())) > 1  # they are not drawn equally often
    assert places == [0, 1, 2]
    for states in seen:
        assert sorted(states.tolist()) == sorted(env._table.starts.tolist())
    assert result.success_rate == pytest.approx(float(shares[5]), rel=1e-6)
    assert result.success_interval is None
    assert result.return_interval is None
    assert result.episodes == 3 * len(shares)


def test_all_starts_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greedy agent gets the same figure whatever the seed."""
    env = envs.make("MiniGrid-MemoryS7-v0", 1)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(kind="gru", dim=8))
    results = [
        evaluation.evaluate_agent(
            agent,
            "MiniGrid-MemoryS7-v0",
            EvaluateConfig(all_starts=True, greedy=True, seed=seed, env_kwargs={"max_steps": 20}),
        )
        for seed in (1, 2)
    ]
    assert results[0] == results[1]
    assert results[0].episodes == 16
    with pytest.raises(ValueError, match="mtxl/Recall2-v0 has no known number of starts"):
        evaluation.evaluate_agent(agent, "mtxl/Recall2-v0", EvaluateConfig(all_starts=True))
    with pytest.raises(ValueError, match="episodes=3 has no effect with all_starts=True"):
        EvaluateConfig(all_starts=True, episodes=3)
