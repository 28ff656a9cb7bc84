"""Intervals and tests that treat the document, not the row, as the unit of chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.errors import DataError

Floats = NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval over documents, and what it was taken over."""

    mean: float
    low: float
    high: float
    rows: int
    documents: int

    def as_dict(self) -> dict[str, float | int]:
        return dict(vars(self))


def cluster_sums(values: Floats, clusters: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum and count of `values` `(n,)` a cluster, in order of the sorted cluster names."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(clusters) or not len(values):
        raise DataError("need one document a value", found=f"{len(values)} and {len(clusters)}")
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index).astype(np.float64)


def bootstrap_means(values: Floats, clusters: Sequence[str], draws: int, seed: int) -> Floats:
    """Means of `draws` resamples of whole documents with replacement: `(draws,)`."""
    sums, counts = cluster_sums(values, clusters)
    picks = np.random.default_rng(seed).integers(0, len(sums), size=(draws, len(sums)))
    return sums[picks].sum(axis=1) / counts[picks].sum(axis=1)


def estimate(values: Floats, clusters: Sequence[str], draws: int = 2000, seed: int = 0) -> Estimate:
    """Mean of `values` `(n,)` with its percentile interval by bootstrap over documents.

    With one document there is nothing to resample and the interval is unbounded.
    """
    values = np.asarray(values, dtype=np.float64)
    documents = len(set(clusters))
    if documents < 2:
        return Estimate(float(values.mean()), -np.inf, np.inf, len(values), documents)
    low, high = np.quantile(bootstrap_means(values, clusters, draws, seed), [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), len(values), documents)


def paired_difference(
    first: Floats, second: Floats, clusters: Sequence[str], draws: int = 2000, seed: int = 0
) -> Estimate:
    """Mean of first − second, paired by row, with its interval over documents."""
    return estimate(np.asarray(first) - np.asarray(second), clusters, draws, seed)


def sign_flip_p(
    differences: Floats, clusters: Sequence[str], permutations: int = 1000, seed: int = 0
) -> float:
    """One-sided p that the mean difference is above zero, flipping signs of whole documents.

    (1 + draws at least as large) / (1 + draws), so it is never zero.
    """
    sums, _ = cluster_sums(differences, clusters)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, len(sums)))
    return float((1 + np.sum(signs @ sums >= sums.sum() - 1e-12)) / (1 + permutations))


def derangement(clusters: Sequence[str], seed: int = 0, same: bool = False) -> NDArray[np.int64]:
    """For each row a partner row: of another document, or (`same`) elsewhere in its own document.

    −1 where no such row exists. Partners are drawn by a generator keyed on `seed`.
    """
    names = np.asarray(clusters)
    rng = np.random.default_rng(seed)
    partners = np.full(len(names), -1, dtype=np.int64)
    for row, name in enumerate(names):
        pool = names == name if same else names != name
        pool[row] = False
        choices = np.flatnonzero(pool)
        if choices.size:
            partners[row] = rng.choice(choices)
    return partners
