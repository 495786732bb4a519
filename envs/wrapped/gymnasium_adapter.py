"""Any Gymnasium environment as a batch of tensors, through Gymnasium's own vector environments."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from jaxtyping import Shaped
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.batched_env import BatchedEnv, EnvStep, Observation
from envs.construction import Wrap, close_all, make_single, one_line_of
from envs.counter_random import sequence_of
from envs.memory_tasks.cues import has_cue
from envs.observation_fields import Fields, flat_space, leaves, make_flattener, name_of
from envs.specs import find_spec
from envs.wrapped.action_mask import ACTION_MASK, MaskInObservation, check_mask
from envs.wrapped.first_look import look
from envs.wrapped.guarded_env import TEXTS, check_categories
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
from envs.wrapped.processes import ProcessVectorEnv, num_cores
from envs.wrapped.single_env import SinglePlan, make_in_process
from envs.wrapped.watchdog import Watchdog

Vectorize = Literal["auto", "sync", "async"]
PROCESS_SECONDS = 1e-3
"""A step that takes as long pays for the way to another process and back, .2 to .3 ms."""


class GymnasiumEnv(BatchedEnv):
    """`num_envs` copies of a registered Gymnasium environment, in one process or in many.

    Success, where it is known: what the info says under "is_success" or "success" when an episode
    ends; for MiniGrid, where it does not, an episode that terminated with a reward of MiniGrid's.

    A mask of actions in the info is moved into the observation, as `action_mask`: see
    `envs.wrapped.action_mask`.

    Args:
        env_id: a registered id.
        num_envs: number of copies B.
        device: where tensors go.
        seed: seeds the copies, each with its own stream.
        render_mode: Gymnasium's; "rgb_array" to use `render`.
        level_seeds: the k-th episode of env i is seeded with number i + k B of these, from the
            start again after the last.
        timeout: seconds that one step or reset of one environment may take; None: any time.
        env_kwargs: arguments of the constructor, over those of the id.
        wraps: from `find_wraps`, the innermost first.
        vectorize: see `envs.make`.
        part: see `envs.make`.

    Raises:
        ValueError: for an environment that cannot be made, copies whose spaces differ, a space
            that cannot be taken, or a render mode that is not there.
        EnvError: from `reset` and `step`, where an environment raises, hangs, returns what its
            spaces forbid, or its process ends.
    """

    backend = "gymnasium"

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
        wraps: Sequence[tuple[str, Wrap]] = (),
        vectorize: Vectorize = "sync",
        part: tuple[int, int] = (0, 1),
    ):
        env_kwargs = env_kwargs or {}
        if render_mode is not None:
            _check_drawn(env_id, env_kwargs, render_mode)
        self._env_id = env_id
        self.num_envs = num_envs
        self.device = torch.device(device)
        self._watchdog = Watchdog(timeout)
        seeds = sequence_of(seed)
        self._numbers = OwnNumbers(int(seeds.generate_state(1)[0]))
        self._has_started = False
        index, num_parts = part
        values = seeds.generate_state(num_parts * num_envs)[index * num_envs :][:num_envs]
        self._seeds = [int(value) for value in values]
        self._cue: Tensor | None = None
        may_fork = vectorize != "sync" and num_envs > 1 and render_mode is None
        first = make_single(env_id, env_kwargs, wraps, render_mode)
        singles = [first]
        try:
            is_timed = may_fork and vectorize == "auto" and num_cores() > 1
            with _with_id(env_id):
                self.action_space = check_action_space(first.action_space)
                seen = look(first, self._watchdog, is_timed)
                self.has_info_mask = seen.has_mask
                if seen.has_mask:
                    first = MaskInObservation(first)
                space = first.observation_space
                self.observation_space = flat_space(space, seen.grids)
            _look_for_hidden_masks(env_id, space, self.action_space)
            self._describe(first)
            plan = SinglePlan(
                env_id=env_id,
                spec=None if ":" in env_id else find_spec(env_id),
                num_envs=num_envs,
                env_kwargs=env_kwargs,
                wrap=[name for name, _ in wraps],
                has_mask=seen.has_mask,
                has_text=any(isinstance(leaf, TEXTS) for _, leaf in leaves(space)),
                kept=_kept_fields(space, self.observation_space),
                level_seeds=level_seeds,
                timeout=timeout,
            )
            is_slow = is_timed and seen.step_seconds >= PROCESS_SECONDS
            forks = may_fork and (vectorize == "async" or is_slow)
            if forks:
                close_all(singles)
                singles.clear()
                forks = self._fork(plan, level_seeds or self._seeds, vectorize == "async")
            if not forks:
                while len(singles) < num_envs:
                    singles.append(make_single(env_id, env_kwargs, wraps, render_mode))
                    _check_alike(env_id, singles)
                self._vector_env = self._in_this_process(plan, singles)
        except BaseException:
            close_all(singles)
            self._watchdog.close()
            raise
        self.original_space = self._vector_env.single_observation_space
        """Of one env, as Gymnasium has it, without what is always the same."""
        self._flatten = make_flattener(self.original_space, self.observation_space)

    def _in_this_process(self, plan: SinglePlan, singles: Sequence[gymnasium.Env]) -> SyncVectorEnv:
        makers = [
            partial(plan.guarded, env, index, self._watchdog) for index, env in enumerate(singles)
        ]
        return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)

    def _fork(self, plan: SinglePlan, seeds: Sequence[int], must: bool) -> bool:
        """Make processes; where they need not be, and cannot, say so and return False."""
        try:
            self._vector_env = self._in_processes(plan, seeds)
        except ValueError as error:
            if must:
                raise
            warnings.warn(
                f"its steps are slow, but processes cannot be: {error}. All copies are stepped in "
                "this process",
                RuntimeWarning,
                stacklevel=3,
            )
            return False
        self.num_processes = self.num_envs
        return True

    def _in_processes(self, plan: SinglePlan, seeds: Sequence[int]) -> ProcessVectorEnv:
        makers = [
            partial(make_in_process, plan, index, int(seeds[index % len(seeds)]), os.getpid())
            for index in range(self.num_envs)
        ]
        return ProcessVectorEnv(makers, self._env_id, plan.timeout, not plan.has_text)

    def _describe(self, first: gymnasium.Env) -> None:
        """Say what is known of the task by its first copy."""
        self.has_cue = has_cue(first.unwrapped)
        single = first.unwrapped
        self.has_success = isinstance(single, MiniGridEnv) or getattr(single, "says_success", False)
        self.has_time_limit = self.has_success or _is_limited(first)
        self.reward_threshold = reward_threshold(first.spec)
        self.render_fps = fps_of(first.metadata)

    def reset(self) -> Observation:
        # the seeds are for the first time: a second reset goes on with the next levels
        with self._watchdog.handler(), self._numbers:
            observation, info = self._vector_env.reset(
                seed=None if self._has_started else list(self._seeds)
            )
        self._has_started = True
        self._note_cues(info)
        return to_tensors(self._flat(observation), self.device)

    def step(self, actions: Shaped[Tensor, "B ..."]) -> EnvStep:
        cue = self._cue
        with self._watchdog.handler(), self._numbers:
            observation, reward, terminated, truncated, info = self._vector_env.step(
                to_gymnasium(actions, self.action_space)
            )
        self._note_cues(info)
        flat = self._flat(observation)
        success = self._success(terminated | truncated, info)
        return EnvStep(
            observation=to_tensors(flat, self.device),
            reward=torch.as_tensor(reward, dtype=torch.float32).to(self.device, copy=True),
            terminated=torch.as_tensor(terminated).to(self.device, copy=True),
            truncated=torch.as_tensor(truncated).to(self.device, copy=True),
            success=torch.as_tensor(success).to(self.device),
            final_observation=self._final_observation(flat, truncated, info),
            cue=cue,
        )

    def bound_episodes(self, max_steps: int) -> None:
        self._vector_env.set_attr("step_bound", max_steps)

    def render(self, index: int) -> np.ndarray:
        # those in processes are made without pictures
        envs = self._vector_env.envs if isinstance(self._vector_env, SyncVectorEnv) else None
        return check_picture(envs[index].render() if envs else None)

    def close(self) -> None:
        with self._watchdog.handler():
            self._vector_env.close()
        self._watchdog.close()

    def _flat(self, observation: Any, name: str | None = None) -> Fields:
        """Flatten a batch; `name` is that of its only row, where it is no batch of all envs."""
        fields = self._flatten(observation)
        check_categories(fields, self.observation_space, name or self._env_id, name is None)
        if name is None:  # no action follows the last observation of an episode
            check_mask(fields, self.action_space, self._env_id)
        return fields

    def _note_cues(self, info: dict[str, Any]) -> None:
        """Note which cue each env shows."""
        if self.has_cue:
            self._cue = torch.as_tensor(info["cue"]).to(self.device, copy=True)

    def _success(self, done: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """Return 1 for the episodes that ended in success, nan where that is not known, else 0."""
        final_info = info.get("final_info", {})
        if "is_success" not in final_info:  # the name that GuardedEnv gives it
            return np.where(done, np.float32(np.nan), np.float32(0))
        self.has_success = True
        known = final_info["is_success"].astype(np.float32)
        return np.where(done & ~final_info["_is_success"], np.float32(np.nan), known)

    def _final_observation(
        self, flat: Fields, truncated: np.ndarray, info: dict[str, Any]
    ) -> Observation | None:
        rows = np.flatnonzero(truncated)
        if not len(rows):
            return None
        final = {name: array.copy() for name, array in flat.items()}
        for row in rows:
            single = self._flat(batch_of_one(info["final_obs"][row]), f"{self._env_id}, env {row}")
            for name, array in single.items():
                final[name][row] = array[0]
        return to_tensors(final, self.device)


def _is_limited(env: gymnasium.Env) -> bool:
    """Return whether Gymnasium's own wrapper ends the episodes."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            return True
        env = env.env
    return False


