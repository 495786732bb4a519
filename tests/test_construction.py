"""What starts an environment, and in one line why one does not start."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation

import envs
from agents.cores.core import core_config
from envs.batched_env import BatchedEnv
from envs.construction import with_tuples
from experiments.grids.grid import make_cells, parse_axes
from experiments.tables.runs import Run, grouped, varying_options
from mtxl_rl import evaluate, train
from mtxl_rl.config import TrainConfig, differences, flat, from_json, to_json

Make = Callable[..., BatchedEnv]
VECTOR = spaces.Box(-1, 1, (2,))


class OwnEnv(gymnasium.Env):
    """Shows `memory_length`, and takes as many steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, memory_length: int = 3, kind: str = "plain"):
        self.observation_space = spaces.Box(0, 1000, (2,))
        self.memory_length, self.kind = memory_length, kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self._observe(), 1.0, self.time == self.memory_length, False, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.memory_length, self.time], np.float32)


gymnasium.register("ConstructionOwn-v0", "test_construction:OwnEnv")
OWN = "test_construction:ConstructionOwn-v0"


class Doubled(gymnasium.ObservationWrapper):
    def observation(self, observation: Any) -> Any:
        return 2 * observation


class OneMore(gymnasium.ObservationWrapper):
    def observation(self, observation: Any) -> Any:
        return observation + 1


def stacked(env: gymnasium.Env) -> gymnasium.Env:
    return FrameStackObservation(env, 4)


def not_wrapped(env: gymnasium.Env) -> int:
    return 7


A_NUMBER = 7


@pytest.fixture
def make() -> Iterator[Make]:
    """Make an environment of a class, or of an id; close it after the test."""
    made: list[BatchedEnv] = []

    def make_one(what: Any, num_envs: int = 3, **options: Any) -> BatchedEnv:
        env_id = what
        if not isinstance(what, str):
            env_id = "Made-v0"
            gymnasium.register(env_id, what)
        try:
            made.append(envs.make(env_id, num_envs, **options))
        finally:
            gymnasium.registry.pop("Made-v0", None)
        return made[-1]

    yield make_one
    for env in made:
        env.close()


class Raising(OwnEnv):
    error: BaseException = RuntimeError("it is broken\nin two lines")

    def __init__(self) -> None:
        raise self.error


def raising(error: BaseException) -> type[Raising]:
    return type("Made", (Raising,), {"error": error})


def with_spaces(observation: Any = VECTOR, action: Any = OwnEnv.action_space) -> Any:
    class Made(OwnEnv):
        def __init__(self) -> None:
            for name, space in (("observation_space", observation), ("action_space", action)):
                setattr(self, name, space)

    return Made


class NeedsArguments(OwnEnv):
    def __init__(self, size: int, speed: float):
        super().__init__()


class NoSpaces(gymnasium.Env):
    pass


class Growing(OwnEnv):
    """Every copy has wider bounds than the one before."""

    number = 0

    def __init__(self, name: str = "observation_space"):
        super().__init__()
        Growing.number += 1
        setattr(self, name, spaces.Box(-1, Growing.number, (2,)))


class GrowingActions(Growing):
    def __init__(self) -> None:
        super().__init__("action_space")


class NoEnv:
    pass


