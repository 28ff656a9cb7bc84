"""Exact and near duplicates.

Two texts are near duplicates when they share much of their 8-word shingles:
share = |A ∩ B| / min(|A|, |B|), so a text pasted into a longer one counts as a whole copy.

Shared shingles are counted exactly, through a sorted index, while a corpus has no more than
MAX_SHINGLES of them; above, only shingles with hash % m == 0 are kept, m the smallest power of
two that suffices (m = 4 for 100,000 documents of 3,000 characters). The same shingles are kept
in every document, so the share stays unbiased for documents of unlike length, which it does not
under MinHash, where a fixed number of hashes a document estimates the Jaccard index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nlakit.core.text.shingles import Hashes, shingle_hashes

MAX_SHINGLES = 1 << 24
CHARACTERS_PER_WORD = 5
# A shingle that thousands of documents hold is boilerplate: through it each of them is compared
# with the first holders only, which keeps the work linear in the number of documents.
FIRST_HOLDERS = 64
BLOCK_DOCUMENTS = 64

Advance = Callable[[], object]


def exact_key(text: str) -> bytes:
    """16 bytes that are equal for texts that differ only in case and white space."""
    return hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=16).digest()


def sampling_modulus(texts: Sequence[str]) -> int:
    """Smallest power of two m such that one shingle in m of all texts fits MAX_SHINGLES."""
    expected = sum(map(len, texts)) // CHARACTERS_PER_WORD
    modulus = 1
    while expected // modulus > MAX_SHINGLES:
        modulus *= 2
    return modulus


def similar_pairs(
    texts: Sequence[str], share: float, advance: Advance = lambda: None
) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of texts that share a shingle and at least `share` of the shorter
    one's, ascending. `advance` is called once a text."""
    modulus = sampling_modulus(texts)
    sketches: list[Hashes] = []
    for text in texts:
        sketches.append(shingle_hashes(text, modulus))
        advance()
    sizes = np.array([len(sketch) for sketch in sketches], dtype=np.int64)
    if not sizes.sum():
        return
    docs, first, again = _index(sketches, sizes)
    blocks = np.arange(0, len(texts) + BLOCK_DOCUMENTS, BLOCK_DOCUMENTS)
    for low, high in pairwise(np.searchsorted(docs[again], blocks).tolist()):
        keys = _pair_keys(docs, first, again[low:high], len(texts))
        pairs, shared = np.unique(keys, return_counts=True)
        later, earlier = np.divmod(pairs, len(texts))
        near = shared / np.minimum(sizes[later], sizes[earlier]) >= share
        yield from zip(later[near].tolist(), earlier[near].tolist(), strict=True)


def _index(
    sketches: Sequence[Hashes], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """An inverted index as arrays over all (hash, document) rows, sorted by both.

    Returns the document of each row, the row of the hash's first holder, and the rows that are
    not the first of their hash, by document.
    """
    hashes = np.concatenate(sketches)
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    docs = np.repeat(np.arange(len(sketches)), sizes)[order]
    rows = np.arange(len(hashes))
    starts = np.r_[True, hashes[1:] != hashes[:-1]]
    first = np.maximum.accumulate(np.where(starts, rows, 0))
    again = rows[~starts]
    return docs, first, again[np.argsort(docs[again], kind="stable")]


def _pair_keys(
    docs: NDArray[np.int64], first: NDArray[np.int64], rows: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """later * n + earlier for each row and each of the first holders of its hash before it."""
    keys = [np.empty(0, dtype=np.int64)]
    for holder in range(FIRST_HOLDERS):
        rows = rows[first[rows] + holder < rows]
        if not len(rows):
            break
        keys.append(docs[rows] * n + docs[first[rows] + holder])
    return np.concatenate(keys)


def near_duplicates(
    texts: Sequence[str], share: float, advance: Advance = lambda: None
) -> list[int | None]:
    """For each text the index of an earlier kept text that it nearly copies; None if it is kept.

    Every dropped text has a kept one to which it is near, and no two kept texts are near.
    """
    original: list[int | None] = [None] * len(texts)
    for later, earlier in similar_pairs(texts, share, advance):
        if original[later] is None and original[earlier] is None:
            original[later] = earlier
    return original


def groups_of_near_duplicates(
    texts: Sequence[str], share: float, advance: Advance = lambda: None
) -> list[int]:
    """Group number of each text: near duplicates, and theirs in turn, share one.

    Groups are numbered from 0 in the order of their first texts.
    """
    parent = list(range(len(texts)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for later, earlier in similar_pairs(texts, share, advance):
        left, right = sorted((root(later), root(earlier)))
        parent[right] = left
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(node), len(numbers)) for node in range(len(texts))]
