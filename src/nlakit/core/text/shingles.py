"""Runs of eight words, as numbers: what texts that copy each other share."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from nlakit.core.text.stats import words

SHINGLE_WORDS = 8
Hashes = NDArray[np.uint64]


def shingle_hashes(text: str, modulus: int = 1) -> Hashes:
    """Sorted unique 64-bit hashes of the text's 8-word shingles, those divisible by `modulus`.

    A text of fewer words is one shingle; a text without words has none. The hash is a polynomial
    over the words' CRC-32, mixed: the same in every process, unlike Python's `hash`.
    """
    codes = np.array([zlib.crc32(word.encode()) for word in words(text)], dtype=np.uint64)
    size = min(SHINGLE_WORDS, len(codes))
    if size == 0:
        return codes
    count = len(codes) - size + 1
    state = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        state = state * np.uint64(0x9E3779B97F4A7C15) + codes[offset : offset + count]
    # The finaliser of splitmix64: without it, low bits depend on the words' low bits alone.
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return np.unique(state[state % np.uint64(modulus) == 0])
