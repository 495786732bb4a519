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
from statistics import mean, stdev

import gymnasium
import tyro

from envs.construction import find_wraps, make_single
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.config import set_threads


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
        return make_single(config.env, {}, wraps)

    model = RecurrentPPO(_policy(make()), make(), seed=config.seed, device="cpu")
    started = time.perf_counter()
    until = started + 60 * config.minutes
    model.learn(config.total_frames, callback=lambda *_: time.perf_counter() < until)
    minutes = (time.perf_counter() - started) / 60
    returns = [play(model, make(), config.seed + 10_000 + i) for i in range(config.episodes)]
    parameters = sum(p.numel() for p in model.policy.parameters())
    return (
        f"{config.env} seed {config.seed}: {model.num_timesteps:,} frames, {minutes:.1f} min, "
        f"return {mean(returns):.1f} (sd {stdev(returns):.1f}), {parameters:,} parameters"
    )


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
