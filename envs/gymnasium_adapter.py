"""Any Gymnasium environment as a batch of tensors, through Gymnasium's own SyncVectorEnv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FilterObservation, TimeLimit
from jaxtyping import Shaped
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.action_mask import MaskInObservation, check_mask, has_mask_in_info
from envs.batched_env import RENDER_FPS, BatchedEnv, EnvStep, Observation
from envs.construction import close_all, find_wraps, make_single, one_line_of
from envs.cues import cue_in_view, has_cue
from envs.guarded_env import GuardedEnv, check_categories
from envs.observation_fields import (
    Fields,
    check_categories_fit,
    flat_space,
    leaves,
    make_flattener,
    minigrid_grids,
    name_of,
)
from envs.recall import RecallEnv
from envs.watchdog import Watchdog


class GymnasiumEnv(BatchedEnv):
    """`num_envs` copies of a registered Gymnasium environment in one process.

    Success, where it is known: what the info says under "is_success" or "success" when an episode
    ends; for MiniGrid, where it does not, an episode that terminated with a reward of MiniGrid's.

    A mask of actions in the info is moved into the observation, as `action_mask`: see
    `envs.action_mask`.

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
        wrap: wrappers, the innermost first: see `envs.make`.

    Raises:
        ValueError: for an environment that cannot be made, copies whose spaces differ, a space
            that cannot be taken, or a render mode that is not there.
        EnvError: from `reset` and `step`, where an environment raises, hangs or returns what its
            spaces forbid.
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
        wrap: Sequence[str] = (),
    ):
        env_kwargs = env_kwargs or {}
        wraps = find_wraps(wrap)
        if render_mode is not None:
            _check_drawn(env_id, env_kwargs, render_mode)
        self._env_id = env_id
        self._watchdog = Watchdog(timeout)
        singles: list[gymnasium.Env] = []
        try:
            for _ in range(num_envs):
                singles.append(make_single(env_id, env_kwargs, wraps, render_mode))
                _check_alike(env_id, singles)
            if has_mask_in_info(singles[0], self._watchdog):
                singles = [MaskInObservation(single) for single in singles]
            first = singles[0]
            try:
                grids = self._grids(first) if isinstance(first.unwrapped, MiniGridEnv) else ()
                self.observation_space = flat_space(first.observation_space, grids)
                self.action_space = _check_action_space(first.action_space)
            except ValueError as error:
                raise ValueError(one_line_of(f"env={env_id!r}: {error}")) from None
        except BaseException:
            close_all(singles)
            raise
        self.has_cue = has_cue(first.unwrapped)
        self.has_success = isinstance(first.unwrapped, MiniGridEnv | RecallEnv)
        self.has_time_limit = self.has_success or _is_limited(first)
        if first.spec is not None and first.spec.reward_threshold is not None:
            self.reward_threshold = float(first.spec.reward_threshold)
        self.render_fps = _render_fps(first)
        self._cue: Tensor | None = None
        kept = _kept_fields(first.observation_space, self.observation_space)

        def guarded(index: int) -> gymnasium.Env:
            env = singles[index]
            if level_seeds is not None:
                env = SeededEpisodes(env, level_seeds, first=index, step=num_envs)
            if kept:
                env = FilterObservation(env, kept)
            return GuardedEnv(env, f"{env_id}, env {index} of {num_envs}", self._watchdog)

        self.num_envs = num_envs
        self.device = torch.device(device)
        self._vector_env = SyncVectorEnv(
            [partial(guarded, index) for index in range(num_envs)],
            copy=False,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        self.original_space = self._vector_env.single_observation_space
        """Of one env, as Gymnasium has it, without what is always the same."""
        self._flatten = make_flattener(self.original_space, self.observation_space)
        seeds = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        self._has_started = False
        self._seeds = [int(value) for value in seeds.generate_state(num_envs)]

    def reset(self) -> Observation:
        # the seeds are for the first time: a second reset goes on with the next levels
        with self._watchdog.handler():
            observation, _ = self._vector_env.reset(
                seed=None if self._has_started else list(self._seeds)
            )
        self._has_started = True
        self._look_for_cues()
        return self._tensors(self._flat(observation))

    def step(self, actions: Shaped[Tensor, "B ..."]) -> EnvStep:
        cue = self._cue
        with self._watchdog.handler():
            observation, reward, terminated, truncated, info = self._vector_env.step(
                to_gymnasium(actions.detach().cpu().numpy(), self.action_space)
            )
        self._look_for_cues()
        flat = self._flat(observation)
        success = self._success(terminated | truncated, info)
        return EnvStep(
            observation=self._tensors(flat),
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
        frame = self._vector_env.envs[index].render()
        if not isinstance(frame, np.ndarray):
            raise ValueError(
                "this environment draws no pictures; make it with render_mode='rgb_array', and "
                "check that its metadata['render_modes'] lists it"
            )
        return frame

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

    def _grids(self, first: gymnasium.Env) -> set[str]:
        """Return which parts of the observation are MiniGrid's grids, by a look at the first."""
        probe = GuardedEnv(first, self._env_id, self._watchdog)
        with self._watchdog.handler():
            observation, _ = probe.reset(seed=0)
        return minigrid_grids(probe.observation_space, observation)

    def _look_for_cues(self) -> None:
        """Note which cue each env shows."""
        if self.has_cue:
            cues = [cue_in_view(env.unwrapped) for env in self._vector_env.envs]
            self._cue = torch.tensor(cues, device=self.device)

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
            single = self._flat(_batch_of_one(info["final_obs"][row]), f"{self._env_id}, env {row}")
            for name, array in single.items():
                final[name][row] = array[0]
        return self._tensors(final)

    def _tensors(self, fields: Fields) -> Observation:
        # SyncVectorEnv writes the next step into the same arrays: copy.
        return {
            name: torch.as_tensor(array).to(self.device, copy=True)
            for name, array in fields.items()
        }


def to_gymnasium(
    actions: Shaped[np.ndarray, "B ..."], space: spaces.Space
) -> Shaped[np.ndarray, "B ..."]:
    """Return actions of the agent as the environment takes them: within its bounds, in its form."""
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return actions + space.start
    assert isinstance(space, spaces.Box)
    # a memory that is not finite acts like that until it is found: see agents.finite
    shaped = np.nan_to_num(actions).reshape(len(actions), *space.shape)
    if np.issubdtype(space.dtype, np.integer):
        shaped = np.rint(shaped)
    return np.clip(shaped, space.low, space.high).astype(space.dtype)


class SeededEpisodes(gymnasium.Wrapper):
    """Seeds every episode: number first, first + step, ... of the seeds, round and round."""

    def __init__(self, env: gymnasium.Env, seeds: Sequence[int], first: int, step: int):
        super().__init__(env)
        self._seeds, self._next, self._step = seeds, first, step

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        seed = int(self._seeds[self._next % len(self._seeds)])
        self._next += self._step
        return self.env.reset(seed=seed, options=options)


def _is_limited(env: gymnasium.Env) -> bool:
    """Return whether Gymnasium's own wrapper ends the episodes."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, TimeLimit):
            return True
        env = env.env
    return False


def _render_fps(env: gymnasium.Env) -> float:
    fps = env.metadata.get("render_fps")
    return float(fps) if isinstance(fps, int | float) and 0 < fps < float("inf") else RENDER_FPS


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {name: _batch_of_one(value) for name, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_batch_of_one(value) for value in observation)
    return [observation] if isinstance(observation, str) else np.asarray(observation)[None]


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


def _check_action_space(space: spaces.Space) -> spaces.Space:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        check_categories_fit("the action", space)
    if isinstance(space, spaces.Discrete | spaces.Box):
        return space
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return space
    raise ValueError(
        f"action space {space} is not supported; supported are Discrete, MultiDiscrete (of one "
        "axis) and Box: wrap the environment so that it takes one of those"
    )
