"""Random numbers that are a function of a counter: SplitMix64 (Steele et al. 2014).

A stream is a 64-bit key, its n-th number a hash of key and n. So the state is the counter, kept
with the environment's own state; the numbers are the same on every device, however many are drawn
at once, and drawing them needs no generator, no synchronisation and nothing that a CUDA graph
cannot capture. Shapes: B envs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def _wrap(value: int) -> int:
    """Return the int64 with the same low 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


_GOLDEN = _wrap(0x9E3779B97F4A7C15)
_MULTIPLIERS = _wrap(0xBF58476D1CE4E5B9), _wrap(0x94D049BB133111EB)


def _mix(x: Int64[Tensor, "*B"]) -> Int64[Tensor, "*B"]:
    """Return SplitMix64's hash; int64 arithmetic wraps around.

    In place where that is seen by nobody: to allocate takes longer than to compute.
    """
    x = _folded(x, 30).mul_(_MULTIPLIERS[0])
    x = _folded(x, 27).mul_(_MULTIPLIERS[1])
    return _folded(x, 31)


def _folded(x: Int64[Tensor, "*B"], shift: int) -> Int64[Tensor, "*B"]:
    """Return x ^ (x >> shift), of which the shift brings in zeros."""
    return (x >> shift).bitwise_and_((1 << 64 - shift) - 1).bitwise_xor_(x)


def sequence_of(
    seed: int | np.random.SeedSequence, level_seeds: Sequence[int] | None = None
) -> np.random.SeedSequence:
    """Return a seed as a sequence; one of `level_seeds` where they are given."""
    if level_seeds is not None:
        return np.random.SeedSequence(list(level_seeds))
    return seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)


def child_seed(seed: int | np.random.SeedSequence, child: int) -> np.random.SeedSequence:
    """Return a seed for something of its own; the same for the same child."""
    parent = sequence_of(seed)
    return np.random.SeedSequence(parent.entropy, spawn_key=(*parent.spawn_key, child))


def seed_of_part(
    seed: int | np.random.SeedSequence, part: tuple[int, int]
) -> np.random.SeedSequence:
    """Return a seed for the part (k, n) of n; that of the first, k = 0, is the seed itself."""
    return child_seed(seed, part[0]) if part[0] else sequence_of(seed)


BITS = 31
"""Of a random number."""


class CounterRandom:
    """Streams of B envs at a counter.

    Args:
        keys: of the streams, int64.
        counter: which number of each stream comes next.
    """

    def __init__(self, keys: Int64[Tensor, " *B"], counter: Int64[Tensor, " *C"]):
        self._keys = keys + counter * _GOLDEN

    @staticmethod
    def keys(seed: int | np.random.SeedSequence, num_envs: int) -> Int64[Tensor, " B"]:
        """Return keys of streams that have nothing to do with each other."""
        state = child_seed(seed, 0).generate_state(num_envs, np.uint64)
        return torch.from_numpy(state.view(np.int64).copy())

    def split(self, branch: Int64[Tensor, " B"]) -> CounterRandom:
        """Return streams that depend on this one's key and counter, and on `branch`."""
        return CounterRandom(_mix(self._keys), branch + 1)

    def stream(self) -> Int64[Tensor, " *B"]:
        """Return keys of streams of their own, which depend on this one's key and counter."""
        return _mix(self._keys)

    def many(self, number: int) -> Int64[Tensor, "B n"]:
        """Return this many whole numbers below 2^31 for each env, of branches of its stream."""
        branches = torch.arange(1, number + 1, device=self._keys.device)
        return CounterRandom(_mix(self._keys).unsqueeze(1), branches).bits()

    def bits(self) -> Int64[Tensor, " *B"]:
        """Return a whole number below 2^31 for each env."""
        return (_mix(self._keys) >> 33).bitwise_and_((1 << BITS) - 1)

    def below(self, limit: int) -> Int64[Tensor, " B"]:
        """Return a whole number from 0 to limit - 1 for each env; see `scaled`."""
        return scaled(self.bits(), limit)


def scaled(bits: Int64[Tensor, " *B"], limit: Int64[Tensor, " *B"] | int) -> Int64[Tensor, " *B"]:
    """Return whole numbers from 0 to limit - 1, from some below 2^31.

    They are as uniform as can be: two of them differ in frequency by limit / 2^31 at most.
    """
    return (bits * limit) >> BITS
