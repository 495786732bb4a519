"""A Gymnasium environment whose faults are named: which of the batch, at which step, what."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, SupportsFloat, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from minigrid.core.mission import MissionSpace
from minigrid.minigrid_env import MiniGridEnv

from envs.construction import text_of
from envs.memory_tasks.cues import cue_in_view, has_cue
from envs.observation_fields import Fields, Path, leaves, name_of, pick
from envs.wrapped.watchdog import Watchdog

T = TypeVar("T")

TEXTS = (spaces.Text, MissionSpace)

CAST = "same_kind"
"""Floats may become shorter ones, whole numbers too where they fit."""

SUCCESS_INFO_KEYS = ("is_success", "success")
"""Of an info at the end of an episode; the first that is there counts."""


class EnvError(Exception):
    """An environment has raised, hung, or returned what its spaces forbid."""


class GuardedEnv(gymnasium.Wrapper):
    """Passes on what is used, and raises EnvError for what must not be passed on.

    Of an info nothing is read but success, when an episode ends: the info given on holds
    {"is_success": bool} then, where it is known. For MiniGrid, where the info does not say,
    it is an episode that terminated with a reward above 0 of MiniGrid's own, below all wrappers.
    Where the environment has a cue, the info says {"cue": the number of the one in view, or -1}.

    Args:
        env: the environment.
        name: its id and its number in the batch.
        watchdog: whose time limit holds for each reset and step.
    """

    step_bound: int | None = None
    """Steps after which an episode is cut off (truncated); None: never."""

    def __init__(self, env: gymnasium.Env, name: str, watchdog: Watchdog):
        super().__init__(env)
        self._name = name
        self._watchdog = watchdog
        self._num_steps = 0
        self._episode_length = 0
        self._own_reward: float | None = None
        if isinstance(env.unwrapped, MiniGridEnv):
            self._listen(env.unwrapped)
        self._leaves = leaves(env.observation_space)
        self._has_cue = has_cue(env.unwrapped)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result = self._call("reset", lambda: self.env.reset(seed=seed, options=options))
        result = self._checked("reset after", result, 2)
        self._episode_length = 0
        return only(self.env.observation_space, result[0]), self._cue()

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._num_steps += 1
        self._episode_length += 1
        if isinstance(self.env.action_space, spaces.Box):
            action = np.asarray(action)  # a row of scalars is none
        result = self._checked("step", self._call("step", lambda: self.env.step(action)), 5)
        reward = self._reward(result[1])
        terminated = self._flag("terminated", result[2])
        truncated = self._flag("truncated", result[3])
        if self.step_bound is not None and self._episode_length >= self.step_bound:
            truncated = True
        ends = terminated or truncated
        # what is seen last is kept while the next episode writes to the environment's own arrays
        observation = only(self.env.observation_space, result[0], copies=ends)
        info = self._success(result[4], terminated) if ends else {}
        return observation, reward, terminated, truncated, info | self._cue()

    def close(self) -> None:
        """Close the environment; where it fails at that there is a warning."""
        try:
            self._call("close after", self.env.close)
        except EnvError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)

    def _call(self, what: str, call: Callable[[], T]) -> T:
        self._watchdog.what = self._where(what)
        self._watchdog.begin()
        try:
            return call()
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # some libraries' errors are no Exceptions
            said = text_of(error)
            reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
            raise EnvError(f"{self._where(what)} failed: {reason}") from error
        finally:
            self._watchdog.end()

    def _checked(self, what: str, result: Any, num_values: int) -> Any:
        """Return what a step or reset has returned, or raise EnvError."""
        where = self._where(what)
        if not isinstance(result, tuple) or len(result) != num_values:
            raise EnvError(f"{where} returned {shown(result)}, not {num_values} values")
        if not isinstance(result[-1], dict):
            raise EnvError(f"{where} returned the info {shown(result[-1])}, not a dict")
        for path, space in self._leaves:
            name = name_of(path)
            try:
                value = pick(result[0], path)
            except (KeyError, IndexError, TypeError, ValueError):
                raise EnvError(
                    f"{where} returned no observation {name!r}, which its observation space has"
                ) from None
            if _fits(value, space):
                continue
            array = _as_whole(value, space)
            if array is None:
                raise EnvError(
                    f"{where} returned for observation {name!r} {shown(value)}, which its space "
                    f"{space} does not hold"
                )
            result = (_replaced(result[0], path, array), *result[1:])
        return result

    def _reward(self, reward: Any) -> float:
        if isinstance(reward, SupportsFloat) and not np.ndim(reward):  # type: ignore[arg-type]
            with suppress(Exception):  # 10**400, or text that says no number
                return float(reward)
        raise EnvError(f"{self._where('step')} returned the reward {shown(reward)}, not a number")

    def _success(self, info: dict[str, Any], terminated: bool) -> dict[str, Any]:
        """Return what is known of the success of an episode that has ended."""
        for key in SUCCESS_INFO_KEYS:
            if info.get(key) is not None:
                return {"is_success": self._flag(f"{key} of its info", info[key])}
        if self._own_reward is None:
            return {}
        return {"is_success": terminated and self._own_reward > 0}

    def _cue(self) -> dict[str, Any]:
        if not self._has_cue:
            return {}
        return {"cue": self._call("cue_in_view after", lambda: cue_in_view(self.env.unwrapped))}

    def _flag(self, what: str, value: Any) -> bool:
        return yes_or_no(value, what, self._where("step"))

    def _listen(self, env: gymnasium.Env) -> None:
        """Note the reward that the environment gives before any wrapper changes it."""
        step = env.step

        def heard(action: Any) -> Any:
            result = step(action)
            self._own_reward = float(result[1])
            return result

        env.step = heard

    def _where(self, what: str) -> str:
        return f"{self._name}: {what} {self._num_steps}"


def yes_or_no(value: Any, what: str, where: str) -> bool:
    """Return a value that says yes or no.

    Raises:
        EnvError: for another; `what` it is, and `where` it comes from, are for people.
    """
    plain = value
    if hasattr(value, "item"):  # of NumPy, or a tensor
        with suppress(ValueError, RuntimeError):
            plain = value.item()
    if not isinstance(plain, bool | int | float) or plain not in (0, 1):
        raise EnvError(f"{where} returned {shown(value)} as {what}, which must be true or false")
    return bool(plain)


def check_categories(fields: Fields, flat: spaces.Dict, name: str, names_rows: bool = True) -> None:
    """Raise EnvError for a category (B, ...) that is none of its space's.

    Args:
        fields: a batch of flat observations.
        flat: their space.
        name: the environment's id.
        names_rows: whether the number of the row belongs to the name.
    """
    for field, space in flat.spaces.items():
        if isinstance(space, spaces.Discrete):
            bound: Any = space.n
        elif isinstance(space, spaces.MultiDiscrete):
            bound = space.nvec
        else:
            continue
        values = fields[field]
        wrong = (values < 0) | (values >= bound)
        if wrong.any():
            index = np.argwhere(wrong)[0]
            which = f"{name}, env {index[0]}" if names_rows else name
            raise EnvError(
                f"{which}: observation {field!r} holds the category {values[tuple(index)]}, which "
                "its space does not have"
            )


def _fits(value: Any, space: spaces.Space) -> bool:
    """Return whether a value has a space's shape and kind.

    Whether numbers lie within the bounds of a Box is not asked: nothing here depends on it, and
    many environments overstep them by rounding. Categories are checked for the whole batch.
    """
    if isinstance(space, TEXTS):
        return isinstance(value, str)
    if isinstance(space, spaces.Discrete):
        return isinstance(value, int | np.integer) or (
            isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu"
        )
    array = _as_array(value)
    assert space.shape is not None
    dtype = np.dtype(space.dtype)
    if array is None or array.shape != space.shape or not np.can_cast(array.dtype, dtype, CAST):
        return False
    # whole numbers beyond those of a dtype would become others in silence
    return dtype.kind not in "iu" or np.can_cast(array.dtype, dtype) or _holds(dtype, array)


def _as_whole(value: Any, space: spaces.Space) -> np.ndarray | None:
    """Return whole numbers in the dtype of their space, None for what it does not hold.

    A list of them has no dtype, and NumPy's is none that it would cast to an unsigned one.
    """
    array = _as_array(value)
    dtype = np.dtype(space.dtype)
    if array is None or array.dtype.kind not in "iu" or dtype.kind != "u":
        return None
    fits = array.shape == space.shape and _holds(dtype, array)
    return array.astype(dtype) if fits else None


def _as_array(value: Any) -> np.ndarray | None:
    """Return a value as an array, None where it is none: a ragged list, a tensor on a GPU."""
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.asarray(value)
    except Exception:
        return None


def _holds(dtype: np.dtype, whole: np.ndarray) -> bool:
    limits = np.iinfo(dtype)
    return not whole.size or bool(whole.min() >= limits.min and whole.max() <= limits.max)


def only(space: spaces.Space, observation: Any, copies: bool = False) -> Any:
    """Return what a space names of an observation.

    Args:
        space: of the observation.
        observation: that holds all of it.
        copies: whether arrays are copied.
    """
    if isinstance(space, spaces.Dict):
        return {key: only(part, observation[key], copies) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(
            only(part, observation[index], copies) for index, part in enumerate(space.spaces)
        )
    may_change = not isinstance(observation, str | int | np.generic)
    return np.array(observation) if copies and may_change else observation


def _replaced(observation: Any, path: Path, value: Any) -> Any:
    """Return an observation with another part at `path`."""
    if not path:
        return value
    key, *rest = path
    inner = _replaced(observation[key], tuple(rest), value)
    if isinstance(observation, dict):
        return {**observation, key: inner}
    return tuple(inner if index == key else part for index, part in enumerate(observation))


def shown(value: Any) -> str:
    """Return a value in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
