"""Text as symbols: words hashed to ids, so that any mission of any environment has a code."""

from __future__ import annotations

import re
import zlib

import numpy as np

NUM_WORD_IDS = 707
"""Ids of words; 0 is padding. With this many, no two words of MiniGrid's missions collide."""

MAX_WORDS = 32
"""Words of a text that are kept."""


def word_ids(text: str) -> np.ndarray:
    """Return the ids (MAX_WORDS,) of the words of `text`, padded with 0; case is ignored."""
    ids = np.zeros(MAX_WORDS, dtype=np.int64)
    words = re.findall(r"[a-z0-9]+", text.lower())[:MAX_WORDS]
    ids[: len(words)] = [1 + zlib.crc32(word.encode()) % (NUM_WORD_IDS - 1) for word in words]
    return ids