@contextmanager
def _with_id(env_id: str) -> Iterator[None]:
    """Name the environment in an error of its spaces, in one line."""
    try:
        yield
    except ValueError as error:
        raise ValueError(one_line_of(f"env={env_id!r}: {error}")) from None


def _check_drawn(env_id: str, env_kwargs: Mapping[str, Any], render_mode: str) -> None:
    """Raise ValueError for a render mode that an environment does not have."""
    probe = make_single(env_id, env_kwargs)
    drawn = probe.metadata.get("render_modes") or []
    probe.close()
    if render_mode not in drawn:
        raise ValueError(
            f"env={env_id!r} does not draw pictures as {render_mode!r} (it draws {drawn}); "
            "leave out --video, or use an environment that does"
        )


def _look_for_hidden_masks(env_id: str, space: spaces.Space, actions: spaces.Space) -> None:
    """Warn of masks of actions that are seen, and not kept to."""
    for path, _ in leaves(space):
        if path[1:] and path[-1] == ACTION_MASK and not isinstance(actions, spaces.Box):
            warnings.warn(
                f"env={env_id!r}: observation {name_of(path)!r} is only seen, and actions need not "
                f"keep to it; put {ACTION_MASK!r} at the top of the observation, or into the info",
                RuntimeWarning,
                stacklevel=4,
            )


def _check_alike(env_id: str, singles: Sequence[gymnasium.Env]) -> None:
    """Raise ValueError where the last copy has other spaces than the first."""
    first, last = singles[0], singles[-1]
    for name in ("observation_space", "action_space"):
        ours, theirs = getattr(first, name), getattr(last, name)
        if ours != theirs:
            raise ValueError(one_line_of(
                f"env={env_id!r} has another {name} in each copy: {ours} in the first and {theirs} "
                f"in copy {len(singles)}; make its spaces, bounds included, the same in all"
            ))  # fmt: skip


def _kept_fields(space: spaces.Space, flat: spaces.Dict) -> list[Any]:
    """Return the top-level keys to keep, or nothing where all are kept."""
    if not isinstance(space, spaces.Dict):
        return []
    used = {path[0] for path, _ in leaves(space) if name_of(path) in flat.spaces}
    return [] if used == set(space.spaces) else [key for key in space.spaces if key in used]
