"""Does a text find its own document? Ranks among documents, their floors, and a test by exchange.

Queries n (one text a row) and candidates c (one text a document). `target` `(n,)` is the index of
each query's own candidate, `families` `(c,)` the kind of text a candidate is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CUTS = (1, 5, 20)
WITHIN = "within_family_"
FAMILY = "family_top1"
TIE = 1e-6  # above the rounding of float32 embeddings


def hits(scores: NDArray[Any], families: Sequence[str]) -> dict[str, Floats]:
    """For similarities `(n, c)`, measure → `(n, c)`: what query i scores if j is its document.

    `top1`, `top5`, `top20`, `mrr` (reciprocal rank) and `percentile` (share of the other
    candidates that are less similar) among all candidates; with the prefix `within_family_` among
    those of j's family, NaN in a family of one; `family_top1`: whether the most similar candidate
    is of j's family. A tie counts against the text; in the percentile it counts half, so that a
    text equally similar to all candidates stands at 0.5, as chance does.
    """
    scores, names = np.asarray(scores, dtype=np.float64), np.asarray(families)
    made = _ranked(scores)
    within = {name: np.full(scores.shape, np.nan) for name in made}
    family = np.zeros(scores.shape)
    for name in np.unique(names):
        inside = names == name
        if inside.sum() > 1:
            for measure, values in _ranked(scores[:, inside]).items():
                within[measure][:, inside] = values
        best_outside = scores[:, ~inside].max(axis=1, initial=-np.inf)
        family[:, inside] = (scores[:, inside].max(axis=1) > best_outside + TIE)[:, None]
    return {**made, **{WITHIN + name: values for name, values in within.items()}, FAMILY: family}


def _ranked(scores: Floats) -> dict[str, Floats]:
    ordered, (n, c) = np.sort(scores, axis=1), scores.shape
    lower, upper = np.empty((n, c)), np.empty((n, c))
    for row in range(n):
        lower[row] = np.searchsorted(ordered[row], scores[row] - TIE, side="left")
        upper[row] = np.searchsorted(ordered[row], scores[row] + TIE, side="right")
    rank = c - 1 - lower
    made = {f"top{cut}": (rank < cut).astype(np.float64) for cut in CUTS}
    share = (lower + (upper - lower - 1) / 2) / max(c - 1, 1)
    return {**made, "mrr": 1 / (1 + rank), "percentile": share}


def chance(families: Sequence[str]) -> dict[str, Floats]:
    """The expectation of every measure of `hits` under a random order, a value a candidate `(c,)`.

    min(k, c) / c for top k, (1 + 1/2 + … + 1/c) / c for the reciprocal rank, 0.5 for the
    percentile, the family's share of the candidates for `family_top1`.
    """
    _, index, counts = np.unique(np.asarray(families), return_inverse=True, return_counts=True)
    sizes = counts[index]
    found = {name: np.full(len(sizes), one) for name, one in _expected(len(sizes)).items()}
    within = [_expected(size) for size in sizes.tolist()]
    for name in list(found):
        found[WITHIN + name] = np.array([one[name] for one in within])
        found[WITHIN + name][sizes == 1] = np.nan
    return {**found, FAMILY: sizes / len(sizes)}


def _expected(c: int) -> dict[str, float]:
    tops = {f"top{cut}": min(cut, c) / c for cut in CUTS}
    return {**tops, "mrr": float(np.sum(1 / np.arange(1, c + 1))) / c, "percentile": 0.5}


def own(values: Floats, target: Ints) -> Floats:
    """What each query scores with its own candidate: `(n,)` of `(n, c)`."""
    return values[np.arange(len(target)), target]


def of_others(values: Floats, target: Ints, groups: Sequence[str] | None = None) -> Floats:
    """The exact mean of what other documents' texts score with a row's document: `(n,)`.

    The expectation of the shuffle control over all shuffles. `groups` `(c,)` takes the texts from
    documents of the same group only; NaN where there is none.
    """
    sums, counts = _sums(values, target)
    allowed = ~np.eye(values.shape[1], dtype=bool)
    if groups is not None:
        names = np.asarray(groups)
        allowed &= names[:, None] == names[None]
    texts = (allowed * counts[:, None]).sum(axis=0)
    totals = np.where(allowed, sums, 0.0).sum(axis=0)
    means = np.full(len(texts), np.nan)
    np.divide(totals, texts, out=means, where=texts > 0)
    return means[target]


def deal(groups: Sequence[str] | None, c: int, count: int, seed: Sequence[int]) -> Ints:
    """`count` random orders of c documents `(count, c)`; with `groups`, within each group."""
    rng = np.random.default_rng(list(seed))
    names = np.zeros(c) if groups is None else np.asarray(groups)
    orders = np.tile(np.arange(c), (count, 1))
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        orders[:, members] = rng.permuted(np.tile(members, (count, 1)), axis=1)
    return orders


def exchange_p(values: Floats, target: Ints, dealt: Iterable[Ints]) -> float:
    """One-sided p that texts score higher with their own documents than with exchanged ones.

    All texts of a document go to the same other document, so documents and not rows are the unit.
    p = (1 + orders that score as high) / (1 + orders) for each `(count, c)` of `dealt`, the worst
    of them: Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    sums, _ = _sums(np.nan_to_num(values), target)
    observed, rows = np.trace(sums), np.arange(len(sums))
    found = [
        (1 + np.sum(sums[rows, orders].sum(axis=1) >= observed - 1e-9)) / (1 + len(orders))
        for orders in dealt
    ]
    return float(max(found))


def _sums(values: Floats, target: Ints) -> tuple[Floats, Ints]:
    """Sum over each document's queries `(c, c)`, and the number of these `(c,)`."""
    c = values.shape[1]
    sums = np.zeros((c, c))
    np.add.at(sums, target, values)
    return sums, np.bincount(target, minlength=c)
