"""Values as people read them."""

from __future__ import annotations

from nlakit.core.shown import span


def test_an_interval_without_bounds_is_said() -> None:
    assert span({"mean": 0.25, "low": -0.5, "high": 1.0}, "+") == "+0.250 [-0.500, 1.000]"
    assert span({"mean": 0.25, "low": None, "high": None}) == "0.250 no interval"
    assert span({"mean": None, "low": None, "high": None}) == "–"
