"""Measures against values worked by hand, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nlakit.core.metrics import (
    baseline,
    centred_cosine,
    cosine,
    fve_rows,
    mean_unit,
    mse_normalised,
    retrieval_ranks,
    unit,
)
from nlakit.errors import DataError

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_by_hand() -> None:
    real, made = np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([[5.0, 0.0], [1.0, 1.0]])
    assert cosine(real, made) == pytest.approx([1.0, np.sqrt(0.5)])
    assert mse_normalised(real, made) == pytest.approx([0.0, 2 - np.sqrt(2)])
    mean = mean_unit(real)
    assert mean == pytest.approx([0.5, 0.5])  # not normalised again
    assert baseline(real, mean) == pytest.approx(0.5)  # (0.25 + 0.25) each
    # 1 - E|u - û|² / E|u - ū|² = 1 - ((0 + 2 - √2) / 2) / 0.5
    assert fve_rows(real, made, 0.5).mean() == pytest.approx(1 - (2 - np.sqrt(2)))


def test_centred_cosine_by_hand() -> None:
    mean = np.array([0.5, 0.5])
    # u − ū = (.5, −.5); û − ū = (.5, −.5), (−.5, .5): cosines 1 and −1
    assert centred_cosine(np.array([X, X]), np.array([X, Y]), mean) == pytest.approx([1, -1])


def test_constant_reconstructor_scores_zero_and_ranks_last() -> None:
    rng = np.random.default_rng(0)
    real = rng.standard_normal((50, 8)) + 2
    mean = mean_unit(real)
    # In the mean direction: û − ū is parallel to ū, and u − ū averages to zero.
    constant = np.tile(mean, (50, 1))
    assert abs(centred_cosine(real, constant, mean).mean()) < 0.15
    assert fve_rows(real, constant, baseline(real, mean)).mean() < 0.05
    # Exactly ū where ū is a unit vector: defined as 0, not NaN.
    assert centred_cosine(np.array([Y]), np.array([X]), np.array(X)) == pytest.approx([0.0])
    twins = np.tile(real[:1], (50, 1))
    assert (retrieval_ranks(real, twins, mean) == 0).sum() <= 1
    assert (retrieval_ranks(np.tile(real[:1], (5, 1)), twins[:5], mean) == 4).all()


def test_three_baselines_differ() -> None:
    """The same rows give three FVEs; ours takes ū unnormalised, which is the hardest to beat."""
    rng = np.random.default_rng(1)
    real = rng.standard_normal((100, 6)) + 1
    mean = mean_unit(real)
    by_mean = baseline(real, mean)
    assert by_mean < baseline(real, mean / np.linalg.norm(mean)) < baseline(real, np.zeros(6))
    assert by_mean == pytest.approx(1 - mean @ mean)  # E‖u − ū‖² = 1 − ‖ū‖² for its own mean


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_directionless_rows_are_refused(bad: float) -> None:
    with pytest.raises(DataError, match="1 of 2 rows, first 1"):
        unit(np.array([[1.0, 2.0], [bad, bad]]))


def test_nonpositive_baseline_is_refused() -> None:
    with pytest.raises(DataError, match="baseline"):
        fve_rows(np.ones((1, 2)), np.ones((1, 2)), 0.0)


vectors = arrays(np.float64, (6, 4), elements=st.floats(-10, 10, width=32)).filter(
    lambda a: bool((np.linalg.norm(a, axis=1) > 1e-3).all())
)


@settings(max_examples=60, deadline=None)
@given(real=vectors, made=vectors, factor=st.floats(0.1, 100))
def test_only_direction_counts(real: np.ndarray, made: np.ndarray, factor: float) -> None:
    mean = mean_unit(real)
    assert np.allclose(cosine(real, made), cosine(real * factor, made), atol=1e-9)
    assert np.allclose(
        centred_cosine(real, made, mean), centred_cosine(real, made * factor, mean), atol=1e-6
    )
    assert np.allclose(mse_normalised(real, made), ((unit(real) - unit(made)) ** 2).sum(1))
    assert (np.abs(centred_cosine(real, made, mean)) <= 1 + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(real=vectors)
def test_perfect_reconstruction(real: np.ndarray) -> None:
    assert np.allclose(cosine(real, real), 1)
    assert np.allclose(mse_normalised(real, real), 0, atol=1e-12)
