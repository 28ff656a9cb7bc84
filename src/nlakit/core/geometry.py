"""What a layer's vectors look like, and what can be read from them without training a model.

Rows n, width d; vectors are compared by direction (u = h/‖h‖). Rows cluster by document: whatever
is chosen or scored is chosen and scored on documents that the fit has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import unit
from nlakit.core.statistics import derangement
from nlakit.errors import DataError

Floats = NDArray[np.floating]
PENALTIES = tuple(10.0**power for power in range(-3, 4))  # relative to the mean squared direction
INNER_SHARE = 0.25
SHUFFLES = 20


def mean_direction_rows(vectors: Floats, mean: Floats) -> tuple[Floats, Floats]:
    """For rows `(n, d)` and ū of other documents: u·ū and cos(u, ū), each `(n,)`.

    The mean of the first over rows is the energy share ‖E u‖² of the common mean, without the 1/n
    that ‖ū‖² of the same rows would add; of the second, the mean cosine to the mean direction.
    """
    along = unit(vectors) @ np.asarray(mean, dtype=np.float64)
    return along, along / max(float(np.linalg.norm(mean)), 1e-12)


def effective_rank(vectors: Floats) -> float:
    """exp of the entropy of the normalised eigenvalues of the centred covariance of the unit
    vectors `(n, d)`; from 1 to min(n − 1, d).

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007,
    applied to the covariance. Vectors that do not differ at all have rank 1.
    """
    directions = unit(vectors)
    values = np.linalg.svd(directions - directions.mean(axis=0), compute_uv=False) ** 2
    total = values.sum()
    if total < 1e-20 * len(directions):
        return 1.0
    shares = values[values > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def far_partners(
    documents: Sequence[str], positions: Sequence[int], apart: int
) -> NDArray[np.int64]:
    """For each row, the row of its document farthest away in tokens; −1 if none is `apart` away."""
    places = np.asarray(positions, dtype=np.int64)
    names = np.asarray(documents)
    partners = np.full(len(names), -1, dtype=np.int64)
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        distance = np.abs(places[rows][:, None] - places[rows][None])
        farthest = distance.argmax(axis=1)
        far = distance[np.arange(len(rows)), farthest] >= apart
        partners[rows[far]] = rows[farthest[far]]
    return partners


def document_hits(
    vectors: Floats, mean: Floats, documents: Sequence[str], partners: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Does a position find another position of its document among all other documents' rows?

    Each row with a partner is a query; its candidates are the partner and every row of another
    document, by cosine of u − ū. Returns the query rows `(m,)`, whether the partner came first,
    the same with the partner's place given to a random row of another document (the floor, a mean
    of 20 draws), and 1 / candidates (chance), each `(m,)`. A tie counts as not found.

    Raises DataError if no row has a partner or there is no other document.
    """
    queries = np.flatnonzero(partners >= 0)
    names = np.asarray(documents)
    if not queries.size or len(set(documents)) < 2:
        raise DataError(
            "no document can be retrieved",
            found=f"{queries.size} rows with a partner, {len(set(documents))} documents",
            do="use more or longer documents, or more positions a document",
        )
    centred = unit(vectors) - mean
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    scores = centred[queries] @ centred.T
    foreign = names[queries][:, None] != names[None]
    others = np.where(foreign, scores, -np.inf)
    found = scores[np.arange(len(queries)), partners[queries]] > others.max(axis=1)
    best = others.argmax(axis=1)
    draws = [derangement(documents, seed + draw)[queries] == best for draw in range(SHUFFLES)]
    chance = 1.0 / (1 + foreign.sum(axis=1))
    return queries, found.astype(np.float64), np.mean(draws, axis=0), chance


def inner_documents(documents: Sequence[str], seed: int) -> NDArray[np.bool_]:
    """Rows `(n,)` of the quarter of the documents on which a probe's penalty is chosen."""
    names = np.unique(np.asarray(documents))
    drawn = np.random.default_rng(seed).permutation(names)
    return np.isin(documents, drawn[: max(1, round(len(names) * INNER_SHARE))])


class Ridge:
    """Penalised least squares from inputs `(n, d)`; the penalty is chosen on held-out documents.

    W = argmin ‖XW − Y‖² + λ‖W‖²; λ is the one of PENALTIES × E‖x‖² with the smallest squared error
    on a quarter of the documents, then W is fitted on all rows. The inputs are decomposed once, so
    that several targets cost little more than one.
    """

    def __init__(self, inputs: Floats, documents: Sequence[str], seed: int) -> None:
        inputs = np.asarray(inputs, dtype=np.float64)
        self.inner = inner_documents(documents, seed)
        self.scale = float(np.mean(np.sum(inputs**2, axis=1))) or 1.0
        self.parts = np.linalg.svd(inputs, full_matrices=False)
        self.outer = np.linalg.svd(inputs[~self.inner], full_matrices=False)
        self.projected = inputs[self.inner] @ self.outer[2].T

    def fit(self, targets: Floats) -> Floats:
        """W `(d, k)` for targets `(n, k)`."""
        wanted, seen = targets[self.inner], self.outer[0].T @ targets[~self.inner]
        errors = [
            np.sum((self.projected @ (self._shrunk(self.outer[1], penalty) * seen) - wanted) ** 2)
            for penalty in PENALTIES
        ]
        left, values, right = self.parts
        return right.T @ (self._shrunk(values, PENALTIES[np.argmin(errors)]) * (left.T @ targets))

    def _shrunk(self, values: Floats, penalty: float) -> Floats:
        """σ / (σ² + λ) `(r, 1)` of singular values `(r,)`."""
        return (values / (values**2 + penalty * self.scale))[:, None]


def one_hot(labels: Sequence[str], classes: Sequence[str]) -> Floats:
    """`(n, classes)`: 1 for the row's class, less the class's share of the rows."""
    made = (np.asarray(labels)[:, None] == np.asarray(classes)[None]).astype(np.float64)
    return made - made.mean(axis=0)


def balanced_rows(real: Sequence[str], said: Sequence[str]) -> Floats:
    """Values `(n,)` whose mean is the balanced accuracy: a right row counts n / (classes × rows of
    its class), so that every class weighs the same."""
    names, index = np.unique(np.asarray(real), return_inverse=True)
    weight = len(index) / (len(names) * np.bincount(index))
    return weight[index] * (np.asarray(real) == np.asarray(said))


def reciprocal_ranks(made: Floats, candidates: Floats, own: NDArray[np.int64]) -> Floats:
    """1 / (1 + rank) `(n,)` of candidate `own[i]` for each made vector `(n, k)` among candidates
    `(c, k)`, by cosine; ties count against it."""
    right = candidates / np.maximum(np.linalg.norm(candidates, axis=1, keepdims=True), 1e-12)
    scores = made @ right.T
    chosen = scores[np.arange(len(made)), own][:, None]
    return 1.0 / (scores >= chosen - 1e-12).sum(axis=1)
