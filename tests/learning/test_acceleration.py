"""The fast forms compute what the plain one computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from programs import output_of
from recall_env import RecallEnv
from small_trainer import ENV_ID, make_trainer, run
from torch.testing import assert_close

import envs
from agents.actor_critic import ActorCritic, Player
from agents.cores.core import CORES, CoreKind, core_config
from agents.cores.memory_core import MemoryCore
from agents.learning.acceleration import (
    CapturedTrainer,
    Trainer,
    accelerate,
    can_be_captured,
)
from agents.learning.ppo import PPO, PPOConfig
from agents.learning.rollout import start
from mtxl_rl.config import TrainConfig, pick_compile
from mtxl_rl.runs.training_state import restore_training_, training_tensors


@pytest.mark.parametrize("env_id", [ENV_ID, "MiniGrid-DoorKey-5x5-v0"])
@pytest.mark.parametrize("kind", list(CORES))
@pytest.mark.unchecked
def test_static_buffers_give_the_same_run_to_the_bit(env_id: str, kind: CoreKind) -> None:
    """What a CUDA graph would record, called in its place; the warm-up has left no trace."""
    logged, weights = run(make_trainer(envs.make(env_id, 6, seed=3), kind))
    captured = CapturedTrainer.of(make_trainer(envs.make(env_id, 6, seed=3), kind))
    captured_logged, captured_weights = run(captured)
    assert captured_logged == logged
    assert_close(captured_weights, weights, atol=0, rtol=0)


NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", list(CORES))
@pytest.mark.unchecked
def test_a_captured_run_that_is_saved_goes_on_to_the_bit(kind: CoreKind, device: str) -> None:
    whole = CapturedTrainer.of(make_trainer(kind=kind, device=device))
    run(whole, 2)
    saved = {name: tensor.clone() for name, tensor in training_tensors(whole, {}).items()}
    weights = {name: tensor.clone() for name, tensor in whole.agent.state_dict().items()}
    expected = [whole.update(whole.collect(), progress=0.5) for _ in range(2)]

    other = make_trainer(kind=kind, device=device)
    run(other, 1)  # something else
    other.agent.load_state_dict(weights)
    restore_training_(other, {}, saved)
    other = CapturedTrainer.of(other)
    assert [other.update(other.collect(), progress=0.5) for _ in range(2)] == expected
    assert_close(dict(other.agent.state_dict()), dict(whole.agent.state_dict()), atol=0, rtol=0)


def test_capture_needs_whole_segments() -> None:
    with pytest.raises(ValueError, match="rollout_len=8 is not a multiple of seq_len=3"):
        CapturedTrainer.of(make_trainer(seq_len=3))


def test_capture_goes_on_where_training_is() -> None:
    """Also in the middle of a run: moments of the optimizer and memories are kept."""
    plain, captured = make_trainer(), make_trainer()
    run(plain, 2)
    run(captured, 2)
    logged, weights = run(plain)
    captured_logged, captured_weights = run(CapturedTrainer.of(captured))
    assert captured_logged == logged
    assert_close(captured_weights, weights, atol=0, rtol=0)


def test_a_captured_rollout_is_in_the_same_tensors_every_time() -> None:
    captured = CapturedTrainer.of(make_trainer())
    first = captured.collect()
    actions = first.action.clone()
    second = captured.collect()
    assert second is first
    assert not torch.equal(second.action, actions)


def test_a_failed_capture_leaves_the_trainer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    logged, weights = run(make_trainer())
    trainer = make_trainer()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("agents.learning.acceleration.CapturedMinibatch", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        CapturedTrainer.of(trainer)
    plain_logged, plain_weights = run(trainer)
    assert plain_logged == logged
    assert_close(plain_weights, weights, atol=0, rtol=0)


def _fail_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C++ compiler found\nand more")

    monkeypatch.setattr("agents.learning.acceleration._try_out", fail)


def test_falls_back_with_one_warning_where_compiling_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    logged, weights = run(make_trainer())
    _fail_to_compile(monkeypatch)
    trainer = make_trainer()
    with pytest.warns(RuntimeWarning, match="runs plain, which is slower: no C") as warned:
        fallen = accelerate(trainer)
    assert len([w for w in warned if w.category is RuntimeWarning]) == 1
    assert fallen.form == "plain"
    assert isinstance(fallen.agent.core, MemoryCore)
    transformer = fallen.agent.core.transformer
    parts = [*transformer.layers, transformer.long_memory]
    assert all(part is not None and part._compiled_call_impl is None for part in parts)
    assert "look" not in vars(transformer)
    plain_logged, plain_weights = run(fallen)
    assert plain_logged == logged
    assert_close(plain_weights, weights, atol=0, rtol=0)


def test_strict_fails_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_to_compile(monkeypatch)
    with pytest.raises(ValueError, match=r"no C\+\+ compiler found \(--strict"):
        accelerate(make_trainer(), is_strict=True)


@pytest.mark.parametrize(
    ("kind", "own", "expected"),
    [("mtxl", [], ["compiled", "captured"]), ("gru", [], ["captured"]),
     ("mtxl", ["mine:Encoder"], ["compiled"]), ("gru", ["mine:Encoder"], ["compiled"])],
)  # fmt: skip
def test_on_a_gpu_what_is_a_users_is_not_captured(
    kind: CoreKind, own: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph would not see what it keeps in Python."""
    tried: list[str] = []

    def form(name: str) -> Any:
        return lambda trainer: tried.append(name) or trainer

    trainer = make_trainer(kind=kind)
    trainer.agent.own = own
    monkeypatch.setattr(ActorCritic, "device", property(lambda _: torch.device("cuda")))
    monkeypatch.setattr("agents.learning.acceleration.compile_", form("compiled"))
    monkeypatch.setattr(CapturedTrainer, "of", form("captured"))
    accelerate(trainer, is_strict=True)
    assert tried == expected
    assert can_be_captured(trainer) is ("captured" in expected)
    config = TrainConfig(core=core_config(kind=kind))
    assert pick_compile(config, trainer.agent.device, can_be_captured(trainer)) is (
        kind == "mtxl" or not own
    )


