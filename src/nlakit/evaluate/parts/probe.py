"""How much of what a probe can read from activations do the explanations keep?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.probing import (
    FOLDS,
    Features,
    auc_rows,
    balanced_accuracy_rows,
    cross_validated,
    dealt_labels,
    retained_rows,
)
from nlakit.core.statistics import estimate
from nlakit.errors import DataError
from nlakit.evaluate.bench import Measured, Part, Values
from nlakit.evaluate.embedding import NOT_INSTALLED, embedder
from nlakit.models.nla import NLA
from nlakit.run.progress import ticker

SMALLEST_CLASS = 10
SHUFFLES = 3
MEASURES = {"auc": auc_rows, "balanced_accuracy": balanced_accuracy_rows}
WHOLE, FLOOR = "activation", "shuffled_labels"


def run(
    nla: NLA,
    texts: Sequence[str],
    labels: Sequence[str],
    documents: Sequence[str],
    *,
    embedding: str | None = None,
    batch: int = 32,
    seed: int = 0,
) -> Part:
    """The part `probe` for n texts with labels, read at their last token.

    Conditions: `activation`, `reconstruction`, `explanation_words`, `explanation_embedding`,
    `source_words` (words of the text itself), and the floors `shuffled_labels` and `majority`.
    Measures: `auc`, `balanced_accuracy`; `auc_minus_activation`, the paired difference; and
    `auc_retained`, (AUC − 0.5) over that of the activations, where that is above chance.

    Raises DataError for labels or texts that no probe can be fitted to, ModelError for an
    embedding that cannot be loaded.
    """
    check(texts, labels, documents)
    part = Part("probe")
    vectors = _activations(nla, texts)
    features: dict[str, Features] = {WHOLE: vectors, **_read(nla, vectors, part, embedding, batch)}
    features["source_words"] = list(texts)
    part.texts["source_words"] = list(texts)
    _add_floors(part, vectors, labels, documents, seed)
    with ticker("probes", len(features), "probes") as tick:
        for condition, given in features.items():
            scores = cross_validated(given, labels, documents, seed)
            for name, rows in MEASURES.items():
                part.measured.append(Measured(name, condition, rows(scores, labels), FLOOR))
            tick.advance()
    _compare(part, documents)
    part.detail = {
        "classes": dict(sorted(Counter(labels).items())),
        "documents": len(set(documents)),
        "folds": FOLDS,
        "shuffles": SHUFFLES,
    }
    return part


def check(texts: Sequence[str], labels: Sequence[str], documents: Sequence[str]) -> None:
    """Raise DataError unless a probe can be fitted and tested on documents it has not seen."""
    if empty := [row for row, text in enumerate(texts) if not text.strip()]:
        raise DataError(
            "empty texts have no activation to read",
            found=f"{len(empty)} of {len(texts)} rows, first {empty[0]}",
            do="delete these rows",
        )
    rows = Counter(labels)
    spread = Counter(label for label, _ in set(zip(labels, documents, strict=True)))
    if len(rows) < 2:
        raise DataError(
            "a probe needs two classes", found=list(rows) or "no rows", do="give rows of both"
        )
    for counts, least, what in (
        (rows, SMALLEST_CLASS, "rows"),
        (spread, FOLDS, "documents"),
    ):
        small = {label: count for label, count in counts.items() if count < least}
        if small:
            raise DataError(
                f"a class has fewer than {least} {what}",
                found=", ".join(f"{label}: {count}" for label, count in sorted(small.items())),
                do=f"give at least {least} {what} a class, or leave the class out",
            )


def _activations(nla: NLA, texts: Sequence[str]) -> NDArray[np.float32]:
    """Raw activations `(n, d)` at the last token of each text."""
    found = []
    with ticker("activations", len(texts), "texts") as tick:
        for text in texts:
            found.append(nla.activations(text, "last")[2][0])
            tick.advance()
    return np.stack(found)


def _read(
    nla: NLA, vectors: NDArray[Any], part: Part, embedding: str | None, batch: int
) -> dict[str, Features]:
    """What the pair makes of the activations, in each form that can be probed."""
    if nla.av is None:
        part.notes.append("there is no AV: nothing is said of explanations and reconstructions")
        return {}
    with ticker("explanations", len(vectors), "texts") as tick:
        written = nla.av.explain(vectors, batch=batch, on_batch=tick.advance)
    part.texts["explanation"] = list(written)
    if empty := sum(not text.strip() for text in written):
        part.notes.append(f"{empty} of {len(written)} explanations are empty; they count as such")
    made: dict[str, Features] = {}
    if nla.ar is None:
        part.notes.append("there is no AR: nothing is said of reconstructions")
    else:
        made["reconstruction"] = nla.reconstruct(written)
    made["explanation_words"] = written
    embed = embedder(embedding)
    if embed is None:
        part.notes.append(NOT_INSTALLED.replace("as eval.embedding", "by --embedding"))
    else:
        made["explanation_embedding"] = embed(written)
    return made


def _add_floors(
    part: Part, vectors: NDArray[Any], labels: Sequence[str], documents: Sequence[str], seed: int
) -> None:
    """A probe of the activations for labels that mean nothing, and the largest class always."""
    found: dict[str, list[Values]] = {name: [] for name in MEASURES}
    for shuffle in range(SHUFFLES):
        dealt = dealt_labels(labels, documents, [seed, 41, shuffle])
        scores = cross_validated(vectors, dealt, documents, seed)
        for name, rows in MEASURES.items():
            found[name].append(rows(scores, dealt))
    classes = sorted(set(labels))
    largest = Counter(labels).most_common(1)[0][0]
    constant = np.tile([float(name == largest) for name in classes], (len(labels), 1))
    for name, rows in MEASURES.items():
        part.measured.append(Measured(name, FLOOR, np.mean(found[name], axis=0)))
        part.measured.append(Measured(name, "majority", rows(constant, labels)))


def _compare(part: Part, documents: Sequence[str]) -> None:
    """Differences from the probe of the activations, and the share of its AUC that is kept."""
    whole = part.of("auc", WHOLE)
    readable = estimate(whole, documents).low > 0.5
    if not readable:
        part.notes.append(
            "the probe of the activations is not above chance: there is nothing to retain"
        )
    others = [one for one in part.measured if one.measure == "auc" and one.floor == FLOOR]
    for one in others:
        if one.condition == WHOLE:
            continue
        part.measured.append(Measured("auc_minus_activation", one.condition, one.values - whole))
        if readable:
            kept = retained_rows(one.values, whole, 0.5)
            part.measured.append(Measured("auc_retained", one.condition, kept))
