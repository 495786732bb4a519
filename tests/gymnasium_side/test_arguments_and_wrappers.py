"""Arguments of environments, and wrappers: what reaches them, what is refused, what a run keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from construction_env import OWN, Make

import envs
from agents.cores.core import core_config
from envs.construction import with_tuples
from experiments.grids.grid import make_cells, parse_axes
from experiments.tables.runs import Run, grouped, varying_options
from mtxl_rl import evaluate, train
from mtxl_rl.config import TrainConfig
from mtxl_rl.config.json_form import differences, flat, from_json, to_json


def test_lists_are_tuples_where_a_constructor_asks_for_them() -> None:
    kept = with_tuples("MiniGrid-Empty-5x5-v0", {"agent_start_pos": [2, 1], "size": 6})
    assert kept == {"agent_start_pos": (2, 1), "size": 6}  # by its default
    assert with_tuples(OWN, {"kind": [1], "memory_length": [2]}) == {
        "kind": [1], "memory_length": [2]
    }  # fmt: skip
    env = envs.make("MiniGrid-Empty-5x5-v0", 2, env_kwargs={"agent_start_pos": [2, 1]})
    env.reset()
    env.close()


def test_arguments_reach_the_constructor(make: Make) -> None:
    env = make(OWN, env_kwargs={"memory_length": 10})
    assert env.reset()["observation"][:, 0].tolist() == [10] * 3
    limited = make(OWN, env_kwargs={"memory_length": 10, "max_episode_steps": 2})
    limited.reset()
    ends = [limited.step(torch.zeros(3, dtype=torch.int64)).truncated.all() for _ in range(2)]
    assert ends == [False, True]


ARGUMENTS = {
    "unknown": ({"memory_lenght": 3}, "'memory_lenght', which the constructor of env='construction"
                "_env:ConstructionOwn-v0' does not know; did you mean memory_length? It has: "
                "memory_length, kind"),
    "ours": ({"disable_env_checker": True}, "is no argument of a constructor; leave it out"),
    "no name": ({"memory length": 3}, "has the name 'memory length', which must be that of an"),
    "wrong": ({"memory_length": 3, "max_episode_steps": -2}, "with {\"memory_length\": 3, \"max_"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_cannot_be_given_are_named(name: str, make: Make) -> None:
    env_kwargs, message = ARGUMENTS[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011  (below)
        make(OWN, env_kwargs=env_kwargs)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("env_id", "env_kwargs"),
    [
        ("MiniGrid-MemoryS7-v0", {"size": 9, "max_steps": 40}),
        ("mtxl/MemoryS7-v0", {"sizes": [7, 9]}),
        ("MiniGrid-Empty-5x5-v0", {"size": 7}),
        ("mtxl/Recall20-v0", {"delays": [2, 3], "num_items": 2}),
    ],
)
def test_tensors_play_by_the_same_arguments(
    env_id: str, env_kwargs: dict[str, Any], make: Make
) -> None:
    levels = [3, 4, 5, 6, 7]
    tensor, single = (
        make(env_id, backend=backend, env_kwargs=env_kwargs, level_seeds=levels)
        for backend in ("auto", "gymnasium")
    )
    assert tensor.backend == "tensor"
    seen, expected = tensor.reset(), single.reset()
    generator = torch.Generator().manual_seed(0)
    num_actions = int(single.action_space.n)  # type: ignore[attr-defined]
    for _ in range(50):
        for name, values in expected.items():
            assert torch.equal(seen[name].long(), values.long())
        actions = torch.randint(min(num_actions, 3), (3,), generator=generator)
        ours, theirs = tensor.step(actions), single.step(actions)
        assert torch.equal(ours.reward, theirs.reward)
        assert torch.equal(ours.truncated, theirs.truncated)
        seen, expected = ours.observation, theirs.observation


TENSORS = {
    "unknown": ("MiniGrid-Empty-5x5-v0", {"sizee": 7}, "'sizee', .* did you mean size"),
    "of ours": ("mtxl/Recall20-v0", {"delay": 7}, "'delay', .*did you mean delays"),
    "wrong": ("mtxl/Recall20-v0", {"delays": [-1]}, r"with {.*delay=-1 must be from 0 to"),
    "size": ("MiniGrid-Empty-5x5-v0", {"size": 2}, "AssertionError: assert .*change --env-kwargs"),
    "view": (
        "MiniGrid-Empty-5x5-v0",
        {"agent_view_size": 5},
        "agent_view_size=5 must be 7 for tensors",
    ),
    "limit": ("MiniGrid-Empty-5x5-v0", {"max_episode_steps": 5}, "'tensor' does not know .* with"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_arguments_that_tensors_cannot_have_are_named(name: str, make: Make) -> None:
    env_id, env_kwargs, message = TENSORS[name]
    with pytest.raises(ValueError, match=message):
        make(env_id, backend="tensor", env_kwargs=env_kwargs)
    if name in ("view", "limit"):
        assert make(env_id, env_kwargs=env_kwargs).backend == "gymnasium"


def test_wrappers_are_put_on_in_order(make: Make) -> None:
    names = ["construction_env:Doubled", "construction_env:OneMore"]
    first = make(OWN, wrap=names).reset()["observation"][0]
    other = make(OWN, wrap=names[::-1]).reset()["observation"][0]
    assert first.tolist() == [7, 1]  # 2 x + 1
    assert other.tolist() == [8, 2]  # 2 (x + 1)


def test_a_wrapper_that_draws(make: Make) -> None:
    rendered = {"env_kwargs": {"render_mode": "rgb_array"}, "wrap": ["AddRenderObservation"]}
    env = make("MiniGrid-Empty-5x5-v0", 1, **rendered)
    assert env.backend == "gymnasium"
    assert env.reset()["observation"].float().std() > 0


def test_wrappers_of_gymnasium_and_functions(make: Make) -> None:
    env = make(OWN, wrap=["construction_env:stacked", "FlattenObservation"])
    assert env.reset()["observation"].shape == (3, 8)
    grid = make("mtxl/TMaze10-v0", wrap=["minigrid.wrappers:FullyObsWrapper"])
    assert grid.backend == "gymnasium"
    assert grid.has_cue


WRAPS = {
    "near": ("FlattenObservatio", "did you mean FlattenObservation"),
    "old name": ("FrameStack", "did you mean FrameStackObservation"),
    "no name": ("", "is not in gymnasium.wrappers (it has AddRenderObservation, "),
    "own": ("construction_env:Nope", "is not in construction_env (it has Doubled, "),
    "module": ("nowhere:Nope", "cannot be imported (ModuleNotFoundError: No module named"),
    "arguments": ("FrameStackObservation", "use a function of your own that gives stack_size"),
    "does not fit": ("ResizeObservation", "cannot wrap env="),
    "no wrapper": ("construction_env:not_wrapped", "made int of env="),
    "a number": ("construction_env:A_NUMBER", "is 7; use a class of wrappers, or a function"),
}


@pytest.mark.parametrize("name", WRAPS)
def test_wrappers_that_cannot_be_had_are_named(name: str, make: Make) -> None:
    wrap, message = WRAPS[name]
    with pytest.raises(ValueError, match=f"^wrap={wrap!r} ") as error:
        make(OWN, wrap=[wrap])
    assert message in str(error.value)


def test_tensors_are_not_wrapped(make: Make) -> None:
    with pytest.raises(ValueError, match="backend='tensor' has none; leave it out, or use"):
        make("mtxl/TMaze10-v0", backend="tensor", wrap=["FlattenObservation"])


TINY = """
--total-frames 256 --num-envs 4 --eval-episodes 4 --device cpu --num-threads 1 --compile off
--ppo.rollout-len 32 --ppo.num-minibatches 2 --core.dim 8 --core.depth 1 --core.heads 2
--core.seq-len 8
""".split()  # noqa: SIM905  (as one would type it)


def run(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_run_keeps_arguments_and_wrappers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    options = ("--env", OWN, "--env-kwargs", '{"memory_length": 5, "kind": "hard"}',
               "--wrap", "construction_env:Doubled", "--wrap", "FlattenObservation")  # fmt: skip
    assert run(train.main, monkeypatch, *TINY, *options, "--run-dir", run_dir) == 0
    saved = json.loads((run_dir / "config.json").read_text())
    assert saved["env_kwargs"] == {"memory_length": 5, "kind": "hard"}
    assert saved["wrap"] == ["construction_env:Doubled", "FlattenObservation"]
    assert json.loads((run_dir / "evaluation.json").read_text())["mean_length"] == 5
    capsys.readouterr()

    def mean_length(*options: str) -> float:
        assert run(evaluate.main, monkeypatch, run_dir, "--episodes", "2", "--json", *options) == 0
        return json.loads(capsys.readouterr().out)["mean_length"]

    assert mean_length() == 5
    assert mean_length("--env-kwargs", '{"memory_length": 7}') == 7
    assert mean_length("--env", OWN) == 5
    other = "construction_env:OwnEnv"
    gymnasium.register("ConstructionOther-v0", other, kwargs={"memory_length": 4})
    assert mean_length("--env", "ConstructionOther-v0") == 4
    del gymnasium.registry["ConstructionOther-v0"]

    resume = ("--resume", run_dir, "--total-frames", "512")
    assert run(train.main, monkeypatch, *resume, "--env-kwargs", '{"memory_length": 6}') == 2
    said = capsys.readouterr().err
    assert "env_kwargs.memory_length is 5 in the run and 6 here" in said
    assert "env_kwargs.kind is hard in the run and left out here" in said
    assert run(train.main, monkeypatch, *resume) == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["mean_length"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--env-kwargs", "{a"), "is not JSON"),
        (("--env-kwargs", "[1]"), "must be an object"),
        (("--env-kwargs", '{"a": NaN}'), "NaN is no number of JSON"),
        (("--env-kwargs", '{"memory_lenght": 1}'), "did you mean memory_length?"),
        (("--wrap", "Nope"), "is not in gymnasium.wrappers"),
    ],
)
def test_a_mistake_writes_nothing(
    options: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run_dir = tmp_path / "run"
    assert run(train.main, monkeypatch, "--env", OWN, *options, "--run-dir", run_dir) == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.replace("│", " ").split())  # tyro draws a frame
    assert "Traceback" not in said
    assert not run_dir.exists()


def test_arguments_are_axes_of_a_grid(tmp_path: Path) -> None:
    core = core_config(dim=8, heads=2, depth=1)
    base = TrainConfig(env=OWN, env_kwargs={"kind": "plain", "memory_length": 1}, core=core)
    axes = parse_axes([("env-kwargs.memory_length", "10", "30"), ("env-kwargs.kind", "hard")])
    cells = make_cells(tmp_path, base, axes, num_seeds=1)
    assert [cell.name for cell in cells] == [
        "memory_length=10,kind=hard,seed=1", "memory_length=30,kind=hard,seed=1",
    ]  # fmt: skip
    assert [cell.config.env_kwargs for cell in cells] == [
        {"kind": "hard", "memory_length": length} for length in (10, 30)
    ]
    wraps = make_cells(
        tmp_path, base, parse_axes([("wrap", "", "RecordEpisodeStatistics Autoreset")]), 1
    )
    assert [cell.config.wrap for cell in wraps] == [(), ("RecordEpisodeStatistics", "Autoreset")]
    with pytest.raises(ValueError, match="is Python's; write JSON: true, false or null"):
        make_cells(tmp_path, base, parse_axes([("env-kwargs.kind", "True")]), 1)
    with pytest.raises(ValueError, match=r"allowed: .*, env_kwargs.NAME"):
        make_cells(tmp_path, base, parse_axes([("env-kwarg.kind", "a")]), 1)


def test_arguments_survive_json_and_are_compared_one_by_one() -> None:
    config = TrainConfig(env_kwargs={"a": 1, "b": {"c": [1, None]}}, wrap=("X", "m:Y"))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    other = replace(config, env_kwargs={"a": 2, "d": "x"})
    different = differences(flat(config), flat(other), "there", "here", lambda name: True)
    assert different == (
        "env_kwargs.a is 1 there and 2 here; env_kwargs.d is left out there and x here; "
        "env_kwargs.b is {'c': [1, None]} there and left out here"
    )


def test_runs_with_other_arguments_are_rows_of_their_own(tmp_path: Path) -> None:
    runs = [
        Run(tmp_path, flat(TrainConfig(env_kwargs=env_kwargs)))
        for env_kwargs in ({"a": 30}, {}, {"a": 4})
    ]
    assert varying_options(runs) == ["env_kwargs.a"]
    assert list(grouped(runs, ["env_kwargs.a"])) == [("4",), ("30",), ("None",)]