NUMBER_AND_TEXT: Any = {1: VECTOR, "1": VECTOR}
PIP = 'Box2D is not installed, run `pip install "gymnasium[box2d]"`'
STARTS = {
    "a library": (raising(gymnasium.error.DependencyNotInstalled(PIP)),
                  f"cannot be made: DependencyNotInstalled: {PIP}; install what is missing"),
    "a module": (raising(ModuleNotFoundError("No module named 'unity'")),
                 "ModuleNotFoundError: No module named 'unity'; install what is missing"),
    "an error": (raising(RuntimeError("it is broken\nin two lines.")),
                 "RuntimeError: it is broken in two lines; mend its constructor"),
    "an assertion": (raising(AssertionError()), "AssertionError: raise self.error; mend"),
    "an exit": (raising(SystemExit(3)), "SystemExit: 3; mend"),
    "no display": (raising(RuntimeError("cannot connect to X server: no display name")),
                   "set SDL_VIDEODRIVER=dummy (pygame) or MUJOCO_GL=egl (MuJoCo)"),
    "arguments": (NeedsArguments, "give size, speed by --env-kwargs '{\"size\": \"...\", "),
    "no spaces": (NoSpaces, "has no observation_space; set it to a space of gymnasium.spaces"),
    "no space": (with_spaces("Box"), "has observation_space='Box'; set it to a space of"),
    "no action space": (with_spaces(action=None), "has no action_space; set it to a space of"),
    "bounds": (Growing, "has another observation_space in each copy: Box(-1.0, "),
    "bounds of actions": (GrowingActions, "has another action_space in each copy: Box(-1.0, "),
    "no environment": (NoEnv, "The environment must inherit from the gymnasium.Env class"),
    "two of a name": (with_spaces(spaces.Dict({"a.b": VECTOR, "a": spaces.Dict({"b": VECTOR})})),
                      "has two parts of the name 'a.b' (nested names are joined by dots); give"),
    "number and text": (with_spaces(spaces.Dict(NUMBER_AND_TEXT)), "of the name '1'"),
    "categories": (with_spaces(spaces.Discrete(2**40)),
                   "has 1,099,511,627,776 categories (Discrete(1099511627776)), which must be at"),
    "parts": (with_spaces(spaces.MultiDiscrete([3, 2**40])), "has 1,099,511,627,776 categories"),
    "actions": (with_spaces(action=spaces.Discrete(2**40)),
                "the action has 1,099,511,627,776 categories"),
    "long spaces": (with_spaces(action=spaces.MultiDiscrete(np.full((40, 2), 3))),
                    "is not supported; supported are Discrete"),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_what_cannot_start_says_why_in_one_line(name: str, make: Make) -> None:
    entry_point, message = STARTS[name]
    with pytest.raises(ValueError, match=r"^env='Made-v0'") as error:
        make(entry_point)
    said = str(error.value)
    assert message in said
    assert "\n" not in said


def test_the_copies_before_one_that_fails_are_closed(make: Make) -> None:
    closed = []

    class Third(OwnEnv):
        number = 0

        def __init__(self) -> None:
            super().__init__()
            Third.number += 1
            if Third.number == 3:
                raise RuntimeError("no more ports")

        def close(self) -> None:
            closed.append(self)

    with pytest.raises(ValueError, match="RuntimeError: no more ports"):
        make(Third)
    assert len(closed) == 2


def test_an_id_of_batches_only_is_named(make: Make) -> None:
    gymnasium.register("Batches-v0", vector_entry_point="nowhere:Batches")
    with pytest.raises(
        ValueError, match=r"'Batches-v0' makes batches only .*use backend='auto' or"
    ):
        make("Batches-v0", backend="gymnasium")
    with pytest.raises(ValueError, match=r"cannot be made: ModuleNotFoundError: .*; install what"):
        make("Batches-v0")
    with pytest.raises(ValueError, match=r"backend='vector' has none; leave it out"):
        make("Batches-v0", backend="vector", wrap=["TimeLimit"])
    del gymnasium.registry["Batches-v0"]
    with pytest.raises(ValueError, match=r"'Acrobot-v1' has no vector_entry_point, which"):
        make("Acrobot-v1", backend="vector")


def test_lists_are_tuples_where_a_constructor_asks_for_them() -> None:
    kept = with_tuples("MiniGrid-Empty-5x5-v0", {"agent_start_pos": [2, 1], "size": 6})
    assert kept == {"agent_start_pos": (2, 1), "size": 6}  # by its default
    assert with_tuples(OWN, {"kind": [1], "memory_length": [2]}) == {
        "kind": [1], "memory_length": [2]
    }  # fmt: skip
    env = envs.make("MiniGrid-Empty-5x5-v0", 2, env_kwargs={"agent_start_pos": [2, 1]})
    env.reset()
    env.close()


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("test_construction:Nope-v0", "did you mean test_construction:ConstructionOwn-v0"),
        ("test_construction:ConstructionOwn-v7", "did you mean test_construction:ConstructionOwn-"),
        ("json:Nope-v0", "is not there .*register 'Nope-v0' in the module 'json'"),
        ("nowhere:Nope-v0", "module 'nowhere', which cannot be imported .*check its name, or inst"),
        ("ALE/Pong-v5", "'ale_py', which has to be named: --env ale_py:ALE/Pong-v5"),
        ("popgym-AutoencodeEasy-v0", "--env popgym:popgym-AutoencodeEasy-v0"),
        ("json:", "must be an id, or module:id"),
        (":CartPole-v1", "must be an id, or module:id"),
        ("", "is not registered with Gymnasium"),
    ],
)
def test_an_id_that_is_not_there_names_the_nearest(env_id: str, message: str, make: Make) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make(env_id)
    assert "\n" not in str(error.value)


