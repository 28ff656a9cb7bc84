"""Ranks among documents, worked by hand; their floors; the test by exchange."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.retrieval import chance, deal, exchange_p, hits, of_others, own

FAMILIES = ["a", "a", "b", "b", "c"]
# Of query 0 the documents come in the order 1, then 0 and 2 alike, then 3, 4.
SCORES = np.array([[0.5, 0.9, 0.5, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])


def test_a_row_of_similarities_by_hand() -> None:
    found = hits(SCORES, FAMILIES)
    # Document 0: one above, one tied with it, two below: rank 2 of 0 to 4.
    assert found["top1"][0].tolist() == [0, 1, 0, 0, 0]
    assert found["top5"][0].tolist() == [1, 1, 1, 1, 1]
    assert found["mrr"][0] == pytest.approx([1 / 3, 1, 1 / 3, 1 / 4, 1 / 5])
    assert found["percentile"][0] == pytest.approx([2.5 / 4, 1, 2.5 / 4, 1 / 4, 0])
    # Inside a: 1 before 0; inside b: 2 before 3; c has no other document.
    assert found["within_family_top1"][0] == pytest.approx([0, 1, 1, 0, np.nan], nan_ok=True)
    assert found["within_family_mrr"][0] == pytest.approx([0.5, 1, 1, 0.5, np.nan], nan_ok=True)
    assert found["within_family_percentile"][0] == pytest.approx([0, 1, 1, 0, np.nan], nan_ok=True)
    assert found["family_top1"][0].tolist() == [1, 1, 0, 0, 0]


def test_a_text_that_is_alike_to_all_finds_nothing() -> None:
    found = hits(SCORES, FAMILIES)
    assert not found["top1"][1].any()
    assert not found["family_top1"][1].any()
    assert found["mrr"][1] == pytest.approx([0.2] * 5)
    assert found["percentile"][1] == pytest.approx([0.5] * 5)


def test_chance_by_hand() -> None:
    found = chance(FAMILIES)
    assert found["top1"] == pytest.approx([0.2] * 5)
    assert found["top20"] == pytest.approx([1.0] * 5)
    assert found["mrr"] == pytest.approx([(1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5] * 5)
    assert found["within_family_mrr"] == pytest.approx([0.75] * 4 + [np.nan], nan_ok=True)
    assert found["family_top1"] == pytest.approx([0.4, 0.4, 0.4, 0.4, 0.2])


@given(st.integers(0, 50), st.lists(st.sampled_from("abc"), min_size=2, max_size=12))
def test_chance_is_the_mean_over_all_candidates(seed: int, families: list[str]) -> None:
    scores = np.random.default_rng(seed).permutation(len(families))[None].astype(float)
    found, expected = hits(scores, families), chance(families)
    for name in ("top1", "top5", "mrr", "percentile"):
        assert found[name].mean() == pytest.approx(expected[name].mean())
        inside, wanted = found["within_family_" + name][0], expected["within_family_" + name]
        assert np.isnan(inside).tolist() == np.isnan(wanted).tolist()
        for family in set(families):
            picked = (np.array(families) == family) & ~np.isnan(wanted)
            if picked.any():
                assert inside[picked].mean() == pytest.approx(wanted[picked].mean())


def test_texts_of_others_are_averaged_exactly() -> None:
    values = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    target = np.array([0, 0, 1])  # document 2 has no text of its own
    assert own(values, target).tolist() == [1, 4, 8]
    assert of_others(values, target).tolist() == [7, 7, 3.5]
    grouped = of_others(values, target, ["a", "b", "b"])
    assert np.isnan(grouped[:2]).all()
    assert np.isnan(grouped[2])  # its family's other document has no text


def test_orders_stay_within_their_groups() -> None:
    groups = ["a", "b", "a", "b", "c"]
    orders = deal(groups, 5, 200, [0])
    assert (np.sort(orders, axis=1) == np.arange(5)).all()
    assert (np.array(groups)[orders] == np.array(groups)).all()
    assert len(np.unique(deal(None, 5, 400, [0]), axis=0)) > 80


def test_p_of_an_exchange_by_hand() -> None:
    target, values = np.array([0, 1]), np.eye(2)
    stay, swap = np.array([[0, 1]]), np.array([[1, 0]])
    assert exchange_p(values, target, [np.concatenate([swap, swap, swap])]) == 0.25
    assert exchange_p(values, target, [swap, stay]) == 1.0  # the worst of both


def test_p_is_uniform_where_texts_know_nothing() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(12), 3)
    found = []
    for trial in range(200):
        query = np.repeat(rng.standard_normal((12, 12)), 3, axis=0)  # a document's texts agree
        values = hits(query + 0.1 * rng.standard_normal((36, 12)), ["a"] * 12)["percentile"]
        found.append(exchange_p(values, target, [deal(None, 12, 99, [trial])]))
    assert np.mean(np.array(found) <= 0.05) < 0.10
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)
