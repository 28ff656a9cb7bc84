"""Intervals and tests by document."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from nlakit.core.statistics import (
    auc,
    auc_rows,
    cluster_error,
    cluster_sums,
    derangement,
    estimate,
    estimate_share,
    holm,
    minimum_detectable_effect,
    paired_difference,
    permutation_p,
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


def test_interval_by_hand() -> None:
    """Without skewness it is a t interval. Means 1 and 3 of two documents of one row: left out,
    each moves the mean by 1, so the error is √2; t(0.975, 1) = 12.706."""
    found = estimate(np.array([1.0, 3.0]), ["a", "b"])
    assert cluster_error(np.array([1.0, 3.0]), ["a", "b"]) == pytest.approx(np.sqrt(2))
    assert (found.low, found.high) == pytest.approx((2 - 17.969, 2 + 17.969), abs=0.001)
    # Sizes 1 and 3, sums 0 and 3: mean 0.75, residuals ∓0.75, over 1 − share: 1 and 3; / 4 rows.
    uneven = np.array([0.0, 1.0, 1.0, 1.0]), ["a", "b", "b", "b"]
    assert cluster_error(*uneven) == pytest.approx(np.sqrt(10) / 4)


def test_skewness_by_hand() -> None:
    """Documents 0, 0, 3: mean 1, residuals −1, −1, 2, error √6 / 2, t(0.975, 2) = 4.3027. With
    γ = 6 / 6^1.5 Hall's t is 2.92 on the short side and 14.13 on the long one."""
    found = estimate(np.array([0.0, 0.0, 3.0]), ["a", "b", "c"])
    skewness, error, t = 6 / 6**1.5, np.sqrt(6) / 2, 4.30265
    ends = [
        3 / skewness * (np.cbrt(1 + skewness * (sign * t - skewness / 6)) - 1) for sign in (1, -1)
    ]
    assert found.high == pytest.approx(1 - error * ends[1], abs=1e-4)
    assert found.low == pytest.approx(1 - error * t, abs=1e-4), "a side is never shortened"


def test_degenerate_intervals() -> None:
    names = [f"d{i % 10}" for i in range(40)]
    same = estimate(np.full(40, 0.1), names)
    assert (same.mean, same.low, same.high) == pytest.approx((0.1, 0.1, 0.1))
    ones = estimate(np.ones(40), names)
    assert (ones.low, ones.high) == (1.0, 1.0)
    rare = estimate(np.eye(1, 48)[0], [f"d{i}" for i in range(48)])
    # Clopper and Pearson give [0.0005, 0.11] for one of 48.
    assert -0.03 < rare.low < 0.01 and 0.06 < rare.high < 0.2
    few = estimate(np.array([0.0, 1.0, 0.4]), ["a", "b", "c"])
    assert np.isfinite([few.low, few.high]).all() and few.high - few.low > 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=30), st.floats(-3, 3), st.floats(0.01, 20))
def test_interval_moves_with_the_values(given: list[float], shift: float, scale: float) -> None:
    values, names = np.round(given, 3), [f"d{i % 4}" for i in range(len(given))]
    once, moved = estimate(values, names), estimate(scale * values + shift, names)
    turned = estimate(-values, names)
    assert once.low <= once.mean <= once.high
    assert moved.low == pytest.approx(scale * once.low + shift, rel=1e-6, abs=1e-6)
    assert (turned.low, turned.high) == pytest.approx((-once.high, -once.low), abs=1e-9)


DRAWN: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "normal": lambda rng, k: rng.standard_normal(k),
    "skewed": lambda rng, k: rng.gamma(2.0, 1.0, k) - 2.0,
    "left": lambda rng, k: 2.0 - rng.gamma(2.0, 1.0, k),
}


