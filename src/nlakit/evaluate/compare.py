"""Evaluations against each other, measure by measure: paired by row where the rows are the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nlakit.core.statistics import (
    POWER,
    cluster_error,
    holm,
    minimum_detectable_effect,
    paired_difference,
    sign_flip_p,
    student,
)
from nlakit.errors import DataError

Key = tuple[str, str, str]  # part, measure, condition
PAIRED, UNPAIRED, SUMMARISED = "paired", "unpaired", "intervals"
OWN = (
    "real",
    "explanation",
)  # conditions whose texts are the pair's, after METHOD: if there is one
# Part → measures of the pair's own texts that a comparison is about, stated before any is made:
# Holm's correction is over these alone.
HEADLINES: dict[str, tuple[str, ...]] = {
    "roundtrip": ("fve", "centred_cosine", "cosine", "top1"),
    "av_reading": ("gap",),
    "retrieval": ("top1",),
    "truth": ("quote_precision", "word_precision", "fabricated"),
    "collapse": ("unique", "loop", "self_bleu"),
}
# Held-out measure of a training → its floors there: what a checkpoint is chosen by.
CONTENT = {"centred_real": ("centred_empty", "centred_other"), "gap_nats": ()}


@dataclass(frozen=True)
class Side:
    """One evaluation. values: (part, measure, condition) → row → value, empty where only findings
    are at hand. documents: row → document. origin: provenance, and the verdict if there is one."""

    name: str
    findings: list[dict[str, Any]]
    values: dict[Key, dict[str, float]] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def by_key(self) -> dict[Key, dict[str, Any]]:
        """The findings over all rows that have a value."""
        return {
            (one["part"], one["measure"], one["condition"]): one
            for one in self.findings
            if one.get("group", "all") == "all" and one.get("mean") is not None
        }


def claims(side: Side) -> list[Key]:
    """The findings that say something of the pair: those on its own texts; of a measure that has
    none, those with a floor; of a measure that has neither, all. Labels, floors and controls are
    no claims of their own."""
    found = side.by_key()
    ranks = {
        key: 0 if key[2].rpartition(":")[2] in OWN else 1 if one["floor"] else 2
        for key, one in found.items()
    }
    best: dict[tuple[str, str], int] = {}
    for key, rank in ranks.items():
        best[key[:2]] = min(rank, best.get(key[:2], rank))
    return [key for key, rank in ranks.items() if rank == best[key[:2]]]


def compare(
    sides: Sequence[Side], permutations: int = 10_000, seed: int = 0
) -> list[dict[str, Any]]:
    """A record for every claim that the first side shares with another: other − first with its
    95% interval, two-sided p, and `p_holm`: Holm's p over the records of
    `HEADLINES`, None for the others.

    Raises DataError for fewer than two sides, or sides that share no claim.
    """
    if len(sides) < 2:
        raise DataError(
            "a comparison needs two sides", found=f"{len(sides)}", do="name another evaluation"
        )
    first, *others = sides
    made = []
    for other in others:
        theirs = set(claims(other))
        shared = [key for key in claims(first) if key in theirs]
        made += [difference(first, other, key, permutations, seed) for key in shared]
    if not made:
        raise DataError(
            "the sides share no measure",
            found=", ".join(side.name for side in sides),
            do="evaluate them with the same profile",
        )
    first_looked_at = [one for one in made if is_headline(one)]
    for record in made:
        record["p_holm"] = None
    adjusted = holm([one["p"] for one in first_looked_at])
    for record, p in zip(first_looked_at, adjusted, strict=True):
        record["p_holm"] = p
    return made


def is_headline(record: Mapping[str, Any]) -> bool:
    return record["measure"] in HEADLINES.get(record["part"], ())


def difference(first: Side, other: Side, key: Key, permutations: int, seed: int) -> dict[str, Any]:
    """One measure of two sides, by the strongest method that the data at hand allow: paired by row
    with p by sign flips of whole documents; else unpaired, by Welch's t (1947) with standard errors
    over documents, or with those that two intervals give."""
    mine, theirs = first.by_key()[key], other.by_key()[key]
    record = {
        **dict(zip(("part", "measure", "condition"), key, strict=True)),
        "first": first.name,
        "other": other.name,
        "first_mean": mine["mean"],
        "other_mean": theirs["mean"],
    }
    a, b = first.values.get(key), other.values.get(key)
    if not a or not b:
        return record | _unpaired(SUMMARISED, mine, theirs, [_error(mine), _error(theirs)])
    shared = [row for row in a if row in b and first.documents[row] == other.documents[row]]
    documents = [first.documents[row] for row in shared]
    if 2 * len(shared) < max(len(a), len(b)) or len(set(documents)) < 2:
        errors = [
            cluster_error(np.array(list(values.values())), [side.documents[row] for row in values])
            for side, values in ((first, a), (other, b))
        ]
        return record | _unpaired(UNPAIRED, mine, theirs, errors)
    before, after = (np.array([side[row] for row in shared]) for side in (a, b))
    found = paired_difference(after, before, documents)
    p = sign_flip_p(after - before, documents, permutations, seed, side="two-sided")
    counts = {"rows": len(shared), "documents": found.documents}
    counts |= {"first_mean": float(before.mean()), "other_mean": float(after.mean())}
    least = minimum_detectable_effect(after - before, documents)
    return record | _answer(PAIRED, found.mean, found.low, found.high, p, least) | counts


def _error(found: Mapping[str, Any]) -> float:
    """Standard error of a mean from its 95% t interval."""
    low, high = found["low"], found["high"]
    if low is None or high is None or found["documents"] < 2:
        return np.inf
    return (high - low) / (2 * student(found["documents"] - 1, 0.975))


def _unpaired(
    method: str, mine: Mapping[str, Any], theirs: Mapping[str, Any], errors: Sequence[float]
) -> dict[str, Any]:
    step, error = theirs["mean"] - mine["mean"], math.hypot(*errors)
    counts = {name: min(mine[name], theirs[name]) for name in ("rows", "documents")}
    if not np.isfinite(error):
        return _answer(method, step, -np.inf, np.inf, 1.0, np.inf) | counts
    if error == 0:  # nothing varies on either side
        return _answer(method, step, step, step, float(step == 0), 0.0) | counts
    parts = [e**4 / (one["documents"] - 1) for e, one in zip(errors, (mine, theirs), strict=True)]
    from scipy.special import stdtr

    freedom = error**4 / sum(parts)
    half = error * student(freedom, 0.975)
    p = 2 * float(stdtr(freedom, -abs(step) / error))
    least = half + error * student(freedom, POWER)
    return _answer(method, step, step - half, step + half, p, least) | counts


def _answer(
    method: str, step: float, low: float, high: float, p: float, least: float
) -> dict[str, Any]:
    """`detectable`: the smallest difference that would be found in four of five such studies."""
    return {
        "method": method,
        "difference": step,
        "low": _finite(low),
        "high": _finite(high),
        "p": p,
        "detectable": _finite(least),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def best_step(records: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The step of a training with the highest content: centred cosine above its better floor, or
    the verbalizer's gap. None where the training measured neither.

    Training measures few rows and keeps no values a row: the choice has no interval.
    """
    found = []
    for one in records:
        for measure, floors in CONTENT.items():
            if one.get(measure) is None:
                continue
            floor = max((one[name] for name in floors if one.get(name) is not None), default=0.0)
            found.append({"step": one["step"], "measure": measure, "gain": one[measure] - floor})
    return max(found, key=lambda one: one["gain"], default=None)