def test_a_module_that_fails_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "has_a_bug.py").write_text("1 / 0\n")
    (tmp_path / "has_needs.py").write_text("import nowhere\n")
    with pytest.raises(ValueError, match=r"'has_a_bug', .*ZeroDivisionError: .*; mend it"):
        make("has_a_bug:Env-v0")
    with pytest.raises(ValueError, match=r"'has_needs', .*; install what it needs: nowhere"):
        make("has_needs:Env-v0")
    with pytest.raises(ValueError, match=r"^wrap='has_a_bug:W' cannot be imported \(ZeroDivision"):
        make(OWN, wrap=["has_a_bug:W"])


def test_arguments_reach_the_constructor(make: Make) -> None:
    env = make(OWN, env_kwargs={"memory_length": 10})
    assert env.reset()["observation"][:, 0].tolist() == [10] * 3
    limited = make(OWN, env_kwargs={"memory_length": 10, "max_episode_steps": 2})
    limited.reset()
    ends = [limited.step(torch.zeros(3, dtype=torch.int64)).truncated.all() for _ in range(2)]
    assert ends == [False, True]


ARGUMENTS = {
    "unknown": ({"memory_lenght": 3}, "'memory_lenght', which the constructor of env='test_constru"
                "ction:ConstructionOwn-v0' does not know; did you mean memory_length? It has: "
                "memory_length, kind"),
    "ours": ({"disable_env_checker": True}, "is no argument of a constructor; leave it out"),
    "no name": ({"memory length": 3}, "has the name 'memory length', which must be that of an"),
    "wrong": ({"memory_length": 3, "max_episode_steps": "x"}, "with {\"memory_length\": 3, \"max_"),
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
    names = ["test_construction:Doubled", "test_construction:OneMore"]
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
    env = make(OWN, wrap=["test_construction:stacked", "FlattenObservation"])
    assert env.reset()["observation"].shape == (3, 8)
    grid = make("mtxl/TMaze10-v0", wrap=["minigrid.wrappers:FullyObsWrapper"])
    assert grid.backend == "gymnasium"
    assert grid.has_cue


WRAPS = {
    "near": ("FlattenObservatio", "did you mean FlattenObservation"),
    "old name": ("FrameStack", "did you mean FrameStackObservation"),
    "no name": ("", "is not in gymnasium.wrappers (it has AddRenderObservation, "),
    "own": ("test_construction:Nope", "is not in test_construction (it has Doubled, "),
    "module": ("nowhere:Nope", "cannot be imported (ModuleNotFoundError: No module named"),
    "arguments": ("FrameStackObservation", "use a function of your own that gives stack_size"),
    "does not fit": ("ResizeObservation", "cannot wrap env="),
    "no wrapper": ("test_construction:not_wrapped", "made int of env="),
    "a number": ("test_construction:A_NUMBER", "is 7; use a class of wrappers, or a function"),
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
               "--wrap", "test_construction:Doubled", "--wrap", "FlattenObservation")  # fmt: skip
    assert run(train.main, monkeypatch, *TINY, *options, "--run-dir", run_dir) == 0
    saved = json.loads((run_dir / "config.json").read_text())
    assert saved["env_kwargs"] == {"memory_length": 5, "kind": "hard"}
    assert saved["wrap"] == ["test_construction:Doubled", "FlattenObservation"]
    assert json.loads((run_dir / "evaluation.json").read_text())["mean_length"] == 5
    capsys.readouterr()

    def mean_length(*options: str) -> float:
        assert run(evaluate.main, monkeypatch, run_dir, "--episodes", "2", "--json", *options) == 0
        return json.loads(capsys.readouterr().out)["mean_length"]

    assert mean_length() == 5
    assert mean_length("--env-kwargs", '{"memory_length": 7}') == 7
    assert mean_length("--env", OWN) == 5
    other = "test_construction:OwnEnv"
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
    wraps = make_cells(tmp_path, base, parse_axes([("wrap", "", "ClipReward Autoreset")]), 1)
    assert [cell.config.wrap for cell in wraps] == [(), ("ClipReward", "Autoreset")]
    with pytest.raises(ValueError, match="is Python's; write JSON: true, false or null"):
        make_cells(tmp_path, base, parse_axes([("env-kwargs.kind", "True")]), 1)
    with pytest.raises(ValueError, match=r"Allowed: .*, env_kwargs.NAME"):
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
