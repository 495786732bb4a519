"""One Gymnasium environment from its id, its constructor's arguments and its wrappers.

What cannot be made is a ValueError of one line: the id, what was raised, and the remedy.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, cast

import gymnasium
from gymnasium import spaces

from envs.specs import ENVPOOL, creator, find_spec, own_name

Wrap = Callable[[gymnasium.Env], gymnasium.Env]

_NO_DISPLAY = re.compile(
    r"display|video device|xlib|\bx11\b|glx|\begl\b|osmesa|glfw|opengl", re.IGNORECASE
)

_UNSAVED = {
    "NormalizeObservation": "use --core.norm-observations",
    "NormalizeReward": "leave it out: returns are scaled",
}
"""Wrappers of Gymnasium's whose state would be lost, and what to use."""

MAX_SAID = 1000
"""Characters of an error that are printed."""


def make_single(
    env_id: str,
    env_kwargs: Mapping[str, Any],
    wraps: Sequence[tuple[str, Wrap]] = (),
    render_mode: str | None = None,
) -> gymnasium.Env:
    """Make one environment, in its wrappers.

    Args:
        env_id: registered with Gymnasium, "module:id" included.
        env_kwargs: for its constructor, over those that it is registered with.
        wraps: from `find_wraps`, the innermost first.
        render_mode: Gymnasium's. Left out: nothing is said of it to the constructor.

    Raises:
        ValueError: for whatever its constructor, or a wrapper, raises; and for an environment
            without spaces.
    """
    modes = {} if render_mode is None else {"render_mode": render_mode}
    with named(env_id, env_kwargs):
        env = gymnasium.make(env_id, disable_env_checker=True, **{**env_kwargs, **modes})
    try:
        for name, wrap in wraps:
            env = _wrapped(env, env_id, name, wrap)
        for name in ("observation_space", "action_space"):
            _check_space(env, env_id, name)
    except BaseException:
        close_all([env])
        raise
    return env


def close_all(singles: Sequence[gymnasium.Env]) -> None:
    """Close what has been made before something failed, of which the user is told."""
    for single in singles:
        with suppress(Exception):
            single.close()


def with_tuples(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with tuples for the lists of JSON, where a constructor asks for them.

    It does by the default of an argument, or by its annotation.
    """
    if not any(isinstance(value, list) for value in env_kwargs.values()):
        return dict(env_kwargs)
    with named(env_id, env_kwargs):  # what makes it may not be importable
        parameters = _parameters(env_id)
    return {
        name: _as_tuple(value) if name in parameters and _is_tuple(parameters[name]) else value
        for name, value in env_kwargs.items()
    }


def _is_tuple(parameter: inspect.Parameter) -> bool:
    annotation = str(parameter.annotation).lower()
    return isinstance(parameter.default, tuple) or (
        "tuple" in annotation and "list" not in annotation
    )


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def check_kwargs(env_kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError for what can be no argument of a constructor."""
    for name in env_kwargs:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"env_kwargs has the name {name!r}, which must be that of an argument; write "
                "--env-kwargs '{\"name\": value}'"
            )
        if name == "disable_env_checker":
            raise ValueError(
                f"env_kwargs names {name!r}, which is no argument of a constructor; leave it out: "
                "what environments return is always looked at"
            )
        if name == "max_episode_steps" and type(env_kwargs[name]) is not int:
            raise ValueError(
                f"env_kwargs has {name}={env_kwargs[name]!r}, which must be a whole number; leave "
                "it out for that of the id, or write -1 for none"
            )


def find_wraps(names: Sequence[str]) -> list[tuple[str, Wrap]]:
    """Return wrappers with their names: classes of Gymnasium's, or "module:Wrapper".

    Raises:
        ValueError: for one that is not there.
    """
    return [(name, _find_wrap(name)) for name in names]


def _find_wrap(name: str) -> Wrap:
    module, _, attribute = name.rpartition(":")
    if remedy := _UNSAVED.get(attribute) if module in ("", "gymnasium.wrappers") else None:
        raise ValueError(
            f"wrap={name!r} keeps statistics in each copy, which no checkpoint holds; {remedy}"
        )
    module = module or "gymnasium.wrappers"
    try:
        source = importlib.import_module(module)
        found = getattr(source, attribute, None)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"wrap={name!r} cannot be imported ({words_of(error)}); "
            + (own_name(module) or "check the name of its module, or install what is missing")
        ) from error
    if found is None:
        known = _wrappers_of(source)
        near = difflib.get_close_matches(attribute, known, n=3)
        which = f"; did you mean {', '.join(near)}?" if near else f" (it has {', '.join(known)})."
        raise ValueError(
            f"wrap={name!r} is not in {module}{which} A wrapper of your own must be named with "
            "its module: --wrap my_module:MyWrapper"
        )
    if not callable(found):
        raise ValueError(
            f"wrap={name!r} is {found!r}; use a class of wrappers, or a function from an "
            "environment to one"
        )
    return cast("Wrap", found)


def _wrappers_of(module: ModuleType) -> list[str]:
    return sorted(
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, gymnasium.Wrapper)
    )


