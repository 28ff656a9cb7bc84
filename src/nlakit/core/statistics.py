"""Intervals and tests that treat the document, not the row, as the unit of chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nlakit.errors import DataError

FEW_EVENTS = 5  # rows of the rarer of two values; with fewer, how they cluster is not known
POWER = 0.8  # chance of finding an effect that is called detectable

Floats = NDArray[Any]
ROUNDING = 1e-9  # an error below it, of values up to 1, is that of adding them up
Side = Literal["greater", "less", "two-sided"]


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
        raise DataError(
            "need one document a value",
            found=f"{len(values)} and {len(clusters)}",
            do="give each row the document that it is from",
        )
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(index, weights=values), np.bincount(index).astype(np.float64)


def estimate(values: Floats, clusters: Sequence[str], level: float = 0.95) -> Estimate:
    """Mean of `values` `(n,)` with its 95% interval over documents, or that of another `level`.

    A t interval of the mean as a ratio (sum / rows): the standard error of `cluster_error`,
    documents − 1 degrees of freedom. Each end is the farther one of that interval and the one from
    which the skewness of documents is taken out by the cubic transformation of Hall (JRSS B 1992):
    skewness estimated from few documents is too noisy to shorten a side, and too harmful to leave
    out. None of percentile, BCa, bootstrap-t, jackknife t and Hall's intervals alone holds for
    normal, skewed and 0/1 data alike; the tests measure the coverage with 20 documents of 1 to 10
    rows. `estimate_share` is for measures that lie in [0, 1].

    One document: unbounded. Two or three: wide, as t is. Documents that all have one mean: no
    width. An interval may reach beyond the range of a bounded measure.
    """
    values = np.asarray(values, dtype=np.float64)
    found = _clustered(values, clusters)
    mean, documents = float(values.mean()), found.documents
    if documents < 2:
        return Estimate(mean, -np.inf, np.inf, len(values), documents)
    t = student(documents - 1, (1 + level) / 2)
    below = max(t, _unskewed(t, found.skewness))
    above = max(t, -_unskewed(-t, found.skewness))
    low, high = mean - found.error * below, mean + found.error * above
    return Estimate(mean, float(low), float(high), len(values), documents)


def estimate_share(values: Floats, clusters: Sequence[str]) -> Estimate:
    """Mean of `values` `(n,)`, of a measure that lies in [0, 1], with a 95% interval over documents
    that stays there.

    The interval of Wilson (JASA 1927) at an effective number of rows in the place of n (Korn and
    Graubard, Survey Methodology 1998; Franco, Little, Louis and Slud, Journal of Survey Statistics
    and Methodology 2019): p(1 − p) over the square of `cluster_error`, which is rows over the
    design effect; t with documents − 1 degrees of freedom in place of z. For 0/1 values it is at
    most the number of rows; with fewer than five rows of the rarer kind, whose clustering cannot be
    known, at most the number of documents, and likewise where all are alike.

    One document: unbounded.
    """
    values = np.asarray(values, dtype=np.float64)
    found = _clustered(values, clusters)
    mean, documents = float(values.mean()), found.documents
    if documents < 2:
        return Estimate(mean, -np.inf, np.inf, len(values), documents)
    spread = max(mean * (1 - mean), 0.0)
    told_apart = spread > 0 and found.error > ROUNDING
    size = spread / found.error**2 if told_apart else float(documents)
    if np.isin(values, (0.0, 1.0)).all():
        rarer = min(values.sum(), len(values) - values.sum())
        size = min(size, documents if rarer < FEW_EVENTS else len(values))
    excess = student(documents - 1, 0.975) ** 2 / size
    centre, root = mean + excess / 2, np.sqrt(excess * (spread + excess / 4))
    low, high = ((centre + side * root) / (1 + excess) for side in (-1, 1))
    ends = max(0.0, min(float(low), mean)), min(1.0, max(float(high), mean))  # but for rounding
    return Estimate(mean, *ends, len(values), documents)


@dataclass(frozen=True)
class _Clustered:
    """Standard error of a mean, and skewness of the documents' residual sums over the root of
    their number."""

    error: float
    skewness: float
    documents: int


def student(freedom: float, share: float) -> float:
    """The value below which Student's t lies in a share of cases."""
    from scipy.special import stdtrit  # half of what the command line would load to say its help

    return float(stdtrit(freedom, share))


def _clustered(values: Floats, clusters: Sequence[str]) -> _Clustered:
    sums, counts = cluster_sums(values, clusters)
    if len(sums) < 2 or np.ptp(values) == 0:
        return _Clustered(0.0 if len(sums) > 1 else np.inf, 0.0, len(sums))
    residuals = sums - counts * values.mean()
    # Each residual over the rows of the others: what the mean would lose without the document.
    error = np.linalg.norm(residuals / (counts.sum() - counts))
    spread = np.linalg.norm(residuals)
    skewness = float(np.sum((residuals / spread) ** 3)) if spread > 0 else 0.0
    return _Clustered(float(error), skewness, len(sums))


def _unskewed(t: float, skewness: float) -> float:
    """Inverse of Hall's g(T) = T + γT²/3 + γ²T³/27 + γ/6 (γ: skewness / √documents) at `t`."""
    shifted = t - skewness / 6
    root = np.cbrt(1 + skewness * shifted)
    # (root − 1) · 3/γ without the division by γ, which may be 0.
    return 3 * shifted / (1 + root + root**2)


def cluster_error(values: Floats, clusters: Sequence[str]) -> float:
    """Standard error of the mean of `values` `(n,)` over documents: the root of the sum of squares
    of what leaving out one document does to the mean (CR3 of Bell and McCaffrey, Survey
    Methodology 2002, slightly too wide rather than too narrow). Infinite for one document."""
    return _clustered(np.asarray(values, dtype=np.float64), clusters).error


