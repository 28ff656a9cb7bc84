"""What may be asked for, and when an edit counts as a success."""

from __future__ import annotations

from typing import Any

import pytest

from nlakit.errors import ConfigError
from nlakit.models.steering.record import Asked, AtSize, chance_of_success, succeeded


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alphas": (1.0, float("nan"))}, "finite"),
        ({"alphas": (float("inf"),)}, "finite"),
        ({"alphas": ()}, "finite"),
        ({"alphas": (1.0,) * 51}, "finite"),
        ({"random": -1}, "random directions"),
        ({"random": 10**6}, "random directions"),
        ({"window": 0}, "places"),
        ({"new_tokens": -1}, "new tokens"),
        ({"seed": -1}, "seed"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
    ],
)
def test_numbers_out_of_range_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Asked(**given)


def test_above_all_but_one_in_twenty() -> None:
    """Of 10 random directions and the edit, one is the first: 1 in 11. Of 39 two may lead: 1 in
    20."""
    ten = [float(n) for n in range(10)]
    assert succeeded(9.5, ten) is True
    assert succeeded(8.5, ten) is False
    assert succeeded(9.0, ten) is False  # a tie counts against it
    assert chance_of_success(10) == 1 / 11
    many = [float(n) for n in range(39)]
    assert succeeded(37.5, many) is True
    assert succeeded(36.5, many) is False
    assert chance_of_success(39) == 2 / 40
    assert succeeded(1.0, []) is None and chance_of_success(0) is None


def at_size(log_p: float | None, rise: float | None, random: list[float]) -> AtSize:
    return AtSize(1.0, "", log_p, rise, log_p, -1.0, random, random, [], [], [-6.0, -4.0])


def test_a_success_is_likelier_than_without_steering_too() -> None:
    """A random push that makes every word unlikely is easily beaten."""
    assert at_size(-3.0, 0.5, [-9.0, -8.0]).success is True
    assert at_size(-3.0, -0.5, [-9.0, -8.0]).success is False
    assert at_size(-3.0, 0.5, [-2.0, -8.0]).success is False
    assert at_size(None, None, []).success is None
    assert at_size(-3.0, 0.5, []).success is None


def test_gains_by_hand() -> None:
    found = at_size(-3.0, 0.5, [-9.0, -8.0])
    assert found.gain == 5.5
    assert found.other_gain == 2.0
    assert at_size(None, None, []).gain is None
