"""An environment of one's own that is tensors, for tests: registers own/Echo-v0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

import envs
from envs import BatchedEnv, EnvStep


class EchoEnv(BatchedEnv):
    """A symbol is drawn at each step, and the reward is 1 for saying the one of before."""

    action_space = spaces.Discrete(2)
    has_success = True

    def __init__(self, num_envs: int, device: torch.device, seed: int, length: int = 4):
        self.num_envs, self.device, self.length = num_envs, device, length
        self.observation_space = spaces.Dict(
            {"symbol": spaces.Discrete(2), "time": spaces.Box(0, np.inf, (1,))}
        )
        self.seed = seed
        self.generator = torch.Generator(device).manual_seed(seed)
        self.symbol = self.time = torch.zeros(0)

    def reset(self) -> dict[str, Tensor]:
        self.time = torch.zeros(self.num_envs, device=self.device)
        return self._observe()

    def step(self, actions: Tensor) -> EnvStep:
        is_right = actions == self.symbol
        self.time = self.time + 1
        done = self.time == self.length
        final = {"symbol": self.symbol, "time": self.time[:, None]}
        self.time = torch.where(done, 0.0, self.time)
        no = torch.zeros_like(done)
        return EnvStep(
            self._observe(), is_right.float(), no, done, is_right & done, final_observation=final
        )

    def _observe(self) -> dict[str, Tensor]:
        size = (self.num_envs,)
        self.symbol = torch.randint(2, size, generator=self.generator, device=self.device)
        return {"symbol": self.symbol, "time": self.time[:, None]}

    def render(self, index: int) -> np.ndarray:
        raise ValueError("it draws no pictures; leave out --video")

    def close(self) -> None:
        pass


class SavedEchoEnv(EchoEnv):
    """It can save its state, so that a resumed run is the same run."""

    def state_dict(self) -> dict[str, Tensor]:
        return {"symbol": self.symbol, "time": self.time, "random": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.symbol, self.time = state["symbol"], state["time"]
        self.generator.set_state(state["random"])


class ReusingEchoEnv(EchoEnv):
    """It returns the same tensors at each step, and writes to the actions."""

    def __init__(self, num_envs: int, device: torch.device, seed: int, length: int = 4):
        super().__init__(num_envs, device, seed, length)
        self.returned: EnvStep | None = None

    def reset(self) -> dict[str, Tensor]:
        observation = super().reset()
        if self.returned is None:
            zeros = torch.zeros(self.num_envs, device=self.device)
            no = zeros.bool()
            copy, final = ({name: x.clone() for name, x in observation.items()} for _ in range(2))
            self.returned = EnvStep(copy, zeros, no, no.clone(), no.clone(), final)
        return self._filled(self.returned.observation, observation)

    def step(self, actions: Tensor) -> EnvStep:
        step = super().step(actions)
        actions.fill_(1)
        assert self.returned is not None
        for ours, new in zip(self.returned, step, strict=True):
            if ours is not None:  # no cue is known
                self._filled(ours, new)
        return self.returned

    def _filled(self, ours: Any, new: Any) -> Any:
        if isinstance(ours, Tensor):
            return ours.copy_(new)
        return {name: ours[name].copy_(new[name]) for name in ours}


@dataclass
class Wrong:
    """Makes an environment that is wrong in one way.

    Args:
        at_start: attributes of the environment.
        at_step: fields of its third step.
    """

    at_start: dict[str, Any]
    at_step: dict[str, Any]

    def __call__(self, num_envs: int, device: torch.device, seed: int) -> Any:
        env = EchoEnv(num_envs, device, seed)
        for name, value in self.at_start.items():
            setattr(env, name, value)
        step, num_steps = env.step, 0

        def wrong_step(actions: Tensor) -> Any:
            nonlocal num_steps
            num_steps += 1
            result = step(actions)
            return result._replace(**self.at_step) if num_steps == 3 else result

        env.step = wrong_step  # type: ignore[method-assign]
        return env


envs.register("own/Echo-v0", EchoEnv)
envs.register("own/SavedEcho-v0", SavedEchoEnv)
