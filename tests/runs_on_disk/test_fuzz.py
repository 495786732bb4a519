"""Options of every kind: rejected in one line with a remedy, or trained with to the end."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import tempfile
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cores.core import CORES
from agents.cores.memory_core import MTXLConfig
from agents.learning.ppo import PPOConfig
from mtxl_rl.command import RunFailed
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.json_form import from_json
from mtxl_rl.train import train

pytestmark = pytest.mark.unchecked
REMEDY = r"must|set --|use |leave |raise |lower |choose |allowed|did you mean|install "
NUMBERS = {
    int: [-3, -1, 0, 1, 2, 3, 4, 6, 8],
    float: [-1.0, 0.0, 1e-8, 0.01, 0.5, 1.0, 1.5, 30.0, 1e30, math.inf, -math.inf, math.nan],
}
OWN = {
    "env": ["MiniGrid-MemoryS7-v0", "CartPole-v1", "MiniGrid-Memory7-v0", "", "../x", "a:b:c"],
    "env_kwargs": [{}, {"max_episode_steps": 5}, {"size": 7}, {"render_mode": None}, {"a b": 1}],
    "wrap": [[], ["FlattenObservation"], ["FrameStackObservation"], ["Nope"], ["os:getcwd"]],
    "total_frames": [-1, 0, 1, 31, 32, 64, 100],
    "checkpoint_every": [-1, 0, 1, 40],
    "num_threads": [None, -1, 0, 1, 10**9],
    "eval_episodes": [-1, 0, 1, 3],
    "device": ["cpu", "nonsense", "", "cuda:", "mps:3"],
    "seed": [-1, 0, 5, 2**32, 2**64, 10**30],
    "core.kind": [*CORES, "nonsense"],
    "core.memory_layers": [None, [], [1], [0], [2], [1, 1], [3]],
    "core.encoder": [[], ["nope:Nope"], ["os:getcwd"], ["x=os:getcwd"]],
    "core.dim": [-4, 0, 1, 4, 6, 8],
    "core.depth": [-1, 0, 1, 2],
    "ppo.num_epochs": [-1, 0, 1, 2],
}
SKIPPED = ("run_dir", "init_from", "resume", "compile", "strict", "allow_changes", "env_timeout")
"""Paths, and what takes minutes: they have tests of their own."""
TINY: dict[str, Any] = {
    "env": "mtxl/Recall2-v0", "total_frames": 96, "num_envs": 4, "eval_episodes": 1,
    "num_threads": 1, "compile": "off", "device": "cpu",
    "core.dim": 8, "core.heads": 2, "core.depth": 1, "core.seq_len": 4, "core.mem_len": 4,
    "ppo.rollout_len": 8, "ppo.num_minibatches": 2, "ppo.num_epochs": 1,
}  # fmt: skip


def values_of(name: str, kind: Any) -> list[Any]:
    """Return values, good and bad, of an option."""
    if name in OWN:
        return OWN[name]
    if kind is bool:
        return [False, True]
    if typing.get_origin(kind) is Literal:
        return [*typing.get_args(kind), "nonsense"]
    found: list[Any] = []
    for part in typing.get_args(kind) or (kind,):
        if part is type(None):
            found.append(None)
        elif typing.get_origin(part) is Literal:
            found += typing.get_args(part)
        else:
            found += NUMBERS[part]
    return found


def all_options() -> dict[str, list[Any]]:
    named = {}
    for prefix, owner in (("", TrainConfig), ("core.", MTXLConfig), ("ppo.", PPOConfig)):
        kinds = typing.get_type_hints(owner)
        for field in dataclasses.fields(owner):
            name = prefix + field.name
            if name not in SKIPPED and not dataclasses.is_dataclass(kinds[field.name]):
                named[name] = values_of(name, kinds[field.name])
    return named


OPTIONS = all_options()
changes = st.sets(st.sampled_from(sorted(OPTIONS)), min_size=1, max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(OPTIONS[name]) for name in names})
)


def nested(named: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"core": {}, "ppo": {}}
    for name, value in named.items():
        *part, last = name.split(".")
        (values[part[0]] if part else values)[last] = value
    return values


def check(named: dict[str, Any]) -> bool:
    """Train with TINY and some changes; return whether they were accepted."""
    if any(name in ("core.mem_write_iters", "core.mem_write_gain") for name in named):
        named = {"core.mem_write": "seed"} | named  # the others have an effect without
    if any(name in ("env_kwargs", "eval_max_steps", "vectorize", "wrap") for name in named):
        named = {"env": "CartPole-v1"} | named  # which is not made of tensors
    is_nonsense = any(value == "nonsense" or value != value for value in named.values())
    is_large = any(isinstance(value, float) and abs(value) > 10 for value in named.values())
    folder = Path(tempfile.mkdtemp())
    run_dir = folder / "run"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            train(dataclasses.replace(from_json(nested(TINY | named)), run_dir=run_dir))
    except ValueError as error:
        said = str(error)
        assert "\n" not in said, said
        assert len(said) < 1500, said
        assert any(name.rpartition(".")[2] in said for name in named), (said, named)
        assert re.search(REMEDY, said), said
        assert not run_dir.exists(), said
        return False
    except RunFailed:
        if not is_large:  # no network survives an entropy bonus of 1e30
            raise
    finally:
        shutil.rmtree(folder)
    assert not is_nonsense, named
    return True


@pytest.fixture(autouse=True, scope="module")
def _without_interventions() -> Iterator[None]:
    """They take longer than all else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mtxl_rl.train.evaluate_interventions", lambda *_: {})
        yield


@pytest.mark.slow
@given(changes)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_what_is_accepted_runs_and_what_is_not_says_why(named: dict[str, Any]) -> None:
    check(named)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_each_value_of_each_option(name: str) -> None:
    accepted = [check({name: value}) for value in OPTIONS[name]]
    assert any(accepted), name
