"""Duplicates against brute force over the shingles themselves."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text.shingles import shingle_hashes
from nlakit.core.text.stats import words
from nlakit.data import dedup
from nlakit.data.dedup import (
    exact_key,
    groups_of_near_duplicates,
    near_duplicates,
    sampling_modulus,
    similar_pairs,
)

Shingles = set[tuple[str, ...]]

# Texts of chained passages: passages recur, so that all degrees of overlap occur.
passages = st.integers(0, 6).map(lambda k: " ".join(f"w{k}x{i}" for i in range(5 + 3 * k)))
corpora = st.lists(st.lists(passages, max_size=4).map(" ".join), max_size=12)
shares = st.sampled_from([0.1, 0.2, 0.5, 0.8, 1.0])


def shingles(text: str) -> Shingles:
    found = words(text)
    size = min(8, len(found))
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)} if found else set()


def shared(left: str, right: str) -> float:
    a, b = shingles(left), shingles(right)
    return len(a & b) / min(len(a), len(b)) if a and b else 0.0


def numbered(start: int, stop: int) -> str:
    return " ".join(f"word{i}" for i in range(start, stop))


def test_exact_key_ignores_case_and_white_space_only() -> None:
    assert exact_key("A  b\n c ") == exact_key("a b C")
    assert exact_key("ab c") != exact_key("a bc")


def test_share_by_hand() -> None:
    # 20 and 16 words have 13 and 9 shingles; words 8 to 19 are shared: 5 shingles, 5/9 of these.
    texts = [numbered(0, 20), numbered(8, 24)]
    assert list(similar_pairs(texts, 5 / 9)) == [(1, 0)]
    assert list(similar_pairs(texts, 0.56)) == []


@given(corpora, shares)
def test_pairs_are_those_of_brute_force(texts: list[str], share: float) -> None:
    pairs = combinations(range(len(texts)), 2)
    expected = {(j, i) for i, j in pairs if shared(texts[i], texts[j]) >= share}
    found = list(similar_pairs(texts, share))
    assert found == sorted(found)
    assert set(found) == expected


@given(corpora, shares)
def test_kept_texts_are_far_and_dropped_ones_near_a_kept_one(
    texts: list[str], share: float
) -> None:
    original = near_duplicates(texts, share)
    kept = [i for i, other in enumerate(original) if other is None]
    assert all(shared(texts[i], texts[j]) < share for i, j in combinations(kept, 2))
    for i, other in enumerate(original):
        if other is not None:
            assert other < i and original[other] is None
            assert shared(texts[i], texts[other]) >= share


@given(corpora, shares)
def test_groups_are_closed_and_ordered(texts: list[str], share: float) -> None:
    groups = groups_of_near_duplicates(texts, share)
    for i, j in combinations(range(len(texts)), 2):
        assert groups[i] == groups[j] or shared(texts[i], texts[j]) < share
    assert list(dict.fromkeys(groups)) == list(range(len(set(groups))))
    backwards = groups_of_near_duplicates(texts[::-1], share)[::-1]
    assert len(set(zip(groups, backwards, strict=True))) == len(set(groups)) == len(set(backwards))


def test_group_joins_through_a_third() -> None:
    texts = [numbered(0, 40), numbered(100, 140), numbered(30, 110), numbered(200, 240)]
    assert shared(texts[0], texts[1]) == 0
    assert groups_of_near_duplicates(texts, 0.05) == [0, 0, 0, 1]
    assert near_duplicates(texts, 0.05) == [None, None, 0, None]


def test_many_copies_of_one_text() -> None:
    texts = [f"{numbered(0, 60)} number {i}" for i in range(500)]
    assert near_duplicates(texts, 0.5) == [None] + [0] * 499
    assert set(groups_of_near_duplicates(texts, 0.2)) == {0}


def test_sampling_keeps_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = [numbered(0, 4000), numbered(2000, 6000), numbered(10_000, 14_000)]
    monkeypatch.setattr(dedup, "MAX_SHINGLES", sum(map(len, halves)) // 5 // 4)
    assert sampling_modulus(halves) == 4
    sampled = [shingle_hashes(text, 4) for text in halves]
    assert all(abs(len(sketch) / (3993 / 4) - 1) < 0.1 for sketch in sampled)
    estimate = len(np.intersect1d(sampled[0], sampled[1])) / min(map(len, sampled))
    assert estimate == pytest.approx(0.5, abs=0.05)
    assert groups_of_near_duplicates(halves, 0.4) == [0, 0, 1]


def test_advance_counts_texts() -> None:
    calls = []
    near_duplicates(["a", "", "c"], 0.5, lambda: calls.append(1))
    assert len(calls) == 3
