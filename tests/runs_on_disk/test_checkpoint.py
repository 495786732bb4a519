"""Run directories and checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from agents.actor_critic import ActorCritic
from agents.cores.core import CORES, CoreKind, core_config, make_core
from agents.encoders.encoder import Encoder
from agents.encoders.parts import GridEncoder
from agents.learning.ppo import PPOConfig
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.earlier import core_of_today
from mtxl_rl.config.json_form import from_json, to_json
from mtxl_rl.runs import checkpoint
from mtxl_rl.runs.run_directory import create_run, load_config

CONFIG = TrainConfig(
    run_dir=Path("somewhere"),
    core=core_config(dim=32, memory_layers=(1, 2)),
    ppo=PPOConfig(target_kl=0.1),
)


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "run"
    create_run(path, CONFIG)
    return path


def test_a_configuration_that_cannot_be_read_is_named(run_dir: Path) -> None:
    path = run_dir / "config.json"
    for name, value in (("device", "tpu"), ("seed", -1), ("keep", 1), ("banana", 1)):
        path.write_text(json.dumps(to_json(CONFIG) | {name: value}))
        with pytest.raises(ValueError, match=rf"{path}: .*{name}"):
            load_config(run_dir)


def test_configuration_survives_json(run_dir: Path) -> None:
    assert from_json(json.loads(json.dumps(to_json(CONFIG)))) == CONFIG
    assert load_config(run_dir) == CONFIG


def test_a_run_directory_that_exists_is_refused_and_kept(run_dir: Path) -> None:
    before = (run_dir / "config.json").read_text()
    with pytest.raises(ValueError, match="exists and is kept as it is; choose another --run-dir"):
        create_run(run_dir, TrainConfig())
    assert (run_dir / "config.json").read_text() == before


def test_weights_survive(run_dir: Path) -> None:
    model = make_model()
    saved = checkpoint.save_checkpoint(run_dir, CONFIG, model, frames=7)
    other = make_model(seed=1)
    extra = {"moments": torch.arange(3.0)}
    saved = checkpoint.save_checkpoint(run_dir, CONFIG, model, frames=8, training=extra)
    frames, training = checkpoint.load_checkpoint(saved, CONFIG, other)
    assert frames == 8
    assert torch.equal(training["moments"], extra["moments"])
    assert torch.equal(other.weight, model.weight)  # type: ignore[arg-type]
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["checkpoint.json", "model.safetensors", "training.safetensors"]
    both = sorted(path.name for path in saved.parent.iterdir())
    assert both == ["frames_000000000007", "frames_000000000008"]


def test_newest_is_the_one_with_the_most_frames(run_dir: Path) -> None:
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        checkpoint.newest_checkpoint(run_dir)
    for frames in (999, 100_000, 5_000_000):
        checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), frames, keep=2)
    (run_dir / "checkpoints" / ".frames_000009999999.partial").mkdir()
    assert checkpoint.newest_checkpoint(run_dir).name == "frames_000005000000"
    names = [path.name for path in checkpoint.list_checkpoints(run_dir)]
    assert names == ["frames_000000100000", "frames_000005000000"]  # the oldest is gone


@pytest.mark.parametrize("name", ["checkpoint.json", "model.safetensors", "training.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "missing"])
def test_a_damaged_checkpoint_is_found_and_the_older_one_used(
    name: str, damage: str, run_dir: Path
) -> None:
    older = checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), 1)
    newer = checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), 2)

    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(content if damage == "flipped bit" else content[:-1])

    spoil(newer / name)
    with pytest.warns(RuntimeWarning, match="frames_000000000001 is used"):
        assert checkpoint.newest_checkpoint(run_dir) == older
    spoil(older / name)
    with pytest.raises(ValueError, match=r"no checkpoint of .* is whole"):
        checkpoint.newest_checkpoint(run_dir)


@pytest.mark.parametrize("failing", ["save_tensors", "write_json", "sync", "check_checkpoint"])
def test_a_save_that_fails_keeps_what_was_there(
    failing: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), n) for n in (1, 2)]

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), 3)
    kept = checkpoint.list_checkpoints(run_dir)
    assert kept[:2] == before
    assert not list((run_dir / "checkpoints").glob(".*"))


def test_checkpoint_of_another_configuration_is_refused(run_dir: Path) -> None:
    saved = checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), 1)
    other = TrainConfig(env="CartPole-v1", core=core_config(dim=64, memory_layers=(1, 2)))
    with pytest.raises(ValueError, match="is of another configuration") as error:
        checkpoint.load_checkpoint(saved, other, make_model())
    assert "env is 'MiniGrid-MemoryS11-v0' in the checkpoint and 'CartPole-v1'" in str(error.value)
    assert "core.dim is 32 in the checkpoint and 64 in the run" in str(error.value)
    assert "core.depth" not in str(error.value)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded(run_dir: Path) -> None:
    saved = checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), 1)
    other = nn.Linear(4, 2)
    before = other.bias.clone()
    with pytest.raises(
        ValueError, match=r"weight is \(2, 3\) torch.float32 in the file and \(2, 4\) torch"
    ):
        checkpoint.load_checkpoint(saved, CONFIG, other)
    assert torch.equal(other.bias, before)


def test_what_is_no_checkpoint_is_one_clear_error(run_dir: Path) -> None:
    saved = checkpoint.save_checkpoint(run_dir, CONFIG, make_model(), 1)

    def fails(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            checkpoint.load_checkpoint(saved, CONFIG, make_model())

    (saved / "model.safetensors").write_bytes(b"not safetensors at all")
    fails("model.safetensors is damaged or missing: its checksum does not fit")
    header = json.loads((saved / "checkpoint.json").read_text())
    (saved / "checkpoint.json").write_text(json.dumps(header | {"frames": 9}))
    fails(r"checkpoint\.json is damaged: its checksum does not fit")
    (saved / "checkpoint.json").write_text("{")
    fails("is not valid JSON")
    (saved / "checkpoint.json").write_text('{"schema": 99}')
    fails("has schema 99, this release reads 3")
    (saved / "checkpoint.json").unlink()
    fails(r"has no checkpoint\.json")
    with pytest.raises(ValueError, match=r"is not a run directory: it has no config\.json"):
        load_config(saved)


@pytest.mark.parametrize("name", ["env", "core", "ppo"])
def test_what_every_run_has_is_not_filled_in(run_dir: Path, name: str) -> None:
    values = json.loads((run_dir / "config.json").read_text())
    del values[name]
    (run_dir / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"config\.json has no {name}, which every run has"):
        load_config(run_dir)


def test_an_unknown_option_names_the_nearest() -> None:
    values = to_json(CONFIG)
    values["core"]["mem_length"] = 3
    with pytest.raises(ValueError, match=r"mem_length is not an option .*; did you mean core\."):
        from_json(values)


def test_a_run_from_when_every_core_had_all_options_is_what_it_was() -> None:
    everything: dict[str, Any] = {
        "dim": 32, "depth": 1, "chrono": None, "past_action": True, "image_size": 84,
        "norm_observations": False, "heads": 4, "seq_len": 16, "mem_len": 16, "lmem_len": None,
        "gate": "gru", "memory_layers": None, "num_mem_kv": 0, "mem_write": "gated",
        "mem_write_iters": 2, "mem_write_gain": 4.0, "mogrify": False, "ff_glu": False,
        "one_kv_head": False, "bptt_segments": None,
    }  # fmt: skip
    for kind in CORES:
        core = from_json({"core": everything | {"kind": kind}}).core
        written = {"mem_write": "gated"} if kind == "mtxl" else {}
        assert core == core_config(kind, dim=32, depth=1, **written)
    gtrxl = {"kind": "gtrxl", "lmem_len": 0, "bptt_segments": 2}
    assert from_json({"core": everything | gtrxl}).core == core_config("gtrxl", dim=32, depth=1)
    with pytest.raises(ValueError, match=r"core\.mem_len has no effect on the core gru"):
        from_json({"core": everything | {"kind": "gru", "mem_len": 8}})


def test_a_run_from_before_the_gated_write_goes_on_with_the_seeds() -> None:
    old = {"mem_write_positions": False, "mem_write_holds": False, "mem_write_retention": 0.5}
    for kind, expected in (
        ("mtxl", core_config(mem_write="seed", gate="nbrc")),
        ("gtrxl", core_config("gtrxl", gate="gru")),
        ("gru", core_config("gru")),
    ):
        assert from_json({"core": {"kind": kind, "gate": None, **old}}).core == expected
    assert from_json({"core": {"lmem_len": 0, **old}}).core == core_config(lmem_len=0, gate="nbrc")
    for patch in ({"mem_write_positions": True}, {"mem_write_retention": 0.9}):
        (name,) = patch
        with pytest.raises(ValueError, match=f"core.{name}={patch[name]}, which is gone"):
            from_json({"core": old | patch})


def test_a_run_without_slots_from_when_gated_was_the_default_is_what_it_was() -> None:
    for without in (core_config(lmem_len=0), core_config("gtrxl"), core_config("lstm")):
        core = to_json(replace(CONFIG, core=without))["core"] | {"mem_write": "gated"}
        assert from_json({"core": core}).core == without
    assert from_json({"core": {"mem_write": "gated"}}).core == core_config(mem_write="gated")
    own = {"kind": "broken_cores:Missing", "mem_write": "gated", "lmem_len": 0}
    assert core_of_today(own) == own


def test_a_run_whose_write_is_gone_is_refused() -> None:
    values, write = to_json(CONFIG), "first"
    with pytest.raises(ValueError, match=r"core\.mem_write=first, which is gone: .*=parts took"):
        from_json({**values, "core": {**values["core"], "mem_write": write}})
    for without in (core_config(lmem_len=0), core_config("gtrxl"), core_config("gru")):
        core = to_json(replace(CONFIG, core=without))["core"] | {"mem_write": write}
        assert from_json({**values, "core": core}).core == without
    for kind in ([], {}, None, 1):
        with pytest.raises(ValueError, match="its kind a text"):
            from_json({"core": {"kind": kind, "mem_write": write}})


def test_a_run_from_before_the_patches_goes_on_and_what_did_nothing_is_left_out() -> None:
    older = {"kind": "mtxl", "gate": None, "memory_layers": None, "bptt_segments": None}
    expected = core_config(mem_write="seed", mem_write_iters=3, gate="nbrc")
    assert from_json({"core": older | {"mem_write_iters": 3}}).core == expected
    for without, expected in (
        ({"kind": "gtrxl"}, core_config("gtrxl")),
        ({"lmem_len": 0}, core_config(lmem_len=0, gate="nbrc")),
    ):
        assert from_json({"core": older | {"mem_write_iters": 3} | without}).core == expected


def test_a_run_without_value_clipping_goes_on_and_one_with_it_is_refused() -> None:
    assert from_json({"ppo": {"clip_vloss": False, "gamma": 0.9}}).ppo == PPOConfig(gamma=0.9)
    with pytest.raises(ValueError, match=r"ppo\.clip_vloss=True, which is gone"):
        from_json({"ppo": {"clip_vloss": True}})


def assert_same_weights(older: nn.Module, newer: nn.Module) -> None:
    weights = older.state_dict()
    assert any(not tensor.numel() for tensor in weights.values())
    for name, tensor in newer.state_dict().items():
        assert torch.equal(weights[name], tensor), name


@pytest.mark.parametrize("kind", ["mtxl", "gtrxl"])
def test_parameters_of_nothing_are_needed_neither_in_the_file_nor_in_the_network(
    run_dir: Path, kind: CoreKind
) -> None:
    """Earlier versions saved persistent slots (0, 64) where there are none."""

    def new_core(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        core = make_core(core_config(kind=kind, dim=8, heads=2))
        assert isinstance(core, nn.Module)
        return core

    def add_nothing(core: nn.Module) -> nn.Module:
        for name, module in list(core.named_modules()):
            if name.endswith("attention"):
                module.persistent = nn.Parameter(torch.empty(0, 8))
        return core

    older, newer = add_nothing(new_core(0)), new_core(1)
    assert older.state_dict().keys() > newer.state_dict().keys()
    saved = checkpoint.save_checkpoint(run_dir, CONFIG, older, frames=7)
    checkpoint.load_checkpoint(saved, CONFIG, newer)
    assert_same_weights(older, newer)
    other = new_core(2)
    checkpoint.load_checkpoint(
        checkpoint.save_checkpoint(run_dir, CONFIG, other, frames=8), CONFIG, older
    )
    assert_same_weights(older, other)


LATER_STATISTICS = ("returns.", "rewards.", "advantages.")


def test_a_checkpoint_of_before_the_statistics_of_advantages_goes_on_without(run_dir: Path) -> None:
    """With its own statistics of returns; one that has half of a kind is refused."""

    def agent() -> ActorCritic:
        observations = spaces.Dict({"symbol": spaces.Discrete(3)})
        return ActorCritic(observations, spaces.Discrete(2), core_config(kind="gru", dim=8))

    def saved(*names: str) -> Path:
        class Older(nn.Module):
            def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
                older = agent()
                older.returns.scale.fill_(5.0)
                return {k: t for k, t in older.state_dict().items() if not k.startswith(names)}

        return checkpoint.save_checkpoint(run_dir, CONFIG, Older(), frames=7)

    loaded = agent()
    checkpoint.load_checkpoint(saved("advantages."), CONFIG, loaded)
    assert (loaded.returns.scale, loaded.advantages.num) == (5, 0)
    for half in ("advantages.num", "returns.scale"):
        with pytest.raises(ValueError, match=f"{half} is missing in the file"):
            checkpoint.load_checkpoint(saved(half), CONFIG, agent())


@pytest.mark.parametrize(
    "actions", [spaces.Discrete(2), spaces.Box(-1, 1, (2,)), spaces.Box(-1, 2, (2,))], ids=str
)
def test_a_checkpoint_of_before_the_statistics_of_returns_is_the_same_function_or_refused(
    run_dir: Path, actions: spaces.Space
) -> None:
    observations = spaces.Dict({"symbol": spaces.Discrete(3)})

    def make_agent(seed: int) -> ActorCritic:
        torch.manual_seed(seed)
        return ActorCritic(observations, actions, core_config(kind="gru", dim=8))

    class Older(nn.Module):
        def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
            state = make_agent(0).state_dict()
            return {k: t for k, t in state.items() if not k.startswith(LATER_STATISTICS)}

    saved = checkpoint.save_checkpoint(run_dir, CONFIG, Older(), frames=7)
    agent = make_agent(1)
    if agent.actor.has_units:
        with pytest.raises(ValueError, match=r"before Box actions were .* 0\.5 ± 1\.5\. Train"):
            checkpoint.load_checkpoint(saved, CONFIG, agent)
        return
    checkpoint.load_checkpoint(saved, CONFIG, agent)
    for name, tensor in make_agent(0).state_dict().items():
        assert torch.equal(agent.state_dict()[name], tensor), name


def test_a_checkpoint_of_before_presence_in_grids_is_the_same_function(run_dir: Path) -> None:
    """And one that has half of it is refused."""
    space = spaces.MultiDiscrete(np.full((3, 3, 2), 5))

    def make_encoder(seed: int) -> Encoder:
        torch.manual_seed(seed)
        return Encoder(spaces.Dict({"a": space, "b": spaces.Discrete(2), "c": space}), 8)

    def without(names: str) -> nn.Module:
        class Older(nn.Module):
            def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
                encoder = make_encoder(0)
                encoder.fields[0].num_observed.fill_(1e6)  # type: ignore[operator,union-attr]
                return {k: t for k, t in encoder.state_dict().items() if names not in k}

        return Older()

    encoder, older = make_encoder(1), make_encoder(0)
    saved = checkpoint.save_checkpoint(run_dir, CONFIG, without("presence_"), frames=7)
    checkpoint.load_checkpoint(saved, CONFIG, encoder)
    for field in older.fields:
        if isinstance(field, GridEncoder):
            field.has_places = False  # as it was
    grids = {name: torch.randint(5, (6, 3, 3, 2)) for name in ("a", "c")}
    inputs = (grids | {"b": torch.randint(2, (6,))}, torch.randn(6, 8), torch.randn(6))
    assert torch.equal(encoder(*inputs), older(*inputs))
    encoder.observe_(inputs[0])  # statistics of presence begin now, and not with what was observed
    (field,) = (f for f in encoder.fields[:1] if isinstance(f, GridEncoder))
    is_there = torch.nn.functional.one_hot(grids["a"].long(), 5).flatten(1, 2).amax(1).flatten(1)
    torch.testing.assert_close(field.presence_mean, (is_there.float().sum(0) + 0.5) / 7)
    half = checkpoint.save_checkpoint(run_dir, CONFIG, without("0.presence_mean"), frames=8)
    with pytest.raises(ValueError, match=r"fields\.0\.presence_mean is missing in the file"):
        checkpoint.load_checkpoint(half, CONFIG, encoder)
