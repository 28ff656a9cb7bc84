"""The round trip: explanation to vector, beside floors, ceilings and copy controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import baseline, cosine, mean_unit
from nlakit.evaluate.bench import Bench, Measured, Part
from nlakit.evaluate.conditions import FLOORS, ar_inputs
from nlakit.evaluate.scoring import MEASURES, Scores, score_all
from nlakit.files.rows import TableRows

NOISE_FLOOR = 0.30  # of the Gemma-4-E2B card
BINS = 4


def measure(bench: Bench) -> Part:
    """The part `roundtrip`, which the verdict is made of. Needs an AR."""
    assert bench.ar is not None, "the caller checks that there is an AR"
    rows, texts = bench.rows, bench.texts
    inputs = ar_inputs(rows, texts, bench.ar.tokenizer, bench.seed)
    scores = score_all(bench, rows, inputs, bench.mean)
    part = Part("roundtrip", texts=dict(scores.texts))
    for condition, found in scores.values.items():
        for name in MEASURES:
            floor = best_floor(scores, name) if condition == "real" else None
            part.measured.append(Measured(name, condition, found[name], floor))
        if "rank" in found:
            rank = found["rank"]
            ranked = {"top1": rank == 0, "top5": rank < 5, "mrr": 1 / (1 + rank)}
            other = "rank" in scores.values.get("other_row", {}) and condition == "real"
            floor = "other_row" if other else None
            part.add(condition, {name: v.astype(float) for name, v in ranked.items()}, floor)
    part.measured += other_baselines(bench, scores.values["real"]["mse"])
    part.measured.append(Measured("moves", "real", moves(bench, texts)))
    part.detail = {"card": card_block(scores.values["real"]["cosine"], texts)}
    return part


def best_floor(scores: Scores, measure: str) -> str:
    """The floor with the best mean; the smallest for a squared error."""
    sign = -1.0 if measure == "mse" else 1.0
    floors = [name for name in FLOORS if name in scores.values]
    return max(floors, key=lambda name: sign * float(np.nanmean(scores.values[name][measure])))


def other_baselines(bench: Bench, mse: NDArray[Any]) -> list[Measured]:
    """FVE a row under the other baselines in circulation: the mean unit vector of the evaluated
    rows themselves, and the mean direction ū/‖ū‖. Figures under different baselines do not compare.
    """
    own = baseline(bench.rows.vectors, mean_unit(bench.rows.vectors))
    along = cosine(bench.rows.vectors, np.tile(bench.mean, (len(bench), 1)))
    direction = float(np.mean(2 * (1 - along)))
    bases = {"fve_own_mean": own, "fve_mean_direction": direction}
    return [Measured(name, "real", 1 - mse / base) for name, base in bases.items()]


def moves(bench: Bench, texts: Sequence[str]) -> NDArray[Any]:
    """‖û(text) − û(empty)‖² a row: how far a text moves the reconstruction at all; 0 for an AR
    that answers everything alike."""
    made = bench.reconstruct(list(texts))
    empty = np.repeat(bench.reconstruct([""]), len(texts), axis=0)
    return 2.0 * (1.0 - cosine(made, empty))


def card_block(cosines: NDArray[Any], texts: Sequence[str]) -> dict[str, float | int]:
    """The block of the Gemma-4-E2B card: raw cosine over the rows whose text is not empty, which
    is how that card counts. For comparison with it alone: raw cosine says little."""
    written = np.array([bool(text.strip()) for text in texts])
    kept = cosines[written] if written.any() else cosines[:0]
    counts: dict[str, float | int] = {"attempted": len(texts), "evaluated": int(written.sum())}
    if not len(kept):
        return counts
    return counts | {
        "mean": float(kept.mean()),
        "sd": float(kept.std(ddof=1)) if len(kept) > 1 else 0.0,
        "median": float(np.median(kept)),
        "min": float(kept.min()),
        "max": float(kept.max()),
        "above_0_30": float((kept > NOISE_FLOOR).mean()),
    }


def groups_of(rows: TableRows) -> dict[str, list[str]]:
    """Kind → group a row: family, and quarters by position and by activation norm."""
    norms = np.linalg.norm(rows.vectors.astype(np.float64), axis=1)
    return {
        "family": list(rows.families),
        "position": _quarters(np.asarray(rows.positions, dtype=np.float64)),
        "norm": _quarters(norms),
    }


def _quarters(values: NDArray[np.float64]) -> list[str]:
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1))
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
    return [f"{i + 1}: {edges[i]:.0f} to {edges[i + 1]:.0f}" for i in place]
