"""Scores of reconstructions by row and condition, and their summaries with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nlakit.core.metrics import (
    baseline,
    centred_cosine,
    cosine,
    fve_rows,
    mse_normalised,
    retrieval_ranks,
)
from nlakit.core.statistics import estimate, estimate_share, paired_difference
from nlakit.files.rows import TableRows

MEASURES = ("fve", "centred_cosine", "cosine", "mse")


@dataclass(frozen=True)
class Scores:
    """Condition → measure → value a row `(n,)`, NaN where the condition has no text."""

    values: dict[str, dict[str, NDArray[Any]]]
    texts: dict[str, list[str | None]]
    base: float

    def of(self, measure: str) -> dict[str, NDArray[Any]]:
        return {condition: found[measure] for condition, found in self.values.items()}


class Reader(Protocol):
    """What turns texts into vectors: an AR, or a bench that remembers what its AR has read."""

    def reconstruct(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


def score_all(
    ar: Reader,
    rows: TableRows,
    inputs: Mapping[str, Sequence[str | None]],
    mean: NDArray[Any],
) -> Scores:
    """Score every condition, and `mean` (ū itself, no AR), on the rows.

    The FVE's denominator is E‖u − ū‖² over these rows with ū of the training parts.
    """
    base = baseline(rows.vectors, mean)
    values = {"mean": row_scores(rows.vectors, np.tile(mean, (len(rows), 1)), mean, base)}
    values["mean"]["centred_cosine"][:] = 0.0  # by definition: ū/‖ū‖ − ū tells nothing of a row
    for condition, texts in inputs.items():
        known = [i for i, text in enumerate(texts) if text is not None]
        if not known:
            continue
        distinct = list(dict.fromkeys(text for text in texts if text is not None))
        made_of = dict(zip(distinct, ar.reconstruct(distinct), strict=True))
        made = np.stack([made_of[texts[i] or ""] for i in known])
        found = row_scores(rows.vectors[known], made, mean, base)
        values[condition] = {name: _spread(v, known, len(rows)) for name, v in found.items()}
        if condition in ("real", "label", "other_row") and len(known) == len(rows):
            values[condition]["rank"] = retrieval_ranks(rows.vectors, made, mean).astype(float)
    return Scores(values, {name: list(texts) for name, texts in inputs.items()}, base)


def row_scores(
    real: NDArray[Any], made: NDArray[Any], mean: NDArray[Any], base: float
) -> dict[str, NDArray[Any]]:
    """All measures of reconstructions `(n, d)`; each `(n,)`."""
    return {
        "fve": fve_rows(real, made, base),
        "centred_cosine": centred_cosine(real, made, mean),
        "cosine": cosine(real, made),
        "mse": mse_normalised(real, made),
    }


def _spread(values: NDArray[Any], places: Sequence[int], n: int) -> NDArray[Any]:
    spread = np.full(n, np.nan)
    spread[list(places)] = values
    return spread


def summarise(scores: Scores, rows: TableRows) -> dict[str, Any]:
    """Condition → measure → estimate over the rows that have the condition."""
    summary: dict[str, Any] = {}
    for condition, found in scores.values.items():
        summary[condition] = {}
        for measure in MEASURES:
            values = found[measure]
            known = np.flatnonzero(~np.isnan(values))
            documents = [rows.doc_ids[i] for i in known]
            summary[condition][measure] = estimate(values[known], documents).as_dict()
        if "rank" in found:
            rank = found["rank"]
            top1 = estimate_share((rank == 0).astype(float), rows.doc_ids)
            summary[condition]["retrieval"] = {
                "top1": top1.mean,
                "top1_low": top1.low,
                "top1_high": top1.high,
                "top5": float((rank < 5).mean()),
                "mrr": float((1 / (1 + rank)).mean()),
                "candidates": len(rank),
            }
    return summary


def gains(scores: Scores, rows: TableRows, floors: Sequence[str]) -> dict[str, Any]:
    """Content gain for FVE and centred cosine: score(real) − score(best floor), paired by row."""
    result = {}
    for measure in ("fve", "centred_cosine"):
        found = scores.of(measure)
        best = max(floors, key=lambda name: float(np.nanmean(found[name])))
        pairs = ~np.isnan(found[best])
        documents = [rows.doc_ids[i] for i in np.flatnonzero(pairs)]
        gain = paired_difference(found["real"][pairs], found[best][pairs], documents)
        result[measure] = {"best_floor": best, **gain.as_dict()}
    return result


def score_table(scores: Scores, rows: TableRows) -> pa.Table:
    """Tidy rows: one a row and condition, with the whole text the AR was fed."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("row_id", "doc_id", "source_family", "condition", "text", *MEASURES)
    }
    for condition, found in scores.values.items():
        texts = scores.texts.get(condition, [None] * len(rows))
        for i, row_id in enumerate(rows.row_ids):
            if np.isnan(found["cosine"][i]):
                continue
            columns["row_id"].append(row_id)
            columns["doc_id"].append(rows.doc_ids[i])
            columns["source_family"].append(rows.families[i])
            columns["condition"].append(condition)
            columns["text"].append(texts[i])
            for measure in MEASURES:
                columns[measure].append(float(found[measure][i]))
    kinds = {"text": pa.string()}
    return pa.table({name: pa.array(v, kinds.get(name)) for name, v in columns.items()})
