"""AUC and accuracy as values a row, worked by hand; folds of whole documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from nlakit.core.probing import (
    auc_rows,
    balanced_accuracy_rows,
    cross_validated,
    dealt_labels,
    retained_rows,
)
from nlakit.errors import DataError


def two_columns(positive: list[float]) -> np.ndarray:
    return np.column_stack([1 - np.array(positive), positive])


def test_auc_values_by_hand() -> None:
    labels = ["no", "no", "no", "yes"]
    # The positive is above two negatives and level with one: AUC = 2.5 / 3.
    found = auc_rows(two_columns([0.1, 0.2, 0.6, 0.6]), labels)
    auc = 2.5 / 3
    wanted = [auc + 4 / 3 * (1 - auc)] * 2 + [auc + 4 / 3 * (0.5 - auc), auc]
    assert found == pytest.approx(wanted)
    assert found.mean() == pytest.approx(auc)


def test_balanced_accuracy_values_by_hand() -> None:
    labels = ["no", "no", "no", "yes"]
    # One of three negatives is called positive; the positive is found: (2/3 + 1) / 2.
    found = balanced_accuracy_rows(two_columns([0.1, 0.2, 0.6, 0.9]), labels)
    base, weight = (2 / 3 + 1) / 2, 4 / 6
    assert found == pytest.approx([base + weight / 3] * 2 + [base - weight * 2 / 3, base])
    assert found.mean() == pytest.approx(base)


def test_the_constant_answer_scores_chance_on_every_row() -> None:
    labels = ["a"] * 6 + ["b"] * 2 + ["c"] * 2
    constant = np.tile([1.0, 0.0, 0.0], (10, 1))
    assert auc_rows(constant, labels) == pytest.approx([0.5] * 10)
    assert balanced_accuracy_rows(constant, labels) == pytest.approx([1 / 3] * 10)


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_the_mean_of_the_values_is_what_scikit_learn_says(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(classes), rng.integers(classes, size=20)])
    scores = rng.dirichlet(np.ones(classes), size=len(index)).round(1)
    scores = scores / scores.sum(axis=1, keepdims=True)
    labels = [f"class {i}" for i in index]
    columns = [1] if classes == 2 else range(classes)
    auc = np.mean([roc_auc_score(index == k, scores[:, k]) for k in columns])
    assert auc_rows(scores, labels).mean() == pytest.approx(auc)
    said = scores.argmax(axis=1)
    assert balanced_accuracy_rows(scores, labels).mean() == pytest.approx(
        balanced_accuracy_score(index, said)
    )


def test_the_spread_of_the_values_is_that_of_the_auc() -> None:
    rng, aucs, errors = np.random.default_rng(0), [], []
    for _ in range(400):
        positive = np.arange(80) < 20
        found = auc_rows(two_columns(list(rng.standard_normal(80) + positive)), positive.tolist())
        aucs.append(found.mean())
        errors.append(found.std() / np.sqrt(80))
    assert np.mean(errors) == pytest.approx(np.std(aucs), rel=0.10)


def test_retained_values_by_hand() -> None:
    whole, kept = np.array([0.9, 0.7]), np.array([0.7, 0.7])
    found = retained_rows(kept, whole, 0.5)
    assert found.mean() == pytest.approx(0.2 / 0.3)
    assert retained_rows(whole, whole, 0.5) == pytest.approx([1.0, 1.0])


def build_rows() -> tuple[np.ndarray, list[str], list[str]]:
    """Vectors `(96, 12)` of 32 documents, each easy to know, and labels that one direction says."""
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(32), 3)
    vectors = rng.standard_normal((32, 12))[owner] + 0.2 * rng.standard_normal((96, 12))
    vectors[:, 0] += 5 * (owner % 2)
    labels = ["yes" if document % 2 else "no" for document in owner]
    return vectors, labels, [f"d{document}" for document in owner]


def test_what_vectors_say_is_read_on_documents_not_seen() -> None:
    vectors, labels, groups = build_rows()
    scores = cross_validated(vectors, labels, groups, 0)
    assert scores.sum(axis=1) == pytest.approx(np.ones(96))
    assert auc_rows(scores, labels).mean() > 0.85
    assert (cross_validated(vectors, labels, groups, 0) == scores).all()


def test_planted_a_document_known_by_heart_is_not_a_label_that_is_read() -> None:
    vectors, _, groups = build_rows()
    drawn = np.random.default_rng(5).permutation(32) % 2
    labels = [str(drawn[int(name[1:])]) for name in groups]  # nowhere in the vectors
    leaky = cross_validated(vectors, labels, [str(row) for row in range(96)], 0)
    honest = cross_validated(vectors, labels, groups, 0)
    assert auc_rows(leaky, labels).mean() > auc_rows(honest, labels).mean() + 0.1
    assert auc_rows(honest, labels).mean() < 0.65


def test_texts_are_read_by_their_words() -> None:
    labels = ["sea", "law"] * 20
    texts = [f"a {'wave' if label == 'sea' else 'court'} of kind {i}" for i, label in
             enumerate(labels)]  # fmt: skip
    groups = [str(i) for i in range(40)]
    assert auc_rows(cross_validated(texts, labels, groups, 0), labels).mean() == 1.0
    empty = cross_validated([""] * 40, labels, groups, 0)
    assert auc_rows(empty, labels).mean() == pytest.approx(0.5, abs=0.1)


def test_a_class_of_one_document_cannot_be_tested() -> None:
    labels, groups = ["a"] * 20 + ["b"] * 4, [*map(str, range(20)), *["one"] * 4]
    with pytest.raises(DataError, match="too few documents"):
        cross_validated(np.random.default_rng(0).standard_normal((24, 3)), labels, groups, 0)


def test_labels_are_dealt_document_by_document() -> None:
    groups = [f"d{i // 3}" for i in range(30)]
    labels = ["x" if i < 12 else "y" for i in range(30)]
    dealt = dealt_labels(labels, groups, [1])
    assert sorted(dealt) == sorted(labels)
    assert dealt != labels
    assert all(len(set(dealt[i : i + 3])) == 1 for i in range(0, 30, 3))


def test_labels_are_dealt_anew_where_all_documents_have_the_same() -> None:
    labels, groups = ["x", "y"] * 20, [f"d{i // 2}" for i in range(40)]
    dealt = dealt_labels(labels, groups, [1])
    assert 0.2 < np.mean([a == b for a, b in zip(dealt, labels, strict=True)]) < 0.8
