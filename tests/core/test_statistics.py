"""Intervals and tests by document."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlakit.core.statistics import (
    bootstrap_means,
    cluster_sums,
    derangement,
    estimate,
    paired_difference,
    sign_flip_p,
)
from nlakit.errors import DataError


def test_cluster_sums_by_hand() -> None:
    sums, counts = cluster_sums(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"])
    assert sums.tolist() == [2.0, 5.0]
    assert counts.tolist() == [1.0, 2.0]
    with pytest.raises(DataError):
        cluster_sums(np.array([1.0]), ["a", "b"])


def test_rows_of_one_document_do_not_narrow_the_interval() -> None:
    """A hundred copies of each document's value hold as much as one."""
    rng = np.random.default_rng(0)
    values, names = rng.standard_normal(20), [f"d{i}" for i in range(20)]
    once = estimate(values, names)
    copied = estimate(np.repeat(values, 100), [n for n in names for _ in range(100)])
    assert copied.mean == pytest.approx(once.mean)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)
    assert (copied.rows, copied.documents) == (2000, 20)


def test_one_document_has_no_interval() -> None:
    found = estimate(np.array([0.5, 0.7]), ["a", "a"])
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_bootstrap_means_by_hand() -> None:
    """Two documents of sizes 1 and 3: a resample is AA, AB or BB."""
    values, names = np.array([0.0, 1.0, 1.0, 1.0]), ["a", "b", "b", "b"]
    found = set(np.round(bootstrap_means(values, names, 200, 0), 4).tolist())
    assert found == {0.0, 0.75, 1.0}


def test_paired_difference_is_tighter_than_unpaired() -> None:
    rng = np.random.default_rng(2)
    shared = rng.standard_normal(60)
    first, second = shared + 0.1, shared + 0.01 * rng.standard_normal(60)
    names = [f"d{i // 2}" for i in range(60)]
    found = paired_difference(first, second, names)
    assert found.low > 0.08
    assert found.mean == pytest.approx(float((first - second).mean()))


def test_sign_flip_p() -> None:
    names = [f"d{i}" for i in range(30)]
    assert sign_flip_p(np.ones(30), names, 999) == pytest.approx(0.001)
    assert sign_flip_p(-np.ones(30), names, 999) == pytest.approx(1.0)
    # One document can only be flipped as a whole: half of the draws tie.
    assert sign_flip_p(np.ones(50), ["a"] * 50, 999) > 0.4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=20), st.integers(0, 9))
def test_partners(names: list[str], seed: int) -> None:
    other, same = derangement(names, seed), derangement(names, seed, same=True)
    for row, name in enumerate(names):
        if other[row] >= 0:
            assert names[other[row]] != name
        else:
            assert len(set(names)) == 1
        if same[row] >= 0:
            assert names[same[row]] == name
            assert same[row] != row
        else:
            assert names.count(name) == 1
