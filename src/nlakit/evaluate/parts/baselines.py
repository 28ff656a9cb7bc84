"""Explanations that need no NLA, read by the pair's own AR: what a pair has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import Floats, unit
from nlakit.core.statistics import derangement
from nlakit.evaluate.bench import Bench, Measured, Part, Values
from nlakit.evaluate.conditions import of_partners
from nlakit.evaluate.parts.av_reading import SCORED, add_texts
from nlakit.evaluate.parts.readouts import continuations, holds_subject, logit_lens, patchscopes
from nlakit.evaluate.scoring import row_scores
from nlakit.run.progress import say

CHUNK = 4096


def measure(bench: Bench) -> Part:
    """`fve` and `centred_cosine` of baselines, each with itself on another document's row as its
    floor (`NAME_other_row`).

    On all rows: `nearest_label`, the label of the nearest training vector, and `nearest_vector`,
    that vector itself, without words. On the first `control_rows` rows: `logit_lens`,
    `continuation` and `patchscopes`. Beside them the pair: `real` over `nearest_label`, and
    `real_vs_NAME` over each other baseline, on the rows that the baseline has.
    """
    part = Part("baselines")
    nearest_rows(part, bench)
    if bench.ar is None:
        part.notes.append("no AR: baselines of words cannot be scored, and are not made")
        return part
    subject_texts(part, bench)
    real = bench.score(bench.texts)
    names = [one.condition for one in part.measured if one.measure == "fve" and one.floor]
    if "nearest_label" not in names:
        part.add("real", {name: real[name] for name in SCORED})
    for name in names:
        condition = "real" if name == "nearest_label" else f"real_vs_{name}"
        for score in SCORED:
            known = ~np.isnan(part.of(score, name))
            part.measured.append(
                Measured(score, condition, np.where(known, real[score], np.nan), name)
            )
    return part


def nearest_rows(part: Part, bench: Bench) -> None:
    """The nearest training row: its vector, and its label if training rows have labels."""
    if bench.train is None:
        part.notes.append("no training rows at hand: no nearest neighbour")
        return
    near = nearest(bench.rows.vectors, bench.train.vectors, bench.mean)
    partners = derangement(bench.documents, bench.seed)
    known = np.flatnonzero(partners >= 0)
    for condition, rows, picked, floor in (
        ("nearest_vector", np.arange(len(bench)), near, "nearest_vector_other_row"),
        ("nearest_vector_other_row", known, near[partners[known]], None),
    ):
        real, made = bench.rows.vectors[rows], bench.train.vectors[picked]
        for name, values in row_scores(real, made, bench.mean, bench.base).items():
            if name in SCORED:
                part.measured.append(Measured(name, condition, spread(values, rows, bench), floor))
    if not any(bench.train.texts):
        part.notes.append("the training rows have no labels: no label of the nearest neighbour")
    elif bench.ar is not None:
        beside(part, bench, "nearest_label", [bench.train.texts[i] for i in near.tolist()])


def subject_texts(part: Part, bench: Bench) -> None:
    """What the untrained subject says, on the first `control_rows` rows."""
    if bench.av is None or not holds_subject(bench.av):
        why = "no AV" if bench.av is None else "all weights of the AV are trained"
        part.notes.append(f"{why}: the untrained subject is not at hand for its own readings")
        return
    av, batch = bench.av, bench.settings.generate_batch
    some = bench.rows.head(bench.settings.control_rows)
    say(f"baselines: the untrained subject on {len(some)} rows")
    beside(part, bench, "logit_lens", logit_lens(av, some.vectors))
    if bench.settings.profile == "quick":
        part.notes.append("the subject's continuation of the source belongs to eval.profile: full")
    elif any(some.sources):
        beside(part, bench, "continuation", continuations(av, some.sources, batch))
    else:
        part.notes.append("the rows have no source text: no continuation")
    beside(part, bench, "patchscopes", patchscopes(av, some.vectors, batch))


def beside(part: Part, bench: Bench, name: str, texts: Sequence[str]) -> None:
    """A baseline's texts, with the same baseline's text for another document's row as floor."""
    partners = derangement(bench.documents[: len(texts)], bench.seed)
    add_texts(part, bench, name, texts, f"{name}_other_row")
    add_texts(part, bench, f"{name}_other_row", of_partners(texts, partners))


def nearest(vectors: Floats, train: Floats, mean: Floats) -> NDArray[np.int64]:
    """Index `(n,)` of the training vector `(m, d)` nearest to each of `(n, d)` by centred cosine;
    the first of equals. Raises DataError for a vector without a direction."""
    wanted = unit(vectors) - mean
    best, index = np.full(len(wanted), -np.inf), np.zeros(len(wanted), dtype=np.int64)
    for start in range(0, len(train), CHUNK):
        block = unit(train[start : start + CHUNK]) - mean
        block = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
        scores = wanted @ block.T
        found = scores.argmax(axis=1)
        top = scores[np.arange(len(wanted)), found]
        better = top > best
        best[better], index[better] = top[better], start + found[better]
    return index


def spread(values: Floats, rows: NDArray[np.int64], bench: Bench) -> Values:
    """Values of some rows as values of all `(n,)`; NaN for the others."""
    wide = np.full(len(bench), np.nan)
    wide[rows] = values
    return wide
