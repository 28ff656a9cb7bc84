"""Reconstruction measures. Rows n, width d; every vector is compared by direction.

u = h/‖h‖, û = r/‖r‖ for a raw activation h and its reconstruction r; ū is the mean of the training
parts' unit vectors, not normalised again. Formulas: Fraser-Taliente et al., "Natural language
autoencoders" (transformer-circuits.pub/2026/nla), reconstruction section.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nlakit.errors import DataError

Floats = NDArray[np.floating]


def unit(vectors: Floats) -> Floats:
    """Rows of `(n, d)` scaled to norm one, in float64.

    Raises DataError for a row that is zero or not finite: it has no direction.
    """
    vectors = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if bad.size:
        raise DataError(
            "vectors without a direction (zero or not finite)",
            found=f"{bad.size} of {len(vectors)} rows, first {bad[0]}",
            do="drop these rows; a NaN usually means float16 overflow in the subject",
        )
    return vectors / norms


def mean_unit(vectors: Floats) -> Floats:
    """ū `(d,)`: mean of the unit vectors of `(n, d)`, not normalised again."""
    return unit(vectors).mean(axis=0)


def cosine(real: Floats, made: Floats) -> Floats:
    """cos(û, u) a row: `(n,)`."""
    return np.sum(unit(real) * unit(made), axis=1)


def mse_normalised(real: Floats, made: Floats) -> Floats:
    """‖u − û‖² = 2(1 − cos) a row: `(n,)`, in [0, 4]."""
    return 2.0 * (1.0 - cosine(real, made))


def baseline(real: Floats, mean: Floats) -> float:
    """E‖u − ū‖²: what the constant ū leaves unexplained; the denominator of FVE."""
    return float(np.mean(np.sum((unit(real) - mean) ** 2, axis=1)))


def fve_rows(real: Floats, made: Floats, base: float) -> Floats:
    """1 − ‖u − û‖² / base a row: `(n,)`; its mean over rows is the fraction of variance
    explained, 1 − E‖u − û‖² / E‖u − ū‖², where base is that of `baseline`."""
    if base <= 0:
        raise DataError(
            "the FVE baseline must be positive", found=base, do="give rows whose vectors differ"
        )
    return 1.0 - mse_normalised(real, made) / base


def centred_cosine(real: Floats, made: Floats, mean: Floats) -> Floats:
    """cos(û − ū, u − ū) a row: `(n,)`.

    Zero by definition where û − ū vanishes: a reconstruction that equals ū tells nothing.
    """
    left, right = unit(made) - mean, unit(real) - mean
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.sum(left * right, axis=1)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 1e-12)


def retrieval_ranks(real: Floats, made: Floats, mean: Floats) -> NDArray[np.int64]:
    """Rank `(n,)` of each row's own vector among all n, by centred cosine; 0 is first.

    Ties count against the row, so that a constant reconstruction ranks last and not first.
    """
    left, right = unit(made) - mean, unit(real) - mean
    right = right / np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-12)
    scores = left @ right.T
    own = np.diag(scores)[:, None]
    return (scores >= own - 1e-12).sum(axis=1) - 1
