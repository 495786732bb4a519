"""Trains a core alone, by cross-entropy, on a stream of episodes: what holds, without exploring.

    python -m experiments.supervised --task recall --items 4 --core.mem-len 2 --core.seq-len 8

A trial takes a minute or two on one core, where PPO takes ten. Four tasks:

- back: name the symbol of `distance` steps ago (four symbols, chance .25).
- recall: `items` cues, up to `max_gap` blank steps after each, one of the delays drawn, as many
  questions; every answer right counts.
- rewrite: the same with cues that say which of the `items` they are, each shown `shows` times with
  new values; the last counts.
- xor: MiniGrid-Memory without the walking. Somewhere in an episode of 20 steps a cue is in view for
  three of them, in a share `show_rate` of the episodes; the last step shows which end is where; the
  answer is the exclusive-or of the two.

Shapes: B envs, T steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from agents.cores.core import make_core
from agents.cores.core_config import CoreConfig
from agents.cores.initialization import init_weights
from agents.cores.interface import Core
from agents.cores.memory_core import MTXLConfig
from mtxl_rl.command import fail_with_one_line
from mtxl_rl.options import read

NUM_SYMBOLS = 4
"""Of the task `back`."""
NO_ANSWER = -1
XOR_LEN = 20
"""Steps of an episode of xor."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """A supervised trial of a core."""

    task: Literal["back", "recall", "rewrite", "xor"] = "recall"
    """What is to be remembered."""
    distance: int = 4
    """back: steps between a symbol and its name."""
    items: int = 4
    """recall, rewrite: cues to keep."""
    delays: tuple[int, ...] = (10, 20, 40, 80, 160)
    """recall, rewrite: blank steps before the questions, one of which is drawn."""
    max_gap: int = 0
    """recall, rewrite: most blank steps after each cue."""
    shows: int = 4
    """rewrite: how often each cue is shown."""
    show_rate: float = 1.0
    """xor: share of the episodes that show the cue."""
    play: tuple[int, ...] = (160, 1_000, 4_000)
    """recall, rewrite: delays to play after training."""
    episodes: int = 64
    """Episodes to play at each delay."""
    updates: int = 500
    """Steps of Adam."""
    num_envs: int = 64
    """Streams B."""
    num_steps: int = 128
    """Steps T of an update: the reach of backpropagation through time."""
    learning_rate: float = 2e-3
    """Adam's step size, which falls to 0 linearly."""
    report_every: int = 50
    """Updates between lines."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """One trial each."""
    num_threads: int = 1
    """CPU threads of torch."""
    core: CoreConfig = field(default_factory=MTXLConfig)

    def __post_init__(self) -> None:
        names = ("distance", "items", "shows", "episodes", "updates", "num_envs", "report_every")
        for name in names:
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more; set --{flag}")
        for name, delays in (("delays", self.delays), ("play", self.play)):
            if not delays or min(delays) < 0:
                raise ValueError(
                    f"{name}={delays} must be one or more numbers from 0; set --{name}"
                )
        if self.max_gap < 0:
            raise ValueError(f"max_gap={self.max_gap} must be 0 or more; set --max-gap")
        if self.num_steps < self._least_steps:
            raise ValueError(
                f"num_steps={self.num_steps} must be {self._least_steps} or more for this "
                "task; set --num-steps"
            )

    @property
    def _least_steps(self) -> int:
        if self.task == "back":
            return self.distance + 1
        if self.task == "xor":
            return XOR_LEN
        num_cues = self.items * (self.shows if self.task == "rewrite" else 1)
        return num_cues * (1 + self.max_gap) + self.items


class Episode:
    """One episode: symbols to see, and what to answer at each step."""

    def __init__(self, symbols: list[int], answers: list[int]):
        self.symbols, self.answers = symbols, answers


def recall_episode(config: TrialConfig, random: np.random.Generator, delay: int) -> Episode:
    """Draw an episode of recall or rewrite.

    Symbols: 0 is blank, then 2 for each kind of cue, then one question for each item.
    """
    num_items = config.items
    if config.task == "rewrite":
        kinds = random.permutation(np.repeat(np.arange(num_items), config.shows)).tolist()
    else:
        kinds = list(range(num_items))
    first_question = 1 + 2 * num_items
    values = [0] * num_items
    symbols: list[int] = []
    for kind in kinds:
        values[kind] = int(random.integers(2))
        told_apart = kind if config.task == "rewrite" else 0
        symbols.append(1 + 2 * told_apart + values[kind])
        symbols += [0] * int(random.integers(config.max_gap + 1))
    symbols += [0] * delay
    answers = [NO_ANSWER] * len(symbols) + values
    return Episode([*symbols, *range(first_question, first_question + num_items)], answers)


def xor_episode(config: TrialConfig, random: np.random.Generator) -> Episode:
    """Draw an episode of xor. Symbols: 6 that say nothing, two cues, two orders of the ends."""
    symbols = random.integers(6, size=XOR_LEN).tolist()
    cue, order = random.integers(2, size=2).tolist()
    if random.random() < config.show_rate:
        start = int(random.integers(XOR_LEN - 4))
        symbols[start : start + 3] = [6 + cue] * 3
    symbols[-1] = 8 + order
    return Episode(symbols, [NO_ANSWER] * (XOR_LEN - 1) + [cue ^ order])


class Stream:
    """B streams of episodes, one after the other.

    Args:
        config: of the task.
        seed: of the episodes.
        delay: of every episode; None draws one of `config.delays`.
    """

    def __init__(self, config: TrialConfig, seed: int, num_envs: int, delay: int | None = None):
        children = np.random.SeedSequence(seed).spawn(num_envs)
        self._streams = [self._steps(config, np.random.default_rng(s), delay) for s in children]

    def take(self, num_steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return symbols, resets and answers of the next steps, (B, T) each."""
        rows = [list(islice(stream, num_steps)) for stream in self._streams]
        symbols, resets, answers = torch.tensor(rows).unbind(-1)
        return symbols, resets.bool(), answers

    @staticmethod
    def _steps(
        config: TrialConfig, random: np.random.Generator, delay: int | None
    ) -> Iterator[tuple[int, int, int]]:
        if config.task == "back":
            shown = [int(random.integers(NUM_SYMBOLS)) for _ in range(config.distance)]
            yield from ((symbol, i == 0, NO_ANSWER) for i, symbol in enumerate(shown))
            while True:
                shown.append(int(random.integers(NUM_SYMBOLS)))
                yield shown[-1], 0, shown.pop(0)
        while True:
            if config.task == "xor":
                episode = xor_episode(config, random)
            else:
                length = int(random.choice(config.delays)) if delay is None else delay
                episode = recall_episode(config, random, length)
            steps = zip(episode.symbols, episode.answers, strict=True)
            yield from ((symbol, i == 0, answer) for i, (symbol, answer) in enumerate(steps))


