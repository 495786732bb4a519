"""What the environments that are tensors have in common. Shapes: B envs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int64, Shaped
from minigrid.minigrid_env import MiniGridEnv
from torch import Tensor

from envs.batched_env import BatchedEnv, EnvStep, Observation
from envs.construction import named
from envs.counter_random import CounterRandom
from envs.observation_fields import flat_space
from envs.specs import source_of

GymEnv = TypeVar("GymEnv", bound=gymnasium.Env)
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class StepEnd(NamedTuple):
    """How a step of B envs ended."""

    reward: Float[Tensor, " B"]
    terminated: Bool[Tensor, " B"]
    truncated: Bool[Tensor, " B"]
    success: Bool[Tensor, " B"]


class TensorEnv(BatchedEnv, Generic[GymEnv]):
    """B environments as tensors on a device.

    What happens depends on the seed and the actions alone, and is the same on every device.
    `device_step` on a GPU synchronises nothing; its state lives in buffers that are written in
    place, so that a CUDA graph can capture it.

    Attributes:
        prototype: a Gymnasium environment of the same id: its spaces, and what reads levels.
        action_names: what the actions from 0 on are called, or each part of them; not of a Box.
        success_info: where the info of a Gymnasium environment says success, if it does.
        draws_pictures: whether `render` can.
        keeps_final: give `final_observation` for every episode that ends, not only for truncated
            ones. On a GPU it is always given.

    Args:
        env_id: registered with Gymnasium.
        num_envs: B.
        device: where the environments live.
        seed: of the levels, and of what moves by itself.
        level_seeds: play the levels of the Gymnasium form's `reset(seed)` for these seeds: the
            k-th episode of env i has the level of number i + k B, from the start again after the
            last.
        options: of the environment.
        part: (k, n): these are the k-th of n equal parts of a batch, k from 0, and have the levels
            that its envs have there.

    Raises:
        ValueError: for options with which it cannot be made.
    """

    has_success = True
    backend = "tensor"
    action_names: tuple[str, ...]
    success_info: str | None = None
    draws_pictures: ClassVar[bool] = False

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        device: torch.device | str = "cpu",
        seed: int | np.random.SeedSequence = 0,
        level_seeds: Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
        part: tuple[int, int] = (0, 1),
    ):
        with named(env_id, options or {}):
            source = source_of(env_id, options)
            self.prototype = prototype = self._make_prototype(*source)
            if options:
                prototype.reset(seed=0)  # a size that cannot be is found here
        self._env_id, self.num_envs = env_id, num_envs
        self.device = torch.device(device)
        grids = ["image"] if isinstance(prototype, MiniGridEnv) else []
        self.observation_space = flat_space(prototype.observation_space, grids)
        self.action_space = prototype.action_space
        self.keeps_final = False
        self.render_fps = float(prototype.metadata.get("render_fps", self.render_fps))
        self._every_row = torch.arange(num_envs, device=self.device)
        index, num_parts = part
        self._first_env = index * num_envs
        self._all_keys = self._every_row.new_zeros(num_parts * num_envs)  # of the whole batch
        self._keys = self._all_keys[self._first_env : self._first_env + num_envs]
        self._buffers: dict[str, Tensor] = {"episode": torch.zeros_like(self._every_row)}
        self._has_episodes = False
        self._num_steps = 0
        # to look at the data costs nothing; on a GPU it is a synchronisation
        self._on_host = self.device.type == "cpu"
        kind = repr((source, level_seeds and list(level_seeds)))
        self._has_level_seeds = level_seeds is not None
        self._kind = int.from_bytes(blake2b(kind.encode(), digest_size=7).digest())
        self._set_up(level_seeds)
        self.seed(seed)

    @abstractmethod
    def _make_prototype(self, env_class: Any, options: dict[str, Any]) -> GymEnv:
        """Make one Gymnasium environment."""

    @abstractmethod
    def _set_up(self, level_seeds: Sequence[int] | None) -> None:
        """Make what a kind of environment needs, and its buffers."""

    def seed(self, seed: int | np.random.SeedSequence) -> None:
        """Begin again: the next `reset` gives the first levels of the seed."""
        self._all_keys.copy_(CounterRandom.keys(seed, len(self._all_keys)))
        self._buffers["episode"].zero_()
        self._has_episodes = False
        self._num_steps = 0

    def reset(self) -> Observation:
        self._prepare_episodes()
        if self._has_episodes:
            self._buffers["episode"] += 1
        self._has_episodes = True
        self._start_(self._every_row)
        return self._observe()

    def restart(self, rows: Bool[Tensor, " B"]) -> Observation:
        """Start the next episode in some envs, though theirs have not ended.

        Args:
            rows: which.

        Returns:
            What all envs see then.
        """
        self._check_started()
        numbers = rows.nonzero().squeeze(1)
        self._buffers["episode"][numbers] += 1
        self._start_(numbers)
        self._prepare_episodes()
        return self._observe()

    def step(self, actions: Tensor) -> EnvStep:
        self._check_actions(actions)
        self.host_step()
        return self.device_step(actions)

    def host_step(self) -> None:
        """Do the part of a step that is the host's: count it, and now and then renew levels.

        Raises:
            ValueError: when no episode has started.
        """
        self._check_started()
        self._num_steps += 1
        self._prepare_step()

    def device_step(self, actions: Tensor) -> EnvStep:
        """Do the part of a step that is the device's: what a CUDA graph captures.

        Who replays a graph of n steps calls `host_step` n times before each replay: levels are
        renewed up to n steps earlier then.
        """
        if not isinstance(self.action_space, spaces.Box):
            actions = actions.long()
        cue = self._cue_in_view()
        end = self._advance_(actions)
        done = end.terminated | end.truncated
        observation, final_observation = self._autoreset_(done, end.truncated)
        return EnvStep(
            observation=observation,
            reward=end.reward,
            terminated=end.terminated,
            truncated=end.truncated,
            success=end.success,
            final_observation=final_observation,
            cue=cue,
        )

    @abstractmethod
    def load(self, gym_envs: Sequence[GymEnv]) -> Observation:
        """Go on from the episodes that Gymnasium environments are in, and return what is seen.

        Args:
            gym_envs: B environments of the same kind as these, unwrapped.

        Raises:
            ValueError: for another number or kind of environments, or one without an episode.
        """

    @abstractmethod
    def _advance_(self, actions: Shaped[Tensor, "B ..."]) -> StepEnd:
        """Take the actions, and say how the step ended; nothing is reset yet."""

    def _cue_in_view(self) -> Int64[Tensor, " B"] | None:
        """Return which cue each env shows: see `EnvStep.cue`."""
        return None

    @abstractmethod
    def _observe(self, rows: Int64[Tensor, " n"] | None = None) -> Observation:
        """Return what the envs in `rows`, or all, see: tensors that no later step writes to."""

    @abstractmethod
    def _first_state(self, rows: Int64[Tensor, " n"]) -> dict[str, Tensor]:
        """Return what the buffers of the envs in `rows` hold when their next episode starts."""

    def render(self, index: int) -> np.ndarray:
        raise ValueError(
            f"index={index}: {self._env_id} draws no pictures; use an environment that does, such "
            "as mtxl/TMaze10-v0"
        )

    def close(self) -> None:
        self.prototype.close()

    @property
    def num_bytes(self) -> int:
        """Memory of the state: the same at every step."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers.values())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the whole state, the random numbers' included, as copies.

        Raises:
            ValueError: when no episode has started.
        """
        self._check_started()
        return {name: buffer.clone() for name, buffer in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> Observation:
        """Go on from the state of an environment of the same id and size; return what is seen.

        Raises:
            ValueError: for a state that does not fit, naming the entry; nothing has changed then.
        """
        buffers = self._state()
        if set(state) != set(buffers):
            raise ValueError(f"state has the entries {sorted(state)}, not {sorted(buffers)}")
        for name, buffer in buffers.items():
            value = state[name]
            if value.shape != buffer.shape or value.dtype != buffer.dtype:
                raise ValueError(
                    f"state[{name!r}] is {tuple(value.shape)} {value.dtype}, but this environment "
                    f"has {tuple(buffer.shape)} {buffer.dtype}; load it into one of the same id, "
                    "options and num_envs"
                )
        if int(state["kind"]) != self._kind:
            raise ValueError(
                "the state is of another environment, other options or other level_seeds than "
                f"this {type(self.prototype).__name__}; load it into one made alike"
            )
        for name, buffer in buffers.items():
            buffer.copy_(state[name])
        self._has_episodes = True
        self._num_steps = int(state["num_steps"])
        self._prepare_episodes()
        return self._observe()

    def _state(self) -> dict[str, Tensor]:
        counts = {"num_steps": torch.tensor(self._num_steps), "kind": torch.tensor(self._kind)}
        return self._buffers | counts | {"keys": self._all_keys}

    def _check_started(self) -> None:
        if not self._has_episodes:
            raise ValueError("no episode has started; call reset() first")

    def _level_in_turn(
        self, rows: Int64[Tensor, " n"], episode: Int64[Tensor, "*K n"], num_levels: int
    ) -> Int64[Tensor, "*K n"]:
        """Return which of the levels of given seeds an episode of an env has."""
        return (self._first_env + rows + episode * len(self._all_keys)) % num_levels

    @abstractmethod
    def _prepare_episodes(self) -> None:
        """Prepare the episodes to come, after the streams or the counts have changed."""

    def _prepare_step(self) -> None:
        """Do what a step needs on the host."""

    def _autoreset_(
        self, done: Bool[Tensor, " B"], truncated: Bool[Tensor, " B"]
    ) -> tuple[Observation, Observation | None]:
        """Reset where an episode ended; return what is seen then, and what was seen before."""
        episode = self._buffers["episode"]
        if not self._on_host:
            final = self._observe()
            episode += done
            for name, first in self._first_state(self._every_row).items():
                buffer = self._buffers[name]
                is_new = done.view(-1, *[1] * (buffer.dim() - 1))
                buffer.copy_(torch.where(is_new, first, buffer))
            return self._observe(), final
        rows = done.nonzero().squeeze(1)
        if not len(rows):
            return self._observe(), None
        needs_final = self.keeps_final or bool(truncated.any())
        last = self._observe(rows) if needs_final else {}
        episode[rows] += 1
        self._start_(rows)
        observation = self._observe()
        final = {
            name: value.new_zeros(observation[name].shape).index_copy_(0, rows, value)
            for name, value in last.items()
        }
        return observation, final or None

    def _start_(self, rows: Int64[Tensor, " n"]) -> None:
        for name, first in self._first_state(rows).items():
            self._buffers[name].index_copy_(0, rows, first)

    def _check_actions(self, actions: Tensor) -> None:
        is_box = isinstance(self.action_space, spaces.Box)
        shape = (self.num_envs, *(self.action_space.shape or ()))
        is_fit = actions.is_floating_point() if is_box else actions.dtype in _WHOLE
        if actions.shape != shape or not is_fit:
            raise ValueError(
                f"actions are {tuple(actions.shape)} {actions.dtype}; pass "
                f"{'' if is_box else 'whole '}numbers, one for each env"
                f"{' and part' if len(shape) > 1 else ''}: {shape} "
                f"{'float32' if is_box else 'int64'}"
            )
        if actions.device.type != self.device.type:
            raise ValueError(
                f"actions are on {actions.device}, the environments on {self.device}; pass "
                f"actions.to({str(self.device)!r})"
            )
        if is_box:
            return  # what is beyond the bounds is the environment's to clip
        num_actions = len(self.action_names)
        allowed = f"must be from 0 to {num_actions - 1}"
        if not self._on_host:
            in_range = (actions >= 0) & (actions < num_actions)
            torch.ops.aten._assert_async.msg(in_range.all(), f"actions {allowed}")
            return
        least, most = (int(extreme) for extreme in actions.aminmax())
        if least < 0 or most >= num_actions:
            raise ValueError(
                f"action {least if least < 0 else most} {allowed}: {', '.join(self.action_names)}"
            )

    def _check_loadable(self, gym_envs: Sequence[GymEnv]) -> None:
        if len(gym_envs) != self.num_envs:
            raise ValueError(
                f"load was given {len(gym_envs)} environments; this batch has num_envs="
                f"{self.num_envs}: pass one for each"
            )
        for env in gym_envs:
            self._check_kind(env)
            if not self._has_episode(env):
                raise ValueError("load was given an environment without an episode; reset() it")

    def _check_kind(self, env: GymEnv) -> None:
        if type(env) is not type(self.prototype):
            raise ValueError(
                f"load was given a {type(env).__name__}, but this batch is of "
                f"{type(self.prototype).__name__}; pass `env.unwrapped` of the same id"
            )

    @abstractmethod
    def _has_episode(self, env: GymEnv) -> bool:
        """Tell whether a Gymnasium environment is in an episode."""


def check_action(space: spaces.Space, action: Any) -> None:
    """Raise ValueError for an action that is none of a space's choices; a Box is not looked at.

    Single environments refuse by it what their tensors refuse.
    """
    if isinstance(space, spaces.Box) or space.contains(np.asarray(action)):
        return
    raise ValueError(f"action {action!r} is none of {space}; take one of those")
