"""Envs whose episodes all end at the same step are set apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_trainer import make_trainer
from torch import Tensor
from torch.testing import assert_close

import envs
from agents.cores.core import core_config
from agents.learning.acceleration import CapturedTrainer, Trainer
from agents.learning.ppo import PPOConfig
from agents.learning.rollout import Rollout
from agents.learning.staggering import MAX_GROUPS, Staggering
from agents.trees import named_tensors
from mtxl_rl import train
from mtxl_rl.config import TrainConfig

IN_STEP = "mtxl/Recall6-v0"  # episodes of eight steps, whatever the agent does


def ending(num_envs: int, num_in_step: int, length: int = 1000) -> Any:
    """Return a rollout of which so many envs end at the same step, and the others elsewhere."""
    done = torch.zeros(40, num_envs, dtype=torch.bool)
    done[7, :num_in_step] = True
    for env in range(num_in_step, num_envs):
        done[8 + env % 30, env] = True
    none, lengths = torch.zeros_like(done), torch.full(done.shape, length)
    return Rollout(**{name: None for name in Rollout._fields})._replace(  # type: ignore[arg-type]
        terminated=done, truncated=none, episode_length=lengths
    )


@pytest.mark.parametrize(
    ("num_envs", "num_in_step", "length", "num_groups"),
    [(32, 32, 1000, 16), (32, 32, 161, 16), (32, 32, 103, 11), (32, 32, 12, 2), (5, 5, 70, 5),
     (4, 4, 3, 2)],
)  # fmt: skip
def test_each_group_starts_anew_once(
    num_envs: int, num_in_step: int, length: int, num_groups: int
) -> None:
    staggering = Staggering()
    assert staggering.rows(ending(num_envs, 0)) is None
    times = torch.zeros(num_envs, dtype=torch.int64)
    for number in range(2 * MAX_GROUPS):
        rows = staggering.rows(ending(num_envs, num_in_step, length))
        assert (rows is None) == (number >= num_groups - 1)
        if rows is not None:
            times += rows
    assert times.tolist() == [int(env % num_groups > 0) for env in range(num_envs)]


@pytest.mark.parametrize(
    ("num_envs", "num_in_step", "length"),
    [(32, 31, 103), (32, 0, 103), (4, 3, 103), (3, 3, 103), (1, 1, 103),
     (32, 32, 40), (32, 32, 20), (32, 32, 1)],  # each rollout has whole episodes
)  # fmt: skip
def test_envs_that_are_apart_are_left_alone(num_envs: int, num_in_step: int, length: int) -> None:
    staggering = Staggering()
    assert all(staggering.rows(ending(num_envs, num_in_step, length)) is None for _ in range(9))


def test_it_goes_on_where_it_was() -> None:
    whole, rollout = Staggering(), ending(32, 32)
    for _ in range(MAX_GROUPS + 2):
        part = Staggering()
        part.load_state_dict(whole.state_dict())
        expected, ours = whole.rows(rollout), part.rows(rollout)
        assert (ours is None) == (expected is None)
        if ours is not None and expected is not None:
            assert torch.equal(ours, expected)
    fresh = Staggering()
    fresh.load_state_dict({})  # of a run of before
    assert fresh.rows(rollout) is not None


def set_apart(trainer: Trainer, rows: Tensor) -> None:
    observation = trainer.env.restart(rows)  # type: ignore[attr-defined]
    trainer.begin_(rows, observation)


def test_an_episode_begins_without_memory_and_the_others_go_on() -> None:
    rows = torch.tensor([True, False, False, True, False, False])
    trainer, twin = (make_trainer(envs.make(IN_STEP, 6, seed=3)) for _ in range(2))
    for each in (trainer, twin):
        torch.manual_seed(1)
        each.num_steps = 5  # of eight
        each.collect()
    set_apart(trainer, rows)
    assert trainer.carry.inputs.reset[rows].all()
    assert not trainer.carry.episode_length[rows].any()
    assert not trainer.carry.episode_return[rows].any()
    for name, tensor in named_tensors(trainer.carry, "carry").items():
        other = named_tensors(twin.carry, "carry")[name]
        if tensor.shape[:1] == (6,):
            assert torch.equal(tensor[~rows], other[~rows]), name
    with torch.no_grad():
        fresh = twin.agent.player(twin.agent.initial_state(6)).step(trainer.carry.inputs)
        ours = trainer.agent.player(trainer.carry.state).step(trainer.carry.inputs)
    assert_close(ours[1][rows], fresh[1][rows], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(ours[1][~rows], fresh[1][~rows], atol=1e-6)


def test_a_recorded_form_goes_on_in_the_same_tensors() -> None:
    plain, captured = (make_trainer(envs.make(IN_STEP, 6, seed=3)) for _ in range(2))
    captured = CapturedTrainer.of(captured)
    buffers = named_tensors(captured.carry, "carry")
    logged = []
    for trainer in (plain, captured):
        torch.manual_seed(1)
        scalars = []
        for number in range(3):
            scalars.append(trainer.update(trainer.collect(), 0.0))
            set_apart(trainer, torch.arange(6) == number)
        logged.append(scalars)
    assert logged[0] == logged[1]
    for name, tensor in named_tensors(captured.carry, "carry").items():
        assert not tensor.dim() or tensor.data_ptr() == buffers[name].data_ptr(), name


@pytest.mark.unchecked
@pytest.mark.usefixtures("without_interventions")
@pytest.mark.parametrize(("backend", "most"), [("tensor", 6), ("gymnasium", 16)])
def test_a_run_sets_tensors_apart_and_leaves_others_alone(
    backend: Any, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, at_once = Trainer.collect, []

    def collect_and_look(trainer: Trainer) -> Rollout:
        rollout = collect(trainer)
        at_once.append(int((rollout.terminated | rollout.truncated).sum(1).max()))
        return rollout

    monkeypatch.setattr(Trainer, "collect", collect_and_look)
    core = core_config(dim=8, depth=1, heads=2, seq_len=5, mem_len=2)
    config = TrainConfig(
        env=IN_STEP, backend=backend, num_envs=16, total_frames=16 * 13 * 20, device="cpu",
        num_threads=1, compile="off", eval_episodes=2, run_dir=tmp_path / "run", core=core,
        ppo=PPOConfig(rollout_len=13, num_minibatches=2, num_epochs=1),
    )  # fmt: skip
    train.train(config)
    assert at_once[0] == 16
    assert max(at_once[-3:]) == most  # of three groups, or of all
