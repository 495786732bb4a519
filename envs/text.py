"""Texts as numbers: words hashed to ids where they are few and known, bytes for anything else."""

from __future__ import annotations

import re
import warnings
import zlib

import numpy as np

NUM_WORD_IDS = 707
"""Ids of words; 0 is padding. With this many, no two words of MiniGrid's missions collide."""

MAX_WORDS = 32
"""Words of a mission that are kept, where its space does not name longer ones."""

MAX_BYTES = 1024
"""Bytes of a text that are kept."""

NUL = 0xFF
"""What stands for the character of number 0, which is padding here: no byte of UTF-8."""


def split_words(text: str) -> list[str]:
    """Return the words of `text` in lower case; what is neither a-z nor 0-9 is one of its own."""
    return re.findall(r"[a-z0-9]+|\S", text.lower())


def word_id(word: str) -> int:
    """Return the id of a word, from 1 to NUM_WORD_IDS - 1."""
    return 1 + zlib.crc32(word.encode("utf-8", "surrogatepass")) % (NUM_WORD_IDS - 1)


def word_ids(text: str, length: int = MAX_WORDS, name: str = "mission") -> np.ndarray:
    """Return the ids (length,) int64 of the words of `text`, padded with 0; case is ignored.

    A longer text is cut, with one warning that has the observation's `name`.
    """
    words = split_words(text)
    _warn_of_cut(len(words), length, "words", name)
    ids = np.zeros(length, dtype=np.int64)
    ids[: len(words)] = [word_id(word) for word in words[:length]]
    return ids


def byte_ids(text: str, length: int, name: str) -> np.ndarray:
    """Return the bytes (length,) uint8 of `text` in UTF-8, padded with 0.

    A longer text is cut, with one warning that has the observation's `name`.
    """
    encoded = text.encode("utf-8", "surrogatepass").replace(b"\0", bytes([NUL]))
    _warn_of_cut(len(encoded), length, "bytes", name)
    ids = np.zeros(length, dtype=np.uint8)
    ids[: len(encoded)] = np.frombuffer(encoded[:length], dtype=np.uint8)
    return ids


def _warn_of_cut(num_given: int, length: int, unit: str, name: str) -> None:
    if num_given > length:
        warnings.warn(  # the same words each time, so that Python shows them once
            f"observation {name!r} has a text of more than the {length} {unit} that are read; what "
            "follows them is cut: let the environment say it shorter",
            RuntimeWarning,
            stacklevel=3,
        )