def _wrapped(env: gymnasium.Env, env_id: str, name: str, wrap: Wrap) -> gymnasium.Env:
    try:
        wrapped = wrap(env)
    except (Exception, SystemExit) as error:
        missing = _missing_arguments(error)
        remedy = "leave it out, or change their order"
        if missing:
            remedy = (
                f"use a function of your own that gives {missing}, --wrap my_module:wrapped, with "
                f"def wrapped(env): return {name.rpartition(':')[2]}(env, ...)"
            )
        raise ValueError(
            f"wrap={name!r} cannot wrap env={env_id!r}: {words_of(error)}; {remedy}"
        ) from error
    if not isinstance(wrapped, gymnasium.Env):
        raise ValueError(
            f"wrap={name!r} made {type(wrapped).__name__} of env={env_id!r}, not a gymnasium.Env; "
            "return the wrapped environment"
        )
    return wrapped


def _check_space(env: gymnasium.Env, env_id: str, name: str) -> None:
    with named(env_id, {}):  # it may be a property
        space = getattr(env, name, None)
    if not isinstance(space, spaces.Space):
        found = f"{name}={space!r}" if space is not None else f"no {name}"
        raise ValueError(
            f"env={env_id!r} has {found}; set it to a space of gymnasium.spaces in the class or "
            "its constructor"
        )


@contextmanager
def named(env_id: str, env_kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Turn what the constructor of an environment raises into a ValueError that names its id."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # some libraries' errors are no Exceptions
        raise ValueError(_why(env_id, env_kwargs, error)) from error


def _why(env_id: str, env_kwargs: Mapping[str, Any], error: BaseException) -> str:
    """Return why an environment cannot be made, and what to do."""
    said = words_of(error)
    unknown = re.search(r"unexpected keyword argument '(\w+)'", said)
    is_envpool = env_id.startswith(f"{ENVPOOL}:")  # whose arguments no signature tells
    if unknown and unknown[1] in env_kwargs and not is_envpool:
        known = _arguments(env_id)
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; leave it out, or use another."
        return (
            f"env_kwargs names {unknown[1]!r}, which the constructor of env={env_id!r} does not "
            f"know{hint} It has: {', '.join(known) or 'no arguments'}"
        )
    if unknown and unknown[1] == "render_mode":
        remedy = "leave out --video: it has no argument render_mode, and draws no pictures"
    elif missing := _missing_arguments(error):
        example = json.dumps(dict.fromkeys(missing.split(", "), "..."))
        remedy = f"give {missing} by --env-kwargs '{example}'"
    elif isinstance(error, gymnasium.error.DependencyNotInstalled | ImportError):
        remedy = "install what is missing"
    elif _NO_DISPLAY.search(said):
        remedy = (
            "where there is no display set SDL_VIDEODRIVER=dummy (pygame) or MUJOCO_GL=egl "
            "(MuJoCo) before the command, or run it by xvfb-run"
        )
    else:
        remedy = ("change --env-kwargs, or " if env_kwargs else "") + "mend its constructor"
    given = f" with {json.dumps(dict(env_kwargs), default=repr)}" if env_kwargs else ""
    return f"env={env_id!r} cannot be made{given}: {said}; {remedy}"


def one_line_of(text: str) -> str:
    """Return a text, such as a space with its arrays, without its line breaks."""
    return " ".join(text.split())


def text_of(error: BaseException) -> str:
    """Return what an error says: some say megabytes, and some fail at it."""
    said = ""
    with suppress(Exception):
        said = str(error)
    return said if len(said) <= MAX_SAID else f"{said[:MAX_SAID]}..."


def words_of(error: BaseException) -> str:
    """Return what was raised in one line, without what Gymnasium adds to it."""
    said = one_line_of(text_of(error))
    if not said and (frames := traceback.extract_tb(error.__traceback__)):
        line = frames[-1].line or ""  # of an assertion that says nothing
        said = re.sub(rf"^raise {type(error).__name__}(\(\))?$", "", line)
    said = re.sub(r" was raised from the environment creator for .*", "", said).rstrip(".; ")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _missing_arguments(error: BaseException) -> str:
    """Return "size, speed" of arguments that a constructor was not given, "" for other errors."""
    found = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: ", str(error))
    if not isinstance(error, TypeError) or found is None:
        return ""
    names = words_of(error)[words_of(error).index("required") :]
    return ", ".join(re.findall(r"'(\w+)'", names))


def _arguments(env_id: str) -> list[str]:
    """Return the names of a constructor's arguments, and of those that it hands on to others."""
    return list(_parameters(env_id))


def _parameters(env_id: str) -> dict[str, inspect.Parameter]:
    """Return a constructor's arguments by name, and those that it hands on to others."""
    made_by: Any = creator(find_spec(env_id))
    makers = [made_by]
    if inspect.isclass(made_by):
        makers = [each for each in made_by.__mro__[:-1] if "__init__" in vars(each)]
    found: dict[str, inspect.Parameter] = {}
    for each in makers:
        parameters = list(inspect.signature(each).parameters.values())
        own = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        found |= {name: p for name, p in own.items() if name not in found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found
