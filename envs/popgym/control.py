"""POPGym's CartPole and Pendulum of which a part is seen. Shapes: n envs.

The dynamics are Gymnasium's, in float64 as there: float32 would end other episodes. Sines differ in
their last bits between NumPy, torch and a GPU. Oddities of POPGym, kept: a pole that falls costs
nothing but the rest of the episode; the first observation of VelocityOnlyCartPole is of positions;
`Cartpole` is written so in its ids only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from envs.rules.task import Outcome, State, Task, check_option, never

MAX_STEPS = 1_000_000
MAX_X, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360
GRAVITY, TOTAL_MASS, POLE_MASS, HALF_LENGTH, FORCE, CART_TAU = 9.8, 1.1, 0.1, 0.5, 10.0, 0.02
MAX_TORQUE, MAX_SPEED, PENDULUM_GRAVITY, PENDULUM_TAU = 2.0, 8.0, 10.0, 0.05
MIN_PENDULUM_REWARD = -16.2736044


@dataclass(frozen=True)
class PartlySeen(Task):
    """A body of which two numbers are seen, with noise or without."""

    max_episode_length: int = 200
    noise_sigma: float = 0.0
    seen_bounds: ClassVar[tuple[float, float]]

    def __post_init__(self) -> None:
        check_option("max_episode_length", self.max_episode_length, 1, MAX_STEPS)
        if not 0 <= self.noise_sigma < math.inf:
            raise ValueError(
                f"noise_sigma={self.noise_sigma} must be 0 or more, and finite; change noise_sigma"
            )

    @property
    def observation_space(self) -> spaces.Box:
        high = np.array(self.seen_bounds, np.float32)
        return spaces.Box(-high, high)

    @property
    def num_steps(self) -> int:
        return self.max_episode_length

    @classmethod
    def of(cls, env: Any) -> PartlySeen:
        sigma = np.ravel(getattr(env, "noise_sigma", 0.0))[0]
        return cls(env.max_episode_length, float(sigma))

    def noisy(
        self, seen: Float32[Tensor, "n 2"], pair: list[Int64[Tensor, " n"]]
    ) -> Float32[Tensor, "n 2"]:
        """Add normal noise (of Box and Muller, from two random numbers), and keep to the bounds."""
        angle = pair[0].double() * (2 * math.pi * 2**-31)
        radius = (-2 * ((pair[1] + 1).double() * 2**-31).log()).sqrt() * self.noise_sigma
        noise = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1).float()
        columns = zip((seen + noise).unbind(1), self.seen_bounds, strict=True)
        return torch.stack([column.clamp(-high, high) for column, high in columns], dim=1)

    def show_(self, state: State, seen: Float[Tensor, "n 2"]) -> None:
        """Show two numbers."""
        seen = seen.float()
        if self.noise_sigma:
            seen = self.noisy(seen, [self.draw(state, number, 2) for number in (0, 1)])
        state["observation"].copy_(seen)

    def read(self, env: Any) -> dict[str, Any]:
        return {"time": env.num_steps, "body": env.state, "observation": [0.0, 0.0]}


class PositionOnlyCartPole(PartlySeen):
    """Balance a pole; the cart's place and the pole's angle are seen."""

    seen_bounds = (2 * MAX_X, 2 * MAX_ANGLE)
    first_seen = 0  # of the body's numbers; the other one is two further

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    @property
    def num_draws(self) -> int:
        return 6

    def start(self, bits: Int64[Tensor, "n 6"]) -> State:
        body = bits[:, :4].double() * (0.1 * 2**-31) - 0.05
        seen = body[:, ::2].float()
        if self.noise_sigma:
            seen = self.noisy(seen, [bits[:, 4], bits[:, 5]])
        return {"body": body, "observation": seen}

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        body = state["body"]
        x, x_speed, angle, angle_speed = body.unbind(1)
        x_push, angle_push = _pushes(actions, angle, angle_speed)
        change = torch.stack((x_speed, x_push, angle_speed, angle_push), dim=1)
        body.add_(change, alpha=CART_TAU)
        self.show_(state, body[:, self.first_seen :: 2])
        is_out = (body[:, 0].abs() > MAX_X) | (body[:, 2].abs() > MAX_ANGLE)
        return Outcome(
            reward=torch.full_like(x, 1 / self.max_episode_length, dtype=torch.float32),
            terminated=is_out,
            truncated=state["time"] == self.num_steps,
        )


class VelocityOnlyCartPole(PositionOnlyCartPole):
    """Balance a pole; the two speeds are seen, and before the first step the positions."""

    seen_bounds = (math.inf, math.inf)
    first_seen = 1


class NoisyPositionOnlyCartPole(PositionOnlyCartPole):
    """The same with noise."""


class PositionOnlyPendulum(PartlySeen):
    """Swing up a pendulum; cosine and sine of its angle are seen."""

    seen_bounds = (1.0, 1.0)

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,))

    @property
    def num_draws(self) -> int:
        return 4

    def start(self, bits: Int64[Tensor, "n 4"]) -> State:
        units = bits[:, :2].double() * 2**-30 - 1
        body = torch.stack((units[:, 0] * math.pi, units[:, 1]), dim=1)
        seen = _direction(body[:, 0]).float()
        if self.noise_sigma:
            seen = self.noisy(seen, [bits[:, 2], bits[:, 3]])
        return {"body": body, "observation": seen}

    def advance_(self, state: State, actions: Float[Tensor, "n 1"]) -> Outcome:
        angle, speed = state["body"].unbind(1)
        # as the Gymnasium backend: what is not finite is found elsewhere
        torque = actions[:, 0].float().nan_to_num().clamp(-MAX_TORQUE, MAX_TORQUE)
        from_top = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        cost = from_top**2 + 0.1 * speed**2 + 0.001 * torque**2
        push = 3 * PENDULUM_GRAVITY / 2 * angle.sin() + 3.0 * torque
        speed = (speed + push * PENDULUM_TAU).clamp(-MAX_SPEED, MAX_SPEED)
        angle = angle + speed * PENDULUM_TAU
        torch.stack((angle, speed), dim=1, out=state["body"])
        self.show_(state, _direction(angle))
        half = -MIN_PENDULUM_REWARD / 2
        return Outcome(
            reward=((half - cost) / half / self.max_episode_length).float(),
            terminated=never(state["time"]),
            truncated=state["time"] == self.num_steps,
        )


class NoisyPositionOnlyPendulum(PositionOnlyPendulum):
    """The same with noise."""


def _pushes(
    actions: Int64[Tensor, " n"], angle: Float64[Tensor, " n"], speed: Float64[Tensor, " n"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Return the accelerations of cart and pole."""
    force = (2 * actions - 1) * FORCE
    cosine, sine = angle.cos(), angle.sin()
    pole = POLE_MASS * HALF_LENGTH
    push = (force + pole * speed.square() * sine) / TOTAL_MASS
    inertia = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine.square() / TOTAL_MASS)
    angle_push = (GRAVITY * sine - cosine * push) / inertia
    return push - pole * angle_push * cosine / TOTAL_MASS, angle_push


def _direction(angle: Float64[Tensor, " n"]) -> Float64[Tensor, "n 2"]:
    return torch.stack((angle.cos(), angle.sin()), dim=1)