def samples(kind: str, count: int, seed: int) -> list[tuple[NDArray[np.float64], list[str]]]:
    """Values of true mean 0 (`bounded`: 0 or 1, less 0.5) of 20 documents of 1 to 10 rows: a
    document's effect and noise a row."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        place = np.repeat(np.arange(20), rng.integers(1, 11, 20))
        if kind == "bounded":
            values = (rng.random(len(place)) < rng.random(20)[place]) - 0.5
        else:
            values = DRAWN[kind](rng, 20)[place] + rng.standard_normal(len(place))
        made.append((values, [NAMES[i] for i in place.tolist()]))
    return made


def test_a_share_by_hand() -> None:
    """One row a document, 5 of 10: s² = Σ(0.5 / 9)² = 10 / 324, n* = 0.25 / s² = 8.1, t² = 5.117:
    a = 0.6318; half: √(a (0.25 + a/4)) / (1 + a) = 0.3111."""
    found = estimate_share(np.tile([0.0, 1.0], 5), [f"d{i}" for i in range(10)])
    assert (found.low, found.high) == pytest.approx((0.5 - 0.3111, 0.5 + 0.3111), abs=1e-4)


def test_shares_that_are_all_alike_have_a_width() -> None:
    """All of 20 documents: Wilson's end is K / (K + t²), however many rows a document has."""
    t = stats.t.ppf(0.975, 19)
    for rows in (20, 200):
        names = [f"d{i % 20}" for i in range(rows)]
        ones, none = estimate_share(np.ones(rows), names), estimate_share(np.zeros(rows), names)
        assert (ones.low, ones.high) == pytest.approx((20 / (20 + t**2), 1.0))
        assert (none.low, none.high) == pytest.approx((0.0, 1 - 20 / (20 + t**2)))
    assert estimate_share(np.ones(3), ["a"] * 3).low == -np.inf


def test_documents_of_one_mean_have_the_same_interval_either_way_round() -> None:
    """2/999 and 0 add up to a mean of either document that differs in the last bit, or does not."""
    values, names = np.array([2, 0, 0, 2]) / 999, ["a", "b", "a", "b"]
    found, turned = estimate_share(values, names), estimate_share(1 - values, names)
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0, 999]) | st.integers(0, 999), min_size=2, max_size=60),
    st.integers(2, 12),
)
def test_an_interval_of_a_share_stays_in_its_range(given: list[int], documents: int) -> None:
    values, names = np.array(given) / 999, [f"d{i % documents}" for i in range(len(given))]
    found, turned = estimate_share(values, names), estimate_share(1 - values, names)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.low < found.high
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97, 0.99])
@pytest.mark.parametrize("documents", [20, 48])
def test_coverage_of_shares(share: float, documents: int) -> None:
    """In 93% of simulations at least, rows of a document alike (intraclass correlation 1/6)."""
    rng, held, before = np.random.default_rng(4), 0, 0
    for _ in range(500):
        place = np.repeat(np.arange(documents), rng.integers(1, 11, documents))
        effect = rng.beta(5 * share, 5 * (1 - share), documents)
        values = (rng.random(len(place)) < effect[place]).astype(float)
        names = [str(one) for one in place.tolist()]
        found, other = estimate_share(values, names), estimate(values, names)
        held += found.low <= share <= found.high
        before += other.low <= share <= other.high
    assert held / 500 >= 0.93
    if share == 0.99:
        assert before / 500 < 0.93, "the interval of a mean misses it, so that this check can fail"


NAMES = [f"document {i}" for i in range(20)]


@pytest.mark.parametrize("kind", [*DRAWN, "bounded"])
def test_coverage_with_20_documents_of_unequal_size(kind: str) -> None:
    """95% intervals hold the truth in 93% to 97% of 2000 simulations."""
    found = [estimate(*sample) for sample in samples(kind, 2000, 1)]
    coverage = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.93 <= coverage <= 0.97


def bootstrap_means(
    values: NDArray[np.float64], names: list[str], draws: int, seed: int
) -> NDArray[np.float64]:
    """Means of `draws` resamples of whole documents with replacement: `(draws,)`."""
    sums, counts = cluster_sums(values, names)
    picks = np.random.default_rng(seed).integers(0, len(sums), size=(draws, len(sums)))
    return sums[picks].sum(axis=1) / counts[picks].sum(axis=1)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_planted_percentile_bootstrap_misses_the_coverage(kind: str) -> None:
    """The same check fails for the method that is not used, so that it can fail."""
    hits = []
    for index, sample in enumerate(samples(kind, 1000, 1)):
        low, high = np.quantile(bootstrap_means(*sample, 400, index), [0.025, 0.975])
        hits.append(low <= 0 <= high)
    assert np.mean(hits) < 0.93


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


