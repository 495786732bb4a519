"""Decks of cards. Shapes: n envs, N cards.

POPGym deals the cards of a shuffled deck from its end. A deck here is a row of what its cards show
(colour, suit or rank), in the order in which they are dealt.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int16, Int64
from torch import Tensor

DECK_SIZE = 52
MAX_DECKS = 1_000
NUM_RANKS = 13
NUM_SUITS = 4

NUM_VALUES = {"colors": 2, "suits": NUM_SUITS, "ranks": NUM_RANKS}
"""What a card can show."""


def shuffled(bits: Int64[Tensor, "n N"]) -> Int64[Tensor, "n N"]:
    """Return 0 to N - 1 in the order of random numbers below 2^31.

    Two of N numbers are equal with a probability of N^2 / 2^32; then the lower one comes first.
    """
    num_bits = bits.shape[1].bit_length()
    packed = bits << num_bits | torch.arange(bits.shape[1], device=bits.device)
    if packed.device.type == "cpu" and not torch.compiler.is_compiling():
        # twenty times as fast as torch's, and the same: no two are equal
        in_order = torch.from_numpy(np.sort(packed.numpy(), axis=1))
    else:
        in_order = packed.sort(dim=1).values
    return in_order & (1 << num_bits) - 1


def faces(cards: Int64[Tensor, "n N"], face: str) -> Int16[Tensor, "n N"]:
    """Return what cards show: four suits of each rank in turn, as in POPGym's decks."""
    if face == "ranks":
        return ((cards >> 2) % NUM_RANKS).to(torch.int16)
    return (cards & NUM_VALUES[face] - 1).to(torch.int16)


def read_deck(deck: Any, face: str) -> np.ndarray:
    """Return what the cards of one of POPGym's decks show, in the order in which it deals them."""
    return getattr(deck, f"{face}_idx")[deck.idx[::-1]].astype(np.int16)
