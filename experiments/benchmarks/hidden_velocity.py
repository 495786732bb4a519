"""Classic control whose velocities are hidden, so that memory is needed.

    W=experiments.benchmarks.hidden_velocity:HiddenVelocity
    python -m mtxl_rl.train --env CartPole-v1 --wrap $W

CartPole shows the cart's position and the pole's angle (numbers 0 and 2 of 4), Pendulum the angle's
cosine and sine (0 and 1 of 3).
"""

from __future__ import annotations

import gymnasium
import numpy as np

KEPT = {"CartPole": (0, 2), "Pendulum": (0, 1)}
"""Numbers of the observation that are shown, by the environment's name."""


class HiddenVelocity(gymnasium.ObservationWrapper):
    """Shows positions and angles only.

    Raises:
        ValueError: for an environment that is not in `KEPT`.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        name = "" if env.spec is None else (env.spec.name or "")
        if name not in KEPT:
            raise ValueError(f"{name!r} has no velocities that are known; use {' or '.join(KEPT)}")
        self._kept = list(KEPT[name])
        space = env.observation_space
        assert isinstance(space, gymnasium.spaces.Box)
        self.observation_space = gymnasium.spaces.Box(
            space.low[self._kept], space.high[self._kept], dtype=np.float32
        )

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[self._kept]
