"""Train sb3-contrib's RecurrentPPO with its own defaults, for the tables of docs/environments.md.

    python -m experiments.benchmarks.recurrent_ppo --env CartPole-v1 --total-frames 300000

It is the LSTM agent that a researcher would take off the shelf (`pip install -e ".[benchmark]"`):
one environment at a time, as it comes. It is slow so, and may be stopped after as many minutes as
another agent took. One line goes to stdout: frames, minutes of training and the
mean return of new episodes, actions sampled as `mtxl_rl.evaluate` samples them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev

import gymnasium
import numpy as np
import tyro
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation

from envs.construction import find_wraps, make_single
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.device import set_threads

READ = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
"""What stable-baselines3 reads in a Dict."""


@dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """What RecurrentPPO is trained on."""

    env: str
    """Gymnasium id."""
    wrap: tuple[str, ...] = ()
    """Wrappers, innermost first, as for `mtxl_rl.train`."""
    total_frames: int = 300_000
    """Steps of the environment."""
    minutes: float = math.inf
    """End training after these, whatever the frames."""
    episodes: int = 50
    """New episodes after training."""
    seed: int = 0
    """Of the network, the actions and the environment."""
    num_threads: int = 1
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        if self.episodes < 2:
            raise ValueError(f"episodes={self.episodes} must be 2 or more, for a deviation")


def train_and_play(config: PeerConfig) -> str:
    """Return the line of the table for one seed.

    Raises:
        ValueError: where sb3-contrib is not installed, or the environment cannot be made.
    """
    try:
        from sb3_contrib import RecurrentPPO  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            'sb3-contrib is not installed; install it: pip install -e ".[benchmark]"'
        ) from error

    set_threads(config.num_threads)
    wraps = find_wraps(config.wrap)

    def make() -> gymnasium.Env:
        return readable(make_single(config.env, {}, wraps))

    model = RecurrentPPO(_policy(make()), make(), seed=config.seed, device="cpu")
    started = time.perf_counter()
    until = started + 60 * config.minutes
    model.learn(config.total_frames, callback=lambda *_: time.perf_counter() < until)
    minutes = (time.perf_counter() - started) / 60
    returns = [play(model, make(), config.seed + 10_000 + i) for i in range(config.episodes)]
    parameters = sum(p.numel() for p in model.policy.parameters())
    return (
        f"{config.env} seed {config.seed}: {model.num_timesteps:,} frames, {minutes:.1f} min, "
        f"return {mean(returns):.4g} (sd {stdev(returns):.3g}), {parameters:,} parameters"
    )


def readable(env: gymnasium.Env) -> gymnasium.Env:
    """Return an environment with observations that stable-baselines3 reads.

    Raises:
        ValueError: for a part of a Dict that it does not.
    """
    space = env.observation_space
    if isinstance(space, spaces.Dict):
        for name, part in space.items():
            if not isinstance(part, READ):
                env.close()
                raise ValueError(
                    f"stable-baselines3 reads no {type(part).__name__}, which observation {name!r} "
                    "is; leave it out by a wrapper (--wrap)"
                )
    # NumPy's sizes are none to torch, and it reads no Tuple
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.Tuple):
        size = int(spaces.flatdim(space))
        flat = spaces.Box(0, 1, (size,), np.float32)
        return TransformObservation(env, partial(_flattened, space), flat)
    return env


def _flattened(space: spaces.Space, observation: object) -> np.ndarray:
    return np.asarray(spaces.flatten(space, observation), np.float32)


def play(model: object, env: gymnasium.Env, seed: int) -> float:
    """Return one episode's return."""
    observation, _ = env.reset(seed=seed)
    state, is_first, total = None, True, 0.0
    while True:
        action, state = model.predict(  # type: ignore[attr-defined]
            observation, state=state, episode_start=[is_first], deterministic=False
        )
        observation, reward, terminated, truncated, _ = env.step(action)
        is_first, total = False, total + float(reward)
        if terminated or truncated:
            env.close()
            return total


def _policy(env: gymnasium.Env) -> str:
    """Return which of its networks reads the observations."""
    from stable_baselines3.common.preprocessing import (  # pyright: ignore[reportMissingImports]
        is_image_space,
    )

    env.close()
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        return "MultiInputLstmPolicy"
    return "CnnLstmPolicy" if is_image_space(env.observation_space) else "MlpLstmPolicy"


if __name__ == "__main__":
    with fail_with_one_line():
        print(train_and_play(tyro.cli(PeerConfig)))
