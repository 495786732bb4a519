"""What runs on a GPU leaves no tensor on the CPU and reads no number: checked without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_device import DEVICE, fake_device, move_
from gymnasium import spaces
from small_trainer import make_trainer

import envs
from agents.actor_critic import ActorCritic
from agents.cores.core import CORES, CoreKind, core_config
from agents.learning.finite import is_finite
from agents.learning.rollout import collect_on_device
from agents.trees import map_tensors
from envs.tensor_env import TensorEnv

IDS = [
    "MiniGrid-MemoryS7-v0", "MiniGrid-DoorKey-5x5-v0", "MiniGrid-Fetch-5x5-N2-v0",
    "MiniGrid-Dynamic-Obstacles-5x5-v0", "MiniGrid-KeyCorridorS3R1-v0",
    "MiniGrid-ObstructedMaze-1Dlhb-v0", "mtxl/MemoryS9to17RandomCue-v0", "mtxl/TMaze10Active-v0",
    "mtxl/Junctions6to12x2-v0", "mtxl/Recall6-v0", "mtxl/Recall1to8x3gap2shows2-v0",
    "mtxl/EndlessTMaze5to20x8-v0", "mtxl/MortarMayhem-Grid-v0",
    "mtxl/Endless-MortarMayhem-Grid-v0",
    *(f"mtxl/popgym-{task}Easy-v0" for task in (
        "RepeatFirst", "RepeatPrevious", "Autoencode", "CountRecall", "Concentration",
        "HigherLower", "Battleship", "MineSweeper", "MultiarmedBandit", "PositionOnlyCartPole",
        "VelocityOnlyCartpole", "NoisyPositionOnlyCartPole", "PositionOnlyPendulum",
        "NoisyPositionOnlyPendulum",
    )),
]  # fmt: skip


def on_device(env_id: str, num_envs: int = 4) -> Any:
    """Return an env that has started, and is to be stepped within `fake_device`."""
    env: Any = envs.make(env_id, num_envs, seed=1)
    assert isinstance(env, TensorEnv)
    env.reset()
    env.prototype.close()
    with fake_device():
        move_(env)
    env._on_host = False
    return env


def random_action(env: Any) -> torch.Tensor:
    sampled = torch.as_tensor(env.action_space.sample())
    return torch.empty((env.num_envs, *sampled.shape), dtype=sampled.dtype, device=DEVICE)


@pytest.mark.parametrize("env_id", IDS)
def test_a_step_of_an_environment_is_all_on_its_device(env_id: str) -> None:
    env = on_device(env_id)
    with fake_device():
        for _ in range(2):
            step = env.device_step(random_action(env))
            assert step.final_observation is not None
            for tensor in (step.reward, *step.observation.values()):
                assert tensor.device == DEVICE


CONFIGURATIONS: list[tuple[CoreKind, dict[str, Any]]] = [
    *((kind, {}) for kind in CORES),
    *(("mtxl", {"mem_write": write}) for write in ("parts", "seed")),
    ("mtxl", {"gate": "nbrc", "mogrify": True, "num_mem_kv": 2, "memory_layers": (2,)}),
]  # fmt: skip


@pytest.mark.unchecked
@pytest.mark.parametrize(("kind", "options"), CONFIGURATIONS, ids=str)
def test_acting_and_training_are_all_on_one_device(
    kind: CoreKind, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = on_device("MiniGrid-MemoryS7-v0", 6)
    trainer = make_trainer(env=envs.make("MiniGrid-MemoryS7-v0", 6), kind=kind, **options)
    agent, ppo = trainer.agent, trainer.ppo
    # fused Adam has no form without numbers; what it reads is on the device all the same
    monkeypatch.setattr(ppo.optimizer, "step", lambda: None)
    with fake_device():
        move_(agent)
        for name in ("ent_coef", "level", "is_rollout_finite", "_skip"):
            setattr(ppo, name, move_(getattr(ppo, name)))
        rollout, _ = collect_on_device(agent, env.device_step, move_(trainer.carry), 8)
        ppo.is_rollout_finite.copy_(is_finite(rollout))
        advantage = ppo._advantages(rollout)
        agent.returns.observe_(advantage, rollout.reward, ppo.is_rollout_finite)
        for rows in ppo._minibatches(6):
            statistics = ppo.train_minibatch_(rollout, advantage, rows)
            assert statistics.device == DEVICE
        agent.observe_(rollout.inputs.observation, rollout.reward)
        assert all(p.grad is None or p.grad.device == DEVICE for p in agent.parameters())


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "action_space", [spaces.Box(-2, 2, (3,)), spaces.MultiDiscrete([3, 2])], ids=["box", "choices"]
)
def test_every_kind_of_observation_is_read_on_the_device(action_space: spaces.Space) -> None:
    space = spaces.Dict({
        "picture": spaces.Box(0, 255, (210, 160, 3), np.uint8),
        "small": spaces.Box(0, 1, (8, 8, 2)),
        "glyphs": spaces.MultiDiscrete(np.full((21, 79, 1), 5976)),
        "grid": spaces.MultiDiscrete(np.full((7, 7, 3), 11)),
        "text": spaces.Box(0, 255, (40,), np.uint8),
        "words": spaces.MultiDiscrete([50] * 6),
        "number": spaces.Discrete(9),
        "vector": spaces.Box(-np.inf, np.inf, (5,)),
        "action_mask": spaces.Box(0, 1, (5,), np.int8),
    })  # fmt: skip
    agent = ActorCritic(space, action_space, core_config("gru", dim=8, norm_observations=True))
    sample = space.sample()
    with fake_device():
        move_(agent)
        observation = agent.see({
            name: torch.empty((4, *np.shape(part)), dtype=torch.as_tensor(part).dtype,
                              device=DEVICE)
            for name, part in sample.items()
        })  # fmt: skip
        inputs = agent.first_inputs(observation, 4)
        policy, value = agent.player(agent.initial_state(4)).step(inputs)
        action = policy.sample()
        after = agent.next_inputs(observation, action, value, inputs.reset)
        sequence = map_tensors(lambda *steps: torch.stack(steps, dim=1), inputs, after)
        policy, value, _ = agent(sequence, agent.initial_state(4))
        loss = policy.log_prob(sequence.prev_action).mean() + policy.entropy().mean()
        (loss + value.mean()).backward()
        agent.observe_(sequence.observation, value)
    assert value.device == DEVICE


def test_what_stays_on_the_cpu_or_reads_a_number_is_found() -> None:
    env = on_device("MiniGrid-MemoryS7-v0")
    with fake_device():
        step = env.device_step(random_action(env))
        for mix in (
            lambda: torch.add(step.reward, torch.ones(4)),
            lambda: torch.tensor([1.0]).to(DEVICE),
            lambda: step.reward[torch.tensor([0])],
            lambda: step.reward.copy_(torch.ones(4)),
            step.reward.cpu,
        ):
            with pytest.raises(Exception, match="same device"):
                mix()
        for read in (torch.Tensor.item, torch.Tensor.nonzero, bool):
            with pytest.raises(Exception, match="aten"):
                read(step.terminated.any())