def test_says_what_has_no_fixed_shapes() -> None:
    with pytest.warns(RuntimeWarning, match="rollout_len=8 is not a multiple of seq_len=3"):
        assert accelerate(make_trainer(seq_len=3)).form == "plain"
    with pytest.warns(RuntimeWarning, match="nothing that is compiled; of ours mtxl"):
        assert accelerate(make_trainer(RecallEnv(6, delay=2), "gru")).form == "plain"


@pytest.mark.parametrize("kind", list(CORES))
def test_bfloat16_trains_every_core_and_keeps_weights_in_float32(kind: CoreKind) -> None:
    """With a reward in every third step: of losses near 0 all is rounding."""
    trainer = make_trainer(RecallEnv(6, delay=2), kind)
    trainer.agent.precision = torch.bfloat16
    logged, weights = run(trainer)
    assert all(
        tensor.dtype == torch.float32 for tensor in weights.values() if tensor.is_floating_point()
    )
    expected, _ = run(make_trainer(RecallEnv(6, delay=2), kind))
    for ours, theirs in zip(logged, expected, strict=True):
        assert ours["losses/first_ratio_error"] < 0.05
        assert ours["losses/entropy"] == pytest.approx(theirs["losses/entropy"], rel=0.02)
    assert logged[0]["losses/value_loss"] == pytest.approx(
        expected[0]["losses/value_loss"], rel=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize("program", ["compiled_run", "whole_rollout"])
def test_compiles(program: str) -> None:
    """In a process without jaxtyping's checks, which are no part of the product."""
    assert output_of(program).endswith("equal\n")


def make_gpu_trainer() -> Trainer:
    torch.manual_seed(0)
    env = envs.make(ENV_ID, 64, device="cuda", seed=3)
    agent = ActorCritic(env.observation_space, env.action_space, core_config(dim=64, seq_len=4))
    agent = agent.to("cuda")
    agent.precision = torch.bfloat16
    return Trainer(agent, PPO(agent, PPOConfig(rollout_len=8)), env, start(agent, env), 8)


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("kind", list(CORES))
def test_a_graph_computes_what_the_plain_form_computes(kind: CoreKind) -> None:
    logged, weights = run(make_trainer(kind=kind, device="cuda"))
    captured_logged, captured_weights = run(
        CapturedTrainer.of(make_trainer(kind=kind, device="cuda"))
    )
    for ours, theirs in zip(captured_logged, logged, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    assert_close(captured_weights, weights, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@NEEDS_GPU
def test_graphs_train_without_synchronising() -> None:
    trainer = accelerate(make_gpu_trainer(), is_strict=True)
    ppo = trainer.ppo
    assert trainer.form == "captured"
    for _ in range(3):
        torch.cuda.set_sync_debug_mode("error")
        try:
            rollout = trainer.collect()
            advantage = ppo._advantages(rollout)
            for rows in ppo._minibatches(64):
                ppo.train_minibatch(rollout, advantage, rows)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert trainer.update(trainer.collect(), 0.0)["losses/first_ratio_error"] < 0.3


@pytest.mark.gpu
@NEEDS_GPU
def test_a_capture_that_synchronises_falls_back_and_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_gpu_trainer()
    look = Player.peek

    def synchronise(*args: Any) -> torch.Tensor:
        value = look(*args)
        value.sum().item()  # not allowed in a capture
        return value

    monkeypatch.setattr(Player, "peek", synchronise)
    with pytest.warns(RuntimeWarning, match="training runs compiled"):
        trainer = accelerate(trainer)
    assert trainer.form == "compiled"
    for _ in range(2):
        assert trainer.update(trainer.collect(), 0.0)["losses/first_ratio_error"] < 0.3
