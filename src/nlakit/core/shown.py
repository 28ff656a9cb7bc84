"""Measured values as people read them. Loads nothing heavy: every command imports it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def span(found: Mapping[str, Any], sign: str = "") -> str:
    """A mean with its interval."""
    return f"{found['mean']:{sign}.3f} [{found['low']:.3f}, {found['high']:.3f}]"
