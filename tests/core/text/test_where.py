"""Which tokens are worth reading: values worked out by hand, and windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text.where import (
    Window,
    changes,
    entropies,
    rank_correlation,
    ranked,
    spreads,
    windows,
)
from nlakit.errors import ConfigError


def test_entropy_is_that_of_the_chances_in_nats() -> None:
    with np.errstate(divide="ignore"):
        logs = np.log([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    assert entropies(logs) == pytest.approx([np.log(4), 0, np.log(2)])


def test_change_is_the_turn_of_what_is_left_of_the_mean() -> None:
    mean = np.array([0.5, 0.0])
    # u − ū: (0.5, 0), (−0.5, 1), (−0.5, −1); the norms of the vectors do not matter.
    vectors = np.array([[3.0, 0], [0, 0.1], [0, -7]])
    first = 1 - (-0.25) / (0.5 * np.sqrt(1.25))
    second = 1 - (0.25 - 1) / 1.25
    found = changes(vectors, mean)
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([first, second])
    assert changes(np.array([[1.0, 0], [0, 1]]), np.array([1.0, 0]))[1] == 1.0
    assert len(changes(vectors[:1], mean)) == 1


def test_spread_is_the_distance_from_the_mean_direction() -> None:
    vectors = np.array([[5.0, 0], [0, 2]])
    assert spreads(vectors, np.array([0.5, 0.0])) == pytest.approx([0.5, np.sqrt(1.25)])


def test_the_largest_come_first_and_what_has_no_value_never() -> None:
    values = np.array([np.nan, 2.0, 5.0, 2.0, 9.0])
    assert ranked(values, [0, 1, 2, 3], 3) == [2, 1, 3]
    assert ranked(values, range(5), 99) == [4, 2, 1, 3]


def test_a_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal(60)
    second = np.exp(first) + rng.standard_normal(60)
    from scipy.stats import spearmanr

    documents = [f"d{i // 3}" for i in range(60)]
    found = rank_correlation(first, second, documents)
    assert found.mean == pytest.approx(spearmanr(first, second).statistic)
    assert found.low < found.mean < found.high and found.documents == 20
    assert rank_correlation(first, np.exp(first), documents).mean == pytest.approx(1)
    assert rank_correlation(first, np.ones(60), documents).mean == 0


def test_windows_overlap_by_half() -> None:
    assert windows(40, None) == windows(40, 40) == [Window(0, 0, 40)]
    assert windows(50, 20) == [Window(0, 0, 20), Window(10, 20, 30), Window(20, 30, 40),
                               Window(30, 40, 50)]  # fmt: skip
    with pytest.raises(ConfigError, match="16 or more"):
        windows(50, 8)


@given(st.integers(1, 500), st.integers(16, 120))
def test_each_token_is_kept_once_where_it_has_most_context(tokens: int, size: int) -> None:
    found = windows(tokens, size)
    kept = [place for one in found for place in range(one.kept, one.end)]
    assert kept == list(range(tokens))
    assert all(one.end - one.start <= size for one in found)
    for place in range(tokens):
        owner = next(one for one in found if one.kept <= place < one.end)
        holding = [one for one in found if one.start <= place < one.end]
        assert owner.start == min(one.start for one in holding)
