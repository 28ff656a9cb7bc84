"""Linear probes scored on documents they have not seen, with values a row for AUC and accuracy.

Rows n, width d, classes k. The penalty is chosen inside the training documents of each fold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core import statistics
from nlakit.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Features = NDArray[Any] | Sequence[str]

FOLDS, INNER_FOLDS = 5, 3
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # C for inputs with E‖x‖² = 1
STEPS = 2000


def cross_validated(
    features: Features, labels: Sequence[str], groups: Sequence[str], seed: int
) -> Floats:
    """Out-of-fold probabilities `(n, k)`, classes in sorted order, of a logistic regression.

    features: `(n, d)`, standardised within each fold, or n texts, read as tf-idf of words and pairs
    of words. Folds are of whole groups (documents), with the classes spread over them; classes
    weigh the same. C is the one of PENALTIES with the smallest loss on inner folds of groups.

    Raises DataError if a fold's training documents hold only one class.
    """
    _, index = np.unique(np.asarray(labels), return_inverse=True)
    scores = np.zeros((len(index), int(index.max()) + 1))
    for train, test in _folds(index, groups, FOLDS, seed):
        if len(np.unique(index[train])) < 2:
            raise DataError(
                "a class lies in too few documents to be tested on others",
                found=f"{np.bincount(index).tolist()} rows a class, in "
                f"{len(set(groups))} documents",
                do="give each class at least five documents",
            )
        penalty = _penalty(features, index, groups, train, seed)
        seen, unseen = _inputs(features, train, test)
        scores[test] = _probabilities(seen, index[train], unseen, penalty, scores.shape[1])
    return scores


def _folds(
    index: Ints, groups: Sequence[str], folds: int, seed: int
) -> Iterator[tuple[Ints, Ints]]:
    from sklearn.model_selection import StratifiedGroupKFold

    names = np.asarray(groups)
    count = min(folds, len(np.unique(names)))
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    yield from splitter.split(np.zeros(len(index)), index, names)


def _penalty(
    features: Features, index: Ints, groups: Sequence[str], rows: Ints, seed: int
) -> float:
    """The C with the smallest log loss on held-out groups of `rows`."""
    losses = np.zeros(len(PENALTIES))
    names = np.asarray(groups)[rows]
    for inner, outer in _folds(index[rows], names.tolist(), INNER_FOLDS, seed):
        train, test = rows[inner], rows[outer]
        if len(np.unique(index[train])) < 2:
            continue
        seen, unseen = _inputs(features, train, test)
        for i, penalty in enumerate(PENALTIES):
            found = _probabilities(seen, index[train], unseen, penalty, int(index.max()) + 1)
            right = found[np.arange(len(test)), index[test]]
            losses[i] -= np.log(np.maximum(right, 1e-12)).sum()
    return PENALTIES[int(losses.argmin())]


def _inputs(features: Features, train: Ints, test: Ints) -> tuple[Any, Any]:
    """Inputs of training and test rows with E‖x‖² = 1, scaled by the training rows alone."""
    if not isinstance(features, np.ndarray):
        from sklearn.feature_extraction.text import TfidfVectorizer

        counter = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
        try:
            seen = counter.fit_transform([features[row] for row in train])
        except ValueError:  # no text holds a word: they are all alike
            return np.zeros((len(train), 1)), np.zeros((len(test), 1))
        return seen, counter.transform([features[row] for row in test])
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(np.asarray(features[train], dtype=np.float64))
    width = np.sqrt(features.shape[1])
    return tuple(scaler.transform(np.float64(features[rows])) / width for rows in (train, test))


def _probabilities(seen: Any, index: Ints, unseen: Any, penalty: float, classes: int) -> Floats:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=STEPS)
    model.fit(seen, index)
    made = np.zeros((unseen.shape[0], classes))
    made[:, model.classes_] = model.predict_proba(unseen)
    return made


def auc_rows(scores: NDArray[Any], labels: Sequence[str]) -> Floats:
    """Values `(n,)` whose mean is the AUC, as `statistics.auc_rows` has them; for k > 2 the mean of
    those of each class against the rest. Raises DataError for labels of one class."""
    classes, index = np.unique(np.asarray(labels), return_inverse=True)
    columns = range(1, 2) if len(classes) == 2 else range(len(classes))
    return np.mean([statistics.auc_rows(scores[:, k], index == k) for k in columns], axis=0)


def balanced_accuracy_rows(scores: NDArray[Any], labels: Sequence[str]) -> Floats:
    """Values `(n,)` whose mean is the balanced accuracy: every class weighs the same.

    For a row of class c with m rows: mean accuracy of the classes + n/(k m) (right − accuracy
    of c), so that the spread is that of the balanced accuracy. Of tied classes the first is
    predicted.
    """
    classes, index, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    right = (scores.argmax(axis=1) == index).astype(np.float64)
    by_class = np.bincount(index, weights=right) / counts
    weight = len(index) / (len(classes) * counts)
    return by_class.mean() + weight[index] * (right - by_class[index])


def retained_rows(values: Floats, whole: Floats, chance: float) -> Floats:
    """Values `(n,)` whose mean is r = (mean of `values` − chance) / (mean of `whole` − chance).

    r + (v − r w) / mean(w) for v, w above chance: the spread is that of the ratio to first order
    (delta method). Meant for a `whole` that is above chance beyond doubt.
    """
    v, w = np.asarray(values) - chance, np.asarray(whole) - chance
    share = v.mean() / w.mean()
    return share + (v - share * w) / w.mean()


def dealt_labels(labels: Sequence[str], groups: Sequence[str], seed: Sequence[int]) -> list[str]:
    """The labels dealt out again, document after document in a random order of these and of the
    labels of each: rows that shared a document and a label still do, and it means nothing."""
    rng = np.random.default_rng(list(seed))
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    place = rng.permutation(int(index.max()) + 1)
    dealt = np.empty(len(index), dtype=object)
    taken = np.lexsort((rng.random(len(index)), place[index]))
    dealt[np.argsort(index, kind="stable")] = np.asarray(labels, dtype=object)[taken]
    return dealt.tolist()
