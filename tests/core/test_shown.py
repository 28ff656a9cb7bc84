"""Values as people read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.shown import short, span


def test_an_interval_without_bounds_is_said() -> None:
    assert span({"mean": 0.25, "low": -0.5, "high": 1.0}, "+") == "+0.250 [-0.500, 1.000]"
    assert span({"mean": 0.25, "low": None, "high": None}) == "0.250 no interval"
    assert span({"mean": None, "low": None, "high": None}) == "–"


def test_a_short_interval_is_symmetric_to_its_printed_digits_or_has_both_sides() -> None:
    assert short(0.4191, 0.3849, 0.4533) == "0.419 ±.034"
    assert short(0.85, 0.81, 0.89, "+") == "+0.850 ±.040"
    assert short(-0.066, -0.265, 0.1) == "-0.066 -.199+.166"
    assert short(1.0, 0.923, 1.0) == "1.000 -.077+.000"
    assert short(52.04, 49.0, 55.08) == "52.04 ±3.04"
    assert short(1234.4, 1034.4, 1434.4) == "1234 ±200"
    assert short(-0.0001, -0.5, 0.4998) == "0.000 ±.500"
    assert short(0.5, None, None) == "0.500 ±?" and short(None, None, None) == "–"


@given(*[st.floats(0, 2)] * 2, st.floats(-9, 9))
def test_a_short_interval_fits_and_gives_its_ends_to_the_digit(
    below: float, above: float, mean: float
) -> None:
    low, high = mean - below, mean + above
    written = short(mean, low, high, "+")
    assert len(written) <= 19
    shown, _, sides = written.partition(" ")
    ends = re.findall(r"[±+-](\d*\.?\d*)", sides)
    down, up = float(ends[0]), float(ends[-1])
    digits = 2 if max(abs(mean), abs(low), abs(high)) >= 10 else 3
    assert float(shown) - down == pytest.approx(low, abs=1.01 * 10**-digits)
    assert float(shown) + up == pytest.approx(high, abs=1.01 * 10**-digits)
