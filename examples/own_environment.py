"""An environment of your own, with a cue: train on it, see what is remembered, act.

python examples/own_environment.py                         # a minute or two on one core
python -m mtxl_rl.train --env examples.own_environment:Echo-v0      # the same by the command line
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

NUM_CUES, BLANK, QUESTION = 3, 3, 4


class Echo(gymnasium.Env):
    """One of three cues, blank steps, a question: the answer is the cue."""

    def __init__(self, delay: int = 12):
        self.delay = delay
        self.observation_space = spaces.Discrete(NUM_CUES + 2)
        self.action_space = spaces.Discrete(NUM_CUES)
        self.time, self.cue = 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw the cue, from the seed, and show it."""
        super().reset(seed=seed)
        self.time, self.cue = 0, int(self.np_random.integers(NUM_CUES))
        return self.cue, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Take an answer, which counts after the question."""
        is_over = self.time == self.delay + 1
        is_right = is_over and action == self.cue
        self.time += 1
        observation = QUESTION if self.time > self.delay else BLANK
        info = {"is_success": is_right} if is_over else {}  # gives a success rate
        return observation, float(is_right), is_over, False, info

    @property
    def cue_in_view(self) -> int:
        """What the inspector and `--memory swapped-long` know of the cue; -1 for none."""
        return self.cue if self.time == 0 else -1


if "Echo-v0" not in gymnasium.registry:
    gymnasium.register("Echo-v0", "examples.own_environment:Echo")


def main(run_dir: Path, total_frames: int = 150_000) -> float:
    """Train, write the inspector's page, and act in one's own loop; return the success rate."""
    import mtxl_rl
    from agents.cores.core import core_config
    from mtxl_rl.config import TrainConfig
    from mtxl_rl.inspect import InspectConfig, inspect
    from mtxl_rl.train import train

    train(TrainConfig(
        env="examples.own_environment:Echo-v0",
        core=core_config(mem_len=2, seq_len=4),  # so short that the long memory is needed
        total_frames=total_frames, stop_at_success=0.98, eval_episodes=20, num_threads=1,
        compile="off", run_dir=run_dir,
    ))  # fmt: skip
    inspect(run_dir, InspectConfig())

    policy = mtxl_rl.load(run_dir)
    env, num_right = Echo(delay=50), 0.0
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        state, reward, done = None, 0.0, False
        while not done:
            action, state = policy.act(observation, state, reward)
            observation, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
        num_right += reward
    print(f"With four times the delay of training: {num_right / 20:.0%} right")
    return num_right / 20


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # so that "examples" is found
    main(Path(f"runs/echo-{datetime.now():%Y%m%d-%H%M%S}"))