class Model(nn.Module):
    """An embedding, a core, and a linear layer."""

    def __init__(self, config: TrialConfig):
        super().__init__()
        is_back = config.task == "back"
        num_symbols = NUM_SYMBOLS if is_back else max(10, 1 + 3 * config.items)
        self.embedding = nn.Embedding(num_symbols, config.core.dim)
        self.core: Core = make_core(config.core)
        self.head = nn.Linear(config.core.dim, NUM_SYMBOLS if is_back else 2)
        init_weights(self.head)

    def forward(
        self, symbols: Int64[Tensor, "B T"], state: object, reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T A"], object]:
        y, state = self.core(self.embedding(symbols), state, reset)
        return self.head(y), state


def train(config: TrialConfig, seed: int) -> Model:
    """Train a core; print the accuracy of its answers."""
    torch.manual_seed(seed)
    model = Model(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, eps=1e-5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, config.updates)
    stream = Stream(config, seed, config.num_envs)
    state = model.core.initial_state(config.num_envs)
    num_right = num_asked = 0
    started = time.monotonic()
    for update in range(1, config.updates + 1):
        symbols, reset, answers = stream.take(config.num_steps)
        logits, state = model(symbols, state.detach(), reset)
        is_asked = answers != NO_ANSWER
        if is_asked.any():  # not in the first steps of long episodes
            loss = F.cross_entropy(logits[is_asked], answers[is_asked])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            schedule.step()
        num_right += int((logits.argmax(-1) == answers)[is_asked].sum())
        num_asked += int(is_asked.sum())
        if update % config.report_every == 0 and num_asked:
            rate = num_right / num_asked
            num_right = num_asked = 0
            seconds = time.monotonic() - started
            print(
                f"seed {seed}, update {update}: {rate:.3f} of answers ({seconds:.0f} s)", flush=True
            )
    return model


@torch.no_grad()
def play(config: TrialConfig, model: Model, delay: int) -> float:
    """Return the share of new episodes in which every answer is right."""
    stream = Stream(config, 10_000, config.episodes, delay)
    state = model.core.initial_state(config.episodes)
    is_over = torch.zeros(config.episodes, dtype=torch.bool)
    num_right = torch.zeros(config.episodes, dtype=torch.long)
    num_asked = torch.zeros_like(num_right)
    while not is_over.all():
        symbols, reset, answers = stream.take(config.num_steps)
        logits, state = model(symbols, state, reset)
        asked = (answers != NO_ANSWER) & (num_asked[:, None] < config.items)
        asked &= (answers != NO_ANSWER).cumsum(1) + num_asked[:, None] <= config.items
        num_right += (asked & (logits.argmax(-1) == answers)).sum(1)
        num_asked += asked.sum(1)
        is_over = num_asked == config.items
    return float((num_right == config.items).float().mean())


def main(config: TrialConfig) -> None:
    """Run the trials."""
    torch.set_num_threads(config.num_threads)
    num_parameters = sum(p.numel() for p in Model(config).parameters())
    print(f"{config.core.kind}, {num_parameters} parameters")
    for seed in config.seeds:
        model = train(config, seed)
        if config.task in ("recall", "rewrite"):
            rates = {delay: play(config, model, delay) for delay in config.play}
            told = ", ".join(f"{delay}: {rate:.2f}" for delay, rate in rates.items())
            print(f"seed {seed}, every answer right at delay {told}", flush=True)


if __name__ == "__main__":
    with fail_with_one_line():
        main(read(TrialConfig(), sys.argv[1:], description=__doc__))