def minimum_detectable_effect(
    values: Floats, clusters: Sequence[str], power: float = POWER, alpha: float = 0.05
) -> float:
    """The smallest true mean that a two-sided test at `alpha` finds with chance `power`, in the
    units of `values` `(n,)`, for as many documents with the same spread: (t at 1 − alpha/2 + t at
    power) standard errors (Bloom, Evaluation Review 1995). Infinite for one document."""
    found = _clustered(np.asarray(values, dtype=np.float64), clusters)
    if found.documents < 2:
        return np.inf
    ends = (1 - alpha / 2, power)
    return float(found.error * sum(student(found.documents - 1, end) for end in ends))


def paired_difference(
    first: Floats, second: Floats, clusters: Sequence[str], level: float = 0.95
) -> Estimate:
    """Mean of first − second, paired by row, with its interval over documents."""
    return estimate(np.asarray(first) - np.asarray(second), clusters, level)


def ratio_rows(part: Floats, whole: Floats) -> Floats:
    """Values a row whose mean is the ratio of means r = Σ part / Σ whole, and whose spread is its
    own: r + (part − r · whole) / mean(whole), the ratio linearised (Cochran, Sampling Techniques,
    1977, ch. 6)."""
    ratio = np.sum(part) / np.sum(whole)
    return ratio + (part - ratio * whole) / np.mean(whole)


def permutation_p(observed: float, null: Floats, side: Side = "greater") -> float:
    """p of a figure among those of `null` `(k,)` permutations: (1 + as extreme) / (1 + k), so it
    is never zero (Phipson and Smyth, SAGMB 2010). Two-sided: twice the smaller of the two sides."""
    null = np.asarray(null, dtype=np.float64)
    slack = 1e-12 * max(1.0, abs(observed))  # sums in another order count as ties
    above = float((1 + np.sum(null >= observed - slack)) / (1 + len(null)))
    below = float((1 + np.sum(null <= observed + slack)) / (1 + len(null)))
    return {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}[side]


def sign_flip_p(
    differences: Floats,
    clusters: Sequence[str],
    permutations: int = 1000,
    seed: int = 0,
    side: Side = "greater",
) -> float:
    """p that the mean of paired differences `(n,)` is above zero (`side`: or below, or off it),
    flipping signs of whole documents."""
    sums, _ = cluster_sums(differences, clusters)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, len(sums)))
    return permutation_p(float(sums.sum()), signs @ sums, side)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in their order (Holm, Scandinavian Journal of Statistics
    1979): rejecting where the adjusted one is under 0.05 makes one false claim or more with a
    chance of at most 5%. Raises DataError for values outside [0, 1]."""
    found = np.asarray(ps, dtype=np.float64)
    if not ((found >= 0) & (found <= 1)).all():
        raise DataError(
            "p-values lie in [0, 1]",
            found=found[~((found >= 0) & (found <= 1))][0],
            do="give p-values as they come from a test",
        )
    order = np.argsort(found, kind="stable")
    steps = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted.tolist()


def auc(scores: Floats, labels: Floats) -> float:
    """Chance that a positive row scores above a negative one, ties counting half.

    scores `(n,)`; labels `(n,)`, true or 1 for positives. Raises DataError without both kinds.
    """
    return float(_placements(scores, labels)[np.asarray(labels, dtype=bool)].mean())


def auc_rows(scores: Floats, labels: Floats) -> Floats:
    """Values `(n,)` whose mean is the AUC and whose spread over documents is its own: AUC + n/m
    (V − AUC), V the share of the other kind on the right side of the row and m the rows of its own
    kind (DeLong, DeLong and Clarke-Pearson, Biometrics 1988; for clusters Obuchowski, Biometrics
    1997). A value may lie outside [0, 1]. Raises DataError without both kinds."""
    positive = np.asarray(labels, dtype=bool)
    values, area = _placements(scores, positive), auc(scores, positive)
    own = np.where(positive, positive.sum(), (~positive).sum())
    return area + len(values) / own * (values - area)


def _placements(scores: Floats, labels: Floats) -> Floats:
    """Share of the other kind that each row is on the right side of, ties half: `(n,)`."""
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    count = int(positive.sum())
    if len(scores) != len(positive) or not 0 < count < len(positive):
        raise DataError(
            "an AUC needs a score a row, and rows of both kinds",
            found=f"{len(scores)} scores, {count} positive of {len(positive)} rows",
            do="give rows with and without what is looked for",
        )
    from scipy.stats import rankdata

    below = rankdata(scores)
    for kind in (positive, ~positive):
        below[kind] -= rankdata(scores[kind])
    return np.where(positive, below / (len(positive) - count), 1 - below / count)


def derangement(clusters: Sequence[str], seed: int = 0, same: bool = False) -> NDArray[np.int64]:
    """For each row a partner row: of another document, or (`same`) elsewhere in its own document.

    −1 where no such row exists. Partners are drawn by a generator keyed on `seed`.
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(seed)
    partners = np.full(len(index), -1, dtype=np.int64)
    for row, cluster in enumerate(index):
        own = members[cluster]
        count = len(own) - 1 if same else len(index) - len(own)
        if not count:
            continue
        pick = int(rng.integers(count))
        if same:
            partners[row] = own[pick + (own[pick] >= row)]
        else:
            # The pick-th row that is none of `own`: as many places on as members stand before it.
            partners[row] = pick + np.searchsorted(own - np.arange(len(own)), pick, side="right")
    return partners
