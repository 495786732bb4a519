"""Environments that are vectorised themselves as a batch of tensors: any Gymnasium VectorEnv.

Episodes end as `EnvStep` says (SAME_STEP) in each of Gymnasium's autoreset modes:

SAME_STEP   nothing is to be done.
DISABLED    what has ended is reset, by `options={"reset_mask": ...}`.
NEXT_STEP   the same, where that is known to work: Gymnasium's own SyncVectorEnv and AsyncVectorEnv,
            and EnvPool's (Weng et al. 2022, arXiv 2206.10558), whose `reset` takes `env_id`. Others
            take one step for a reset, with an action that does nothing and no reward. This step
            becomes the last one of the episode that has ended: the agent looks at its last
            observation once, so that episodes are one step longer, with the same return.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from jaxtyping import Bool, Float32, Shaped
from torch import Tensor

from envs.batched_env import BatchedEnv, EnvStep, Observation
from envs.construction import named, one_line_of, words_of
from envs.counter_random import sequence_of
from envs.observation_fields import Fields, flat_space, make_flattener, minigrid_grids
from envs.specs import ENVPOOL, find_spec, load
from envs.vectorized.vector_batches import (
    Batch,
    as_arrays,
    check_batch,
    flags,
    numbers,
    row_of,
    with_rows,
)
from envs.wrapped.action_mask import ACTION_MASK, check_mask
from envs.wrapped.guarded_env import SUCCESS_INFO_KEYS, EnvError, check_categories, shown, yes_or_no
from envs.wrapped.gymnasium_form import (
    batch_of_one,
    check_action_space,
    check_picture,
    fps_of,
    reward_threshold,
    to_gymnasium,
    to_tensors,
)
from envs.wrapped.own_numbers import OwnNumbers
from envs.wrapped.watchdog import Watchdog

T = TypeVar("T")


class Ends(NamedTuple):
    """Which episodes ended with a step."""

    terminated: Bool[np.ndarray, " B"]
    truncated: Bool[np.ndarray, " B"]
    success: Float32[np.ndarray, " B"]  # nan: not known

    @property
    def done(self) -> Bool[np.ndarray, " B"]:
        return self.terminated | self.truncated


class VectorizedEnv(BatchedEnv):
    """What an id's `vector_entry_point`, or EnvPool, makes.

    Success, where the info says it: "is_success" or "success" of the step that ends an episode, in
    `final_info` where there is one. A mask of actions is taken from the observation only.

    An episode that is cut by `bound_episodes` goes on as the next one where envs cannot be reset
    one by one.

    Args:
        env_id: registered with a `vector_entry_point`, or "envpool:id".
        num_envs: B.
        device: where tensors go.
        seed: of the first reset; EnvPool's, of the construction.
        render_mode: Gymnasium's; "rgb_array" to use `render`.
        level_seeds: where they are given the seed is drawn from them: episodes cannot be seeded one
            by one.
        timeout: seconds that one step or reset of the batch may take; None: any time.
        env_kwargs: arguments of the constructor, over those of the id.

    Raises:
        ValueError: for what cannot be made, has another size than `num_envs`, spaces that cannot
            be taken, or no autoreset mode.
        EnvError: from `reset` and `step`, where it raises, hangs, or returns what it should not.
    """

    backend = "vector"
    has_success = False

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        device: torch.device | str = "cpu",
        seed: int | np.random.SeedSequence = 0,
        render_mode: str | None = None,
        level_seeds: Sequence[int] | None = None,
        timeout: float | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
    ):
        seeds = sequence_of(seed, level_seeds)
        number = int(seeds.generate_state(1)[0] >> 1)  # EnvPool's have 31 bits
        self._env_id, self.num_envs, self.device = env_id, num_envs, torch.device(device)
        self._watchdog = Watchdog(timeout)
        self._numbers = OwnNumbers(number)
        self._num_steps = 0
        self._bound: int | None = None
        self._lengths = np.zeros(num_envs, np.int64)
        self._held = _no_ends(num_envs)  # of the step before, where resets take one
        options = dict(env_kwargs or {}) | ({"render_mode": render_mode} if render_mode else {})
        with named(env_id, options):
            self._env = make_vector(env_id, num_envs, number, options)
        try:
            self._set_up(number)
        except BaseException:
            self.close()
            raise

    def _set_up(self, seed: int) -> None:
        """Check what was made, start its first episodes, and say what is known of it."""
        env, env_id, spec = self._env, self._env_id, find_spec(self._env_id)
        if env.num_envs != self.num_envs:
            raise ValueError(
                f"env={env_id!r} made {env.num_envs} environments where num_envs={self.num_envs} "
                "were asked for; let it make as many, or ask for these by --num-envs"
            )
        self._mode = _autoreset_mode(env_id, env)
        self._resets_by = _resets_by(env, self._mode)
        self.original_space = env.single_observation_space
        try:
            self.action_space = check_action_space(env.single_action_space)
            flat_space(self.original_space)  # refuses before there is a first observation
            is_seeded = env_id.startswith(f"{ENVPOOL}:")  # when it was made, and now it would warn
            observation, info = self._reset(**({} if is_seeded else {"seed": seed}))
            is_minigrid = spec.id.startswith(("MiniGrid-", "BabyAI-", "mtxl/"))
            first = row_of(observation, 0)
            grids = minigrid_grids(self.original_space, first) if is_minigrid else ()
            self.observation_space = flat_space(self.original_space, grids)
        except ValueError as error:
            raise ValueError(one_line_of(f"env={env_id!r}: {error}")) from None
        if ACTION_MASK in info and ACTION_MASK not in self.observation_space.spaces:
            raise ValueError(
                f"env={env_id!r} has {ACTION_MASK} in its info, where it is not read of a vector "
                "environment; put it into the observation"
            )
        self._flatten = make_flattener(self.original_space, self.observation_space)
        self._first: Fields | None = self._fields(observation)
        config = getattr(env, "config", {})  # EnvPool's
        limit = spec.max_episode_steps or config.get("max_episode_steps")
        self.has_time_limit = isinstance(limit, int) and 0 < limit < np.iinfo(np.int32).max
        self.reward_threshold = reward_threshold(spec) or config.get("reward_threshold")
        self.render_fps = fps_of(env.metadata)

    def reset(self) -> Observation:
        # the first episodes have started, by the seed; a second reset goes on with the next levels
        fields = self._first or self._fields(self._reset()[0])
        self._first = None
        self._lengths[:] = 0
        self._held = _no_ends(self.num_envs)
        self._seen = fields
        check_mask(fields, self.action_space, self._env_id)
        return to_tensors(fields, self.device)

    def step(self, actions: Shaped[Tensor, "B ..."]) -> EnvStep:
        self._num_steps += 1
        array = to_gymnasium(actions, self.action_space)
        result = self._call("step", lambda: self._env.step(array))
        observation, reward, terminated, truncated, info = self._checked("step", result, 5)
        fields = self._fields(observation)
        where = self._where("step")
        reward = numbers(where, "reward", reward, self.num_envs).astype(np.float32)
        terminated = flags(where, "terminated", terminated, self.num_envs)
        truncated = flags(where, "truncated", truncated, self.num_envs)
        self._lengths += 1
        takes_a_step = self._mode is AutoresetMode.NEXT_STEP and self._resets_by is None
        is_reset = self._held.done
        terminated, truncated = terminated & ~is_reset, truncated & ~is_reset
        is_cut = ~(terminated | truncated | is_reset) & (self._lengths >= (self._bound or np.inf))
        truncated_or_cut = truncated | is_cut
        success = self._success(terminated | truncated_or_cut, info)
        ends = Ends(terminated, truncated_or_cut, success)
        final = fields
        if takes_a_step:
            reward[is_reset] = 0
            if is_reset.any():
                last = {name: array[is_reset] for name, array in self._seen.items()}
                final = with_rows(fields, is_reset, last)
            ends = self._hold(ends, is_cut)
            if ACTION_MASK in fields:  # of a last look: whatever is chosen does nothing
                fields[ACTION_MASK][self._held.done] = 1
        elif self._mode is AutoresetMode.SAME_STEP:
            final = self._final_fields(fields, truncated, info)
        elif ends.done.any():
            fields = self._renewed(fields, ends.done)
        self._lengths[ends.done] = 0
        self._seen = fields
        check_mask(fields, self.action_space, self._env_id)
        return EnvStep(
            observation=to_tensors(fields, self.device),
            reward=torch.as_tensor(reward).to(self.device),
            terminated=torch.as_tensor(ends.terminated).to(self.device),
            truncated=torch.as_tensor(ends.truncated).to(self.device),
            success=torch.as_tensor(ends.success).to(self.device),
            final_observation=to_tensors(final, self.device) if ends.truncated.any() else None,
        )

    def bound_episodes(self, max_steps: int) -> None:
        self._bound = max_steps

    def render(self, index: int) -> np.ndarray:
        render: Any = self._env.render
        one = {"env_ids": [index]} if "env_ids" in inspect.signature(render).parameters else {}
        frames = self._call("render after", lambda: render(**one))
        return check_picture(None if frames is None else frames[0 if one else index])

    def close(self) -> None:
        """Close the environments; where they fail at that there is a warning."""
        try:
            self._call("close after", self._env.close)
        except EnvError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        self._watchdog.close()

    def _hold(self, ends: Ends, is_cut: Bool[np.ndarray, " B"]) -> Ends:
        """Return the ends of the step before, which a reset follows only now, and hold these."""
        held = self._held
        self._held = Ends(
            ends.terminated & ~is_cut, ends.truncated & ~is_cut, np.where(is_cut, 0, ends.success)
        )
        return Ends(
            held.terminated,
            held.truncated | is_cut,
            np.where(is_cut, ends.success, held.success),
        )

    def _reset(self, num_rows: int | None = None, **options: Any) -> tuple[Batch, dict[str, Any]]:
        """Reset, and return the first observations and the info."""
        result = self._call("reset after", lambda: self._env.reset(**options))
        observation, info = self._checked("reset after", result, 2, num_rows)
        return observation, info

    def _renewed(self, fields: Fields, done: Bool[np.ndarray, " B"]) -> Fields:
        """Return the observations with those of new episodes in the rows that have ended."""
        rows = np.flatnonzero(done).astype(np.int32)
        if self._resets_by == "env_id":
            new = self._fields(self._reset(len(rows), env_id=rows)[0], self._where("reset after"))
        else:
            new = self._fields(self._reset(options={"reset_mask": done.copy()})[0])
            new = {name: array[rows] for name, array in new.items()}
        return with_rows(fields, rows, new)

    def _final_fields(
        self, fields: Fields, truncated: Bool[np.ndarray, " B"], info: dict[str, Any]
    ) -> Fields:
        """Return the last observations of episodes that were reset in the same step."""
        final = fields
        for row in np.flatnonzero(truncated).tolist():
            last = row_of(as_arrays(info.get("final_obs")), row)
            if last is None:
                raise EnvError(
                    f"{self._where('step')} truncated env {row} without its info['final_obs'], "
                    "which the autoreset mode SAME_STEP has for the value of what was cut off; add "
                    "it, or use AutoresetMode.DISABLED with reset_mask"
                )
            batch = batch_of_one(last)
            name = f"{self._where('step')}, final_obs of env {row},"
            check_batch(name, batch, self.original_space, 1)
            final = with_rows(final, [row], self._fields(batch, name))
        return final

    def _success(
        self, done: Bool[np.ndarray, " B"], info: dict[str, Any]
    ) -> Float32[np.ndarray, " B"]:
        """Return 1 for the episodes that ended in success, nan where that is not known, else 0."""
        success = np.where(done, np.float32(np.nan), np.float32(0))
        final = info.get("final_info")
        source = final if isinstance(final, Mapping) else info
        key = next((key for key in SUCCESS_INFO_KEYS if source.get(key) is not None), None)
        if key is None or not done.any():
            return success
        values, is_known = source[key], source.get(f"_{key}", np.ones(self.num_envs, bool))
        if np.ndim(values) != 1 or len(values) != self.num_envs:
            raise EnvError(f"{self._where('step')} returned {shown(values)} as {key} of its info, "
                           f"not one for each of the {self.num_envs} environments")  # fmt: skip
        for row in np.flatnonzero(done & np.asarray(is_known, bool)):
            where = f"{self._where('step')}, env {row},"
            success[row] = yes_or_no(values[row], f"{key} of its info", where)
            self.has_success = True
        return success

    def _fields(self, observation: Batch, name: str | None = None) -> Fields:
        """Return observations in the flat form, in arrays that no later step writes to.

        Args:
            observation: of all envs.
            name: where it is of others, what it is, for people.
        """
        fields = {key: np.array(array) for key, array in self._flatten(observation).items()}
        check_categories(fields, self.observation_space, name or self._env_id, name is None)
        return fields

    def _call(self, what: str, call: Callable[[], T]) -> T:
        self._watchdog.what = self._where(what)
        with self._watchdog.handler(), self._numbers:
            self._watchdog.begin()
            try:
                return call()
            except (Exception, SystemExit) as error:
                raise EnvError(f"{self._where(what)} failed: {words_of(error)}") from error
            finally:
                self._watchdog.end()

    def _checked(self, what: str, result: Any, num_values: int, num_rows: int | None = None) -> Any:
        """Return what a step or a reset has returned, observations as arrays, or raise EnvError."""
        where = self._where(what)
        if not isinstance(result, tuple) or len(result) != num_values:
            raise EnvError(f"{where} returned {shown(result)}, not {num_values} values")
        if not isinstance(result[-1], dict):
            raise EnvError(f"{where} returned the info {shown(result[-1])}, not a dict")
        observation = as_arrays(result[0])
        check_batch(where, observation, self.original_space, num_rows or self.num_envs)
        return (observation, *result[1:])

    def _where(self, what: str) -> str:
        return f"{self._env_id}: {what} {self._num_steps}"


def make_vector(env_id: str, num_envs: int, seed: int, options: dict[str, Any]) -> VectorEnv:
    """Make the vector environment of an id.

    Raises:
        ValueError: where it is none.
    """
    spec = find_spec(env_id)
    options = {**spec.kwargs, **options}
    if spec.max_episode_steps is not None:
        options.setdefault("max_episode_steps", spec.max_episode_steps)
    if env_id.startswith(f"{ENVPOOL}:"):
        options["seed"] = seed  # its resets take none
    env = load(spec.vector_entry_point)(num_envs=num_envs, **options)
    if not isinstance(env, VectorEnv):
        raise ValueError(f"its vector_entry_point made {type(env).__name__}, not a VectorEnv")
    return env


def _autoreset_mode(env_id: str, env: VectorEnv) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise ValueError(
            f"env={env_id!r} has metadata['autoreset_mode']={mode!r}; set it to a "
            "gymnasium.vector.AutoresetMode, by what its step does when an episode ends"
        ) from None


def _resets_by(env: VectorEnv, mode: AutoresetMode) -> str | None:
    """Return which argument of `reset` says which envs are meant; None where none does."""
    if mode is AutoresetMode.SAME_STEP:
        return None
    if "env_id" in inspect.signature(env.reset).parameters:
        return "env_id"  # EnvPool's
    is_gymnasiums = isinstance(env, SyncVectorEnv) or (
        # without shared memory its processes forget that they have been reset
        isinstance(env, AsyncVectorEnv) and env.shared_memory
    )
    return "options" if mode is AutoresetMode.DISABLED or is_gymnasiums else None


def _no_ends(num_envs: int) -> Ends:
    no = np.zeros(num_envs, bool)
    return Ends(no, no, np.zeros(num_envs, np.float32))
