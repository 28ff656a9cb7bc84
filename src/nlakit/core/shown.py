"""Measured values as people read them. Loads nothing heavy: every command imports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def span(found: Mapping[str, Any], sign: str = "") -> str:
    """A mean with its interval; one without bounds may be null, as JSON has it."""
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None:
        return "–"
    bounds = "no interval" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
    return f"{mean:{sign}.3f} {bounds}"
