"""What starts an environment, and in one line why one does not start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from construction_env import OWN, Make, OwnEnv
from gymnasium import spaces

VECTOR = spaces.Box(-1, 1, (2,))


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


class Abstract(OwnEnv):
    def __init__(self) -> None:
        raise NotImplementedError


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
    "no words": (Abstract, "cannot be made: NotImplementedError; mend"),
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


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("construction_env:Nope-v0", "did you mean construction_env:ConstructionOwn-v0"),
        ("construction_env:ConstructionOwn-v7", "did you mean construction_env:ConstructionOwn-"),
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