def test_sides_of_a_permutation_p_by_hand() -> None:
    null = np.array([-2.0, -1.0, 0.0, 1.0])
    assert permutation_p(1.0, null) == pytest.approx(2 / 5)
    assert permutation_p(1.0, null, "less") == 1.0
    assert permutation_p(1.0, null, "two-sided") == pytest.approx(4 / 5)
    assert permutation_p(-3.0, null, "two-sided") == pytest.approx(2 / 5)
    assert permutation_p(0.1 + 0.2, np.array([0.3])) == 1.0, "a sum in another order is a tie"


def test_sign_flip_sides() -> None:
    names = [f"d{i}" for i in range(30)]
    up = sign_flip_p(np.ones(30), names, 999, side="greater")
    assert sign_flip_p(np.ones(30), names, 999, side="two-sided") == pytest.approx(2 * up)
    assert sign_flip_p(-np.ones(30), names, 999, side="less") == pytest.approx(up)


@pytest.mark.parametrize("side", ["greater", "less", "two-sided"])
def test_p_is_uniform_under_the_null(side: str) -> None:
    found = [
        sign_flip_p(*sample, 399, seed, side)  # pyright: ignore[reportArgumentType]
        for seed, sample in enumerate(samples("normal", 1000, 3))
    ]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_planted_rows_taken_for_documents_give_no_uniform_p() -> None:
    found = [
        sign_flip_p(values, [str(i) for i in range(len(values))], 199, seed, "two-sided")
        for seed, (values, _) in enumerate(samples("normal", 400, 3))
    ]
    assert stats.kstest(found, "uniform").pvalue < 1e-6


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(DataError):
        holm([0.5, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= q <= min(1.0, len(ps) * p) + 1e-12 for p, q in zip(ps, adjusted, strict=True))
    order = np.argsort(ps, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_minimum_detectable_effect_by_hand() -> None:
    """Residuals ±0.5, ±1.5 of four documents of one row: error √5 / 0.75 / 4 = 0.7454;
    t(0.975, 3) = 3.1824, t(0.8, 3) = 0.9785."""
    values, names = np.array([1.0, 2.0, 3.0, 4.0]), list("abcd")
    assert minimum_detectable_effect(values, names) == pytest.approx(0.7454 * 4.1609, abs=0.001)
    assert minimum_detectable_effect(values, ["a"] * 4) == np.inf
    assert minimum_detectable_effect(np.ones(4), names) == 0.0


def test_planted_minimum_detectable_effect_is_found_four_times_of_five() -> None:
    made = samples("normal", 400, 5)
    size = float(np.mean([minimum_detectable_effect(*sample) for sample in made]))
    found = [estimate(values + size, names).low > 0 for values, names in made]
    assert 0.7 < np.mean(found) < 0.9


def test_auc_by_hand() -> None:
    """The positive at 2 is above one negative and ties with one of three: 1.5 / 3; that at 5 is
    above all. AUC = (0.5 + 1) / 2."""
    scores, labels = np.array([2.0, 5.0, 1.0, 2.0, 3.0]), np.array([1, 1, 0, 0, 0])
    assert auc(scores, labels) == pytest.approx(0.75)
    # Negatives: 1 is below both, 2 below one and a half, 3 below one: 1, 0.75, 0.5 of 2.
    wanted = [0.75 + 5 / 2 * (0.5 - 0.75), 0.75 + 5 / 2 * 0.25, 0.75 + 5 / 3 * 0.25, 0.75]
    assert auc_rows(scores, labels) == pytest.approx([*wanted, 0.75 - 5 / 3 * 0.25])
    with pytest.raises(DataError):
        auc(scores, np.ones(5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_rows_average_to_the_auc_of_all_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    if labels.all() or not labels.any():
        return
    pairs = scores[labels][:, None] - scores[~labels][None]
    area = float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    assert auc(scores, labels) == pytest.approx(area)
    assert float(auc_rows(scores, labels).mean()) == pytest.approx(area)


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
