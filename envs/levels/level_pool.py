"""Levels that MiniGrid itself makes on the host, renewed while they are played.

Level number n of a pool is what MiniGrid's `reset` gives for the n-th seed of the pool's stream. A
process of its own makes the levels that will be needed next; they are taken in at fixed steps, so
that what is played depends on the seed alone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from envs.counter_random import child_seed
from envs.levels.level import Level, Levels, Texts
from envs.levels.level_maker import LevelMaker

POOL_LEN = 1024
"""Levels at a time."""
RENEWED_LEN = 128
"""Levels that are replaced at once, the oldest first."""
RENEW_EVERY = 256
"""Steps of the batch from one renewal to the next."""


class LevelProcess:
    """A process that makes levels in advance.

    Args:
        maker: whose levels.
    """

    def __init__(self, maker: LevelMaker):
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([root, *(folder or os.getcwd() for folder in sys.path)])
        # PYTHONSAFEPATH: a folder "envs" where the user happens to be is not taken for ours
        variables = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "envs.levels.level_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the one that uses the levels
            env=os.environ | variables,
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._send(maker.source)

    def request(self, seeds: Sequence[int]) -> None:
        """Begin to make levels; `receive` waits for them."""
        self._send([int(seed) for seed in seeds])

    def receive(self) -> list[Level]:
        """Return the levels that were requested last.

        Raises:
            OSError: when the process has ended.
        """
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise BrokenPipeError("the process that makes levels has ended") from None

    def close(self) -> None:
        self._end()

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


class LevelPool:
    """P levels on a device, in tensors that stay where they are.

    Args:
        maker: makes them.
        texts: where the missions' texts are added.
        device: where they are kept.
        fixed_seeds: these levels and no others; they are never renewed.
    """

    def __init__(
        self,
        maker: LevelMaker,
        texts: Texts,
        device: torch.device,
        fixed_seeds: Sequence[int] | None,
    ):
        self._maker = maker
        self._texts = texts
        self._device = device
        self._fixed_seeds = fixed_seeds
        self._process: LevelProcess | None = None
        self._is_alone = False
        self._pending: list[int] = []
        self._held: tuple[int, int] | None = None
        self._levels: Levels | None = None

    @property
    def levels(self) -> Levels:
        """The levels, once `fill_` has made them."""
        assert self._levels is not None
        return self._levels

    def fill_(self, seed: int, renewals: int) -> None:
        """Hold what a stream of seeds gives after a number of renewals."""
        if self._held == (seed, renewals) or (self._levels and self._fixed_seeds is not None):
            return
        self.close()
        self._held = seed, renewals
        with torch.inference_mode(False):  # they are written later, perhaps outside of it
            levels = Levels.of(self._maker.make(self._seeds_held()), self._texts).to(self._device)
        if self._levels is None:
            self._levels = levels
        else:
            for held, new in zip(self._levels, levels, strict=True):
                held.copy_(new)

    def prepare(self) -> None:
        """Let the process make the next levels, if it is not at it."""
        assert self._held is not None
        if self._pending or self._fixed_seeds is not None:
            return
        seed, renewals = self._held
        self._pending = _seeds(seed, POOL_LEN // RENEWED_LEN + renewals)
        try:
            if self._process is None and not self._is_alone:
                self._process = LevelProcess(self._maker)
            if self._process is not None:
                self._process.request(self._pending)
        except OSError as error:
            self._go_on_alone(error)

    def renew_(self) -> None:
        """Replace the oldest levels by new ones."""
        if self._fixed_seeds is not None:
            return
        self.prepare()
        made = None
        try:
            made = self._process.receive() if self._process else None
        except OSError as error:
            self._go_on_alone(error)
        new = Levels.of(made or self._maker.make(self._pending), self._texts)
        assert self._held is not None
        seed, renewals = self._held
        start = renewals * RENEWED_LEN % POOL_LEN
        for held, fresh in zip(self.levels, new, strict=True):
            held[start : start + RENEWED_LEN].copy_(fresh)
        self._held = seed, renewals + 1
        self._pending = []

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None
        self._pending = []

    def _go_on_alone(self, error: OSError) -> None:
        warnings.warn(f"{error}; from now on levels are made in this process", stacklevel=3)
        self._is_alone = True
        if self._process is not None:
            self._process.close()
            self._process = None

    def _seeds_held(self) -> list[int]:
        """Return the seed of the level in each place."""
        if self._fixed_seeds is not None:
            return list(self._fixed_seeds)
        assert self._held is not None
        seed, renewals = self._held
        num_blocks = POOL_LEN // RENEWED_LEN
        # block b of the stream lies in place b % num_blocks, over the one that was there
        blocks = sorted(range(renewals, renewals + num_blocks), key=lambda b: b % num_blocks)
        return [level_seed for block in blocks for level_seed in _seeds(seed, block)]


def _seeds(seed: int, block: int) -> list[int]:
    """Return the seeds of a block of RENEWED_LEN levels."""
    return child_seed(seed, block).generate_state(RENEWED_LEN).tolist()
