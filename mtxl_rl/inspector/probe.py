"""A linear probe: what of the cue can be read from the memory.

Ridge regression from the memory to the binary digits of the cue's number, all steps after the cue
together; tested on episodes that it was not fitted to.

Shapes: n samples, F numbers of the memory, K digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64

from agents.actor_critic import ActorCritic
from agents.learning.rollout import act, start
from envs import BatchedEnv
from mtxl_rl.core import MemoryState
from mtxl_rl.inspector.recording import memory_of
from mtxl_rl.runs.progress import Ticker

RIDGE = 0.1
"""Of features with deviation 1, beside their mean square."""
MAX_SAMPLES = 100
"""Of an episode of usual length."""
MIN_EPISODES = 12
"""With a cue, below which there is no probe."""


@dataclass(frozen=True)
class Samples:
    """Memories of other episodes, after their cue."""

    memory: Float[np.ndarray, "n F"]
    cue: Int64[np.ndarray, " n"]
    age: Int64[np.ndarray, " n"]  # steps since the cue was in view
    episode: Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class Probe:
    """A fitted probe, and how well it reads in other episodes."""

    mean: Float[np.ndarray, " F"]
    deviation: Float[np.ndarray, " F"]
    weights: Float[np.ndarray, "F K"]
    bias: Float[np.ndarray, " K"]
    ages: list[tuple[int, int]]  # from, to
    accuracy: list[float]  # all digits right, at these ages
    num_samples: list[int]
    chance: float  # of the most frequent cue

    def read(self, memory: Float[np.ndarray, "n F"]) -> Int64[np.ndarray, " n"]:
        """Return the cues that the memories hold."""
        digits = ((memory - self.mean) / self.deviation) @ self.weights + self.bias > 0
        return (digits * 2 ** np.arange(digits.shape[1])).sum(axis=1)


@torch.no_grad()
def collect_samples(
    agent: ActorCritic,
    env: BatchedEnv,
    max_steps: int | None,
    usual_length: int,
    ticker: Ticker,
) -> Samples:
    """Play the first episode of each env and sample its memory where the cue has been seen.

    Args:
        agent: who plays.
        env: where; whose steps say the cue.
        max_steps: after which episodes are left.
        usual_length: steps of an episode.
        ticker: says how far it is.
    """
    period = agent.core.segment_len
    stride = max(1, usual_length // MAX_SAMPLES // period) * period
    carry = start(agent, env)
    player = agent.player(carry.state)
    is_first = torch.ones(env.num_envs, dtype=torch.bool, device=agent.device)
    parts: list[tuple[np.ndarray, ...]] = []
    step = 0
    while is_first.any() and step != max_steps:
        if step % stride == 0 and step:
            state = player.state
            memory = memory_of(state)
            assert memory is not None
            rows = is_first & (carry.cue >= 0)
            if isinstance(state, MemoryState):
                rows = rows & state.long_valid
            index = rows.nonzero().squeeze(1)
            tensors = memory[index].flatten(1).float(), carry.cue[index], carry.cue_age[index] + 1
            parts.append(tuple(tensor.cpu().numpy() for tensor in (*tensors, index)))
        carry, record = act(player, env.step, carry)
        is_first = is_first & ~(record["terminated"] | record["truncated"])
        step += 1
        ticker.show(step)
    width = int(np.prod(memory_of(agent.initial_state(1)).shape[1:]))  # type: ignore[union-attr]
    none = (np.zeros((0, width), np.float32), *(np.zeros(0, np.int64) for _ in range(3)))
    memory, cue, age, episode = (
        np.concatenate(arrays) for arrays in zip(none, *parts, strict=True)
    )
    return Samples(memory, cue, age, episode)


def fit(samples: Samples) -> Probe | str:
    """Fit to two thirds of the episodes and test on the others; or say why there is no probe."""
    is_known = np.isfinite(samples.memory).all(axis=1)
    samples = Samples(*(column[is_known] for column in vars(samples).values()))
    episodes = np.unique(samples.episode)
    if len(episodes) < MIN_EPISODES:
        return f"{len(episodes)} episodes had seen a cue when a memory was written: too few"
    if len(np.unique(samples.cue)) < 2:
        return f"every episode had the same cue, {samples.cue[0]}"
    is_test = np.isin(samples.episode, episodes[::3])
    num_digits = int(samples.cue.max()).bit_length()
    digits = samples.cue[:, None] >> np.arange(num_digits) & 1
    x, y = samples.memory[~is_test].astype(np.float64), digits[~is_test] * 2.0 - 1
    mean, bias = x.mean(axis=0), y.mean(axis=0)
    deviation = x.std(axis=0) + 1e-6
    x = (x - mean) / deviation
    gram = x.T @ x / len(x) + RIDGE * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - bias) / len(x))
    probe = Probe(mean, deviation, weights, bias, [], [], [], 0.0)
    is_right = probe.read(samples.memory[is_test]) == samples.cue[is_test]
    age = samples.age[is_test]
    edges = _edges(age)
    groups = [(age >= first) & (age <= last) for first, last in edges]
    _, counts = np.unique(samples.cue[is_test], return_counts=True)
    return Probe(
        mean,
        deviation,
        weights,
        bias,
        ages=edges,
        accuracy=[float(is_right[group].mean()) for group in groups],
        num_samples=[int(group.sum()) for group in groups],
        chance=float(counts.max() / counts.sum()),
    )


def _edges(age: Int64[np.ndarray, " n"], num_groups: int = 12) -> list[tuple[int, int]]:
    """Return the first and last age of groups of about as many samples each."""
    bounds = np.unique(np.quantile(age, np.linspace(0, 1, num_groups + 1), method="nearest"))
    firsts = [int(bounds[0]), *(int(bound) + 1 for bound in bounds[1:-1])]
    lasts = [int(bound) for bound in bounds[1:]] or [int(bounds[0])]
    return list(zip(firsts, lasts, strict=True))
