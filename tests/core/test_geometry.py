"""Geometry and probes against values worked by hand; the rule that chooses a layer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nlakit.core.geometry import (
    Ridge,
    balanced_rows,
    document_hits,
    effective_rank,
    far_partners,
    mean_direction_rows,
    one_hot,
    reciprocal_ranks,
)
from nlakit.core.layer_choice import Compared, listed, recommend, two_thirds, warnings
from nlakit.core.metrics import mean_unit
from nlakit.errors import DataError


def test_equal_vectors_lie_in_the_mean_and_have_rank_one() -> None:
    vectors = np.tile([3.0, 4.0, 0.0], (5, 1)) * np.arange(1, 6)[:, None]  # lengths do not count
    share, cosine = mean_direction_rows(vectors, mean_unit(vectors))
    np.testing.assert_allclose(share, 1.0)
    np.testing.assert_allclose(cosine, 1.0)
    assert effective_rank(vectors) == 1.0


def test_opposite_axes_have_no_mean_and_full_rank() -> None:
    axes = np.concatenate([np.eye(6), -np.eye(6)]) * 7.0
    share, cosine = mean_direction_rows(axes, mean_unit(axes))
    np.testing.assert_allclose(share, 0.0, atol=1e-15)
    np.testing.assert_allclose(cosine, 0.0, atol=1e-3)
    assert effective_rank(axes) == pytest.approx(6.0)


def test_mean_share_and_cosine_by_hand() -> None:
    # ū of (1, 0) and (0, 1) is (½, ½): along it lies ½ of each, at cosine √½.
    share, cosine = mean_direction_rows(np.eye(2), mean_unit(np.eye(2)))
    np.testing.assert_allclose(share, 0.5)
    np.testing.assert_allclose(cosine, math.sqrt(0.5))


def test_effective_rank_by_hand() -> None:
    # On the plane z = 0.6: ±0.8 in x twice, in y once. Eigenvalues 2 : 1, entropy of (⅔, ⅓).
    rows = [[0.8, 0, 0.6], [-0.8, 0, 0.6]] * 2 + [[0, 0.8, 0.6], [0, -0.8, 0.6]]
    entropy = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert effective_rank(np.array(rows)) == pytest.approx(math.exp(entropy))


def test_partners_are_the_farthest_position_that_is_far_enough() -> None:
    documents = ["a", "a", "a", "b", "b", "c"]
    partners = far_partners(documents, [10, 30, 60, 5, 20, 0], apart=25)
    assert partners.tolist() == [2, 2, 0, -1, -1, -1]


def test_documents_are_found_by_direction_alone() -> None:
    base = np.eye(4)
    vectors = np.concatenate([10 * base, base + 0.01])  # two positions of four documents
    documents = list("abcdabcd")
    partners = far_partners(documents, [0] * 4 + [50] * 4, apart=32)
    mean = mean_unit(vectors)
    queries, found, shuffled, chance = document_hits(vectors, mean, documents, partners, seed=0)
    assert queries.tolist() == list(range(8)) and found.tolist() == [1.0] * 8
    assert chance.tolist() == [1 / 7] * 8  # the partner and six rows of others
    assert 0 < shuffled.mean() < 0.4
    # Two documents with each other's vectors find each other and not themselves.
    crossed = vectors.copy()
    crossed[[4, 5]] = vectors[[5, 4]]
    _, found, _, _ = document_hits(crossed, mean, documents, partners, seed=0)
    assert found.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_equal_vectors_find_no_document() -> None:
    documents, partners = list("aabb"), np.array([1, 0, 3, 2])
    same = np.ones((4, 3))
    _, found, _, _ = document_hits(same, np.zeros(3), documents, partners, seed=0)
    assert found.tolist() == [0.0] * 4
    with pytest.raises(DataError, match="no document can be retrieved"):
        document_hits(same, np.zeros(3), documents, np.full(4, -1), seed=0)


def test_ridge_finds_a_linear_map_and_shrinks_on_noise() -> None:
    rng = np.random.default_rng(0)
    documents = [f"d{row // 4}" for row in range(120)]
    inputs, wanted = rng.standard_normal((120, 5)), rng.standard_normal((5, 2))
    ridge = Ridge(inputs, documents, seed=0)
    np.testing.assert_allclose(ridge.fit(inputs @ wanted), wanted, atol=0.01)
    noise = ridge.fit(rng.standard_normal((120, 2)))
    assert np.abs(noise).max() < 0.1


def test_ridge_by_hand() -> None:
    # X = I of 2 rows in both parts: W = Y / (1 + λ) for the λ it chose, and λ is the smallest.
    inputs = np.tile(np.eye(2), (8, 1))
    documents = [f"d{row // 2}" for row in range(16)]
    targets = np.tile([[1.0], [-2.0]], (8, 1))
    made = Ridge(inputs, documents, seed=0).fit(targets)
    np.testing.assert_allclose(made, np.array([[1.0], [-2.0]]) * 8 / (8 + 1e-3))


def test_balanced_accuracy_weighs_classes_alike() -> None:
    real = ["a"] * 8 + ["b"] * 2
    assert balanced_rows(real, ["a"] * 10).mean() == pytest.approx(0.5)
    assert balanced_rows(real, real).mean() == pytest.approx(1.0)
    assert balanced_rows(real, ["a"] * 4 + ["b"] * 6).mean() == pytest.approx((0.5 + 1) / 2)
    made = one_hot(["a", "b", "a", "c"], ["a", "b"])
    np.testing.assert_allclose(made[0], [0.5, -0.25])
    np.testing.assert_allclose(made.sum(axis=0), 0)


def test_reciprocal_ranks_by_hand() -> None:
    candidates = np.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    made = np.array([[1.0, 0.1], [1.0, 0.1], [0.0, 0.0]])
    ranks = reciprocal_ranks(made, candidates, np.array([0, 1, 1]))
    np.testing.assert_allclose(ranks, [1, 1 / 3, 1 / 3])  # of equal scores none comes first


def build(values: dict[int, float], name: str = "content gain", spread: float = 0.1) -> Compared:
    """Sixty rows of thirty documents a layer around the given means."""
    rng = np.random.default_rng(0)
    shared = spread * rng.standard_normal(60)
    documents = [f"d{row // 2}" for row in range(60)]
    rows = {k: mean + shared + 0.02 * rng.standard_normal(60) for k, mean in values.items()}
    return Compared(name, documents, rows)


def test_two_thirds_of_the_depth() -> None:
    assert [two_thirds(blocks) for blocks in (1, 2, 4, 18, 28, 35)] == [0, 1, 2, 12, 18, 23]


def test_runs_of_layers_are_listed_short() -> None:
    assert listed([3, 1, 2, 7, 5]) == "1–3, 5, 7"


def test_a_layer_far_below_its_neighbours_is_named() -> None:
    found = warnings([build({10: 0.5, 11: 0.52, 12: 0.2, 13: 0.4})])
    assert [(one["layer"], one["neighbour"]) for one in found] == [(12, 11)]
    assert warnings([build({10: 0.5, 11: 0.52, 12: 0.36, 13: 0.4})]) == []
    assert warnings([build({10: 0.5})]) == []
    # Nothing lies far below layers that are themselves on the floor.
    assert warnings([build({0: -0.3, 1: -0.1})]) == []


def test_a_difference_that_chance_could_make_is_no_warning() -> None:
    wide = build({0: 0.5, 1: 0.25})
    noisy = dict(wide.values)
    noisy[1] = noisy[1] + 3 * np.random.default_rng(3).standard_normal(60)
    assert warnings([Compared("content gain", wide.documents, noisy)]) == []


def test_of_layers_that_cannot_be_told_apart_the_one_near_two_thirds() -> None:
    rng = np.random.default_rng(5)
    measure = build({4: 0.2, 11: 0.5, 13: 0.5, 16: 0.5, 17: 0.4})
    equal = {k: v + (0.05 * rng.standard_normal(60) if k in (11, 13, 16) else 0)
             for k, v in measure.values.items()}  # fmt: skip
    measure = Compared("content gain", measure.documents, equal)
    advice = recommend(measure, 18, set())
    assert advice["tied"] == [11, 13, 16]
    assert advice["layer"] == 13 and advice["two_thirds"] == 12  # 11 is as near; deeper wins
    assert "layers 11, 13, 16 cannot be told apart" in advice["reason"]
    assert "layer 12, was not measured" in advice["reason"]


def test_the_default_that_is_far_worse_is_said() -> None:
    # A public case: 0.805 at layer 17 against 0.350 at layer 23 (the depth of 35 is this test's).
    advice = recommend(build({17: 0.805, 23: 0.35}, "document retrieval"), 35, set())
    assert advice["layer"] == 17
    assert "would have been layer 23 with 0.3" in advice["reason"]
    assert advice["reason"].endswith(", far below")


def test_a_warned_layer_is_not_recommended() -> None:
    advice = recommend(build({5: 0.5, 6: 0.6, 7: 0.4}), 9, {6})
    assert advice["layer"] == 5 and 6 not in advice["tied"]
    assert recommend(build({5: 0.5, 6: 0.6}), 9, {5, 6})["layer"] == 6


def test_layers_on_their_floor_are_not_recommended() -> None:
    advice = recommend(build({5: 0.0, 6: -0.1}), 9, set())
    assert advice["layer"] is None and advice["two_thirds"] == 6
    assert "does not stay above its floor" in advice["reason"]
    with pytest.raises(DataError, match="no layer has a content gain"):
        recommend(Compared("content gain", [], {}), 9, set())
