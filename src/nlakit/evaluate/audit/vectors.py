"""An audit of raw vectors and their reconstructions: every score computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import retrieval_ranks, unit
from nlakit.core.statistics import derangement
from nlakit.evaluate.audit.rows import AuditRows
from nlakit.evaluate.bench import Measured, Part, Values
from nlakit.evaluate.scoring import row_scores

CHUNK = 4096  # rows held in float64 at once


def measure_vectors(rows: AuditRows) -> Part | None:
    """The part `roundtrip`: scores of real and of every variant that has reconstructions, of the
    mean, of another row's and another position's reconstruction, and the rank of the row's own
    vector.
    """
    real, made = rows.values("activation_vector"), rows.values("reconstruction")
    known = np.flatnonzero(has_vector(real))
    if real.shape[1] != made.shape[1] or not (has_vector(real) & has_vector(made)).any():
        rows.cannot("scores from vectors", "rows with both vectors, of one width")
        return None
    given = rows.table["activation_vector"][rows.training]
    given = given[has_vector(given)]
    own = mean_of(real[known])
    mean, source = (mean_of(given), "train") if len(given) else (own, "rows")
    bases = baselines(real[known], mean, own)
    part = Part("roundtrip", detail={"baselines": {f"mean_unit_{source}": bases["fve"]} | bases})
    of = "training rows of this table" if len(given) else "these rows: no training rows are here"
    rows.notes.append(f"fve is against {bases['fve']:.4f}: the mean unit vector is that of {of}")
    conditions = {"real": made, "mean": np.tile(mean.astype(np.float32), (len(rows), 1))}
    conditions |= {name: rows.values("reconstruction", name) for name in rows.aligned
                   if name not in conditions}  # fmt: skip
    for name, same in (("other_row", False), ("same_document", True)):
        conditions.setdefault(name, of_partners(rows, made, same))
    for condition, vectors in conditions.items():
        part.add(condition, scores(rows, real, vectors, mean, bases["fve"]))
    centred = part.of("centred_cosine", "mean")
    centred[~np.isnan(centred)] = 0.0  # by definition: ū tells nothing of a row
    mse = part.of("mse", "real")
    apart = rows.spread(rowwise(lambda v: squares(v, mean), real[known]), known)
    part.add("real", {
        "fve_own_mean": 1 - mse / bases["fve_own_mean"],
        "fve_mean_direction": 1 - mse / bases["fve_mean_direction"],
        "fve_row_ratio": 1 - mse / apart,
    })  # fmt: skip
    part.measured += ranks(rows, real, made, mean)
    return part


def has_vector(vectors: NDArray[Any]) -> NDArray[np.bool_]:
    return ~np.isnan(vectors[:, 0])


def rowwise(function: Callable[..., Values], *vectors: NDArray[Any]) -> Values:
    """A function of `(n, d)` to `(n,)`, applied to some thousand rows at a time."""
    starts = range(0, len(vectors[0]), CHUNK)
    return np.concatenate([function(*(v[i : i + CHUNK] for v in vectors)) for i in starts])


def mean_of(vectors: NDArray[Any]) -> Values:
    """ū `(d,)` of `(n, d)`."""
    starts = range(0, len(vectors), CHUNK)
    sums = [unit(vectors[i : i + CHUNK]).sum(axis=0) for i in starts]
    return np.sum(sums, axis=0) / len(vectors)


def squares(vectors: NDArray[Any], mean: Values) -> Values:
    """‖u − mean‖² a row: `(n,)`."""
    return np.sum((unit(vectors) - mean) ** 2, axis=1)


def baselines(vectors: NDArray[Any], mean: Values, own: Values) -> dict[str, float]:
    """Measure → what it divides by: E‖u − c‖² over the rows for c = ū; the rows' own mean unit
    vector; the direction ū/‖ū‖; nothing at all; and a random direction, whose error is 2."""
    centres = {"fve": mean, "fve_own_mean": own, "fve_mean_direction": mean / np.linalg.norm(mean)}
    found = {
        name: float(rowwise(lambda v, c=centre: squares(v, c), vectors).mean())
        for name, centre in centres.items()
    }
    return found | {"zero_vector": 1.0, "random_direction": 2.0}


def scores(
    rows: AuditRows, real: NDArray[Any], made: NDArray[Any], mean: Values, base: float
) -> dict[str, Values]:
    """`fve`, `centred_cosine`, `cosine`, `mse` of the rows that have both vectors, each `(n,)`."""
    both = np.flatnonzero(has_vector(real) & has_vector(made))
    found = {
        name: np.full(len(rows), np.nan) for name in ("fve", "centred_cosine", "cosine", "mse")
    }
    for i in range(0, len(both), CHUNK):
        some = both[i : i + CHUNK]
        for name, values in row_scores(real[some], made[some], mean, base).items():
            found[name][some] = values
    return found


def of_partners(rows: AuditRows, made: NDArray[Any], same: bool) -> NDArray[Any]:
    """For the sampled rows, the reconstruction of a row of another document, or of another row of
    the same one; NaN where there is none."""
    partners = derangement([rows.documents[i] for i in rows.sample], rows.seed, same)
    found, some = np.full(made.shape, np.nan, dtype=np.float32), partners >= 0
    found[rows.sample[some]] = made[rows.sample[partners[some]]]
    return found


def ranks(rows: AuditRows, real: NDArray[Any], made: NDArray[Any], mean: Values) -> list[Measured]:
    """`top1`, `top5` and `mrr` of each row's own vector among the sampled rows, and chance."""
    both = rows.sample[has_vector(real)[rows.sample] & has_vector(made)[rows.sample]]
    if len(both) < 2:
        return []
    found, n = retrieval_ranks(real[both], made[both], mean), len(both)
    values = {"top1": found < 1, "top5": found < 5, "mrr": 1 / (1 + found)}
    expected = {
        "top1": 1 / n,
        "top5": min(5, n) / n,
        "mrr": float(np.sum(1 / np.arange(1, n + 1))) / n,
    }
    made_of: list[Measured] = []
    for name, value in values.items():
        made_of.append(Measured(name, "real", rows.spread(value.astype(float), both), "chance"))
        made_of.append(Measured(name, "chance", rows.spread(np.full(n, expected[name]), both)))
    return made_of
