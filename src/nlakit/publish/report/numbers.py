"""Numbers, and what is said of them, as a reader sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def num(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number for reading: a true minus sign, ∞, and a dash where there is none."""
    if not isinstance(value, int | float) or math.isnan(value):
        return "–"
    sign = "+" if signed else ""
    value = round(value, digits) + 0.0  # never a negative zero
    shown = f"{value:{sign}.{digits}f}" if math.isfinite(value) else f"{value:{sign}}"
    return shown.replace("-", "−").replace("inf", "∞")


def percent(share: Any) -> str:
    return f"{num(100 * share, 0)}%" if finite(share) else "–"


def interval(found: Mapping[str, Any] | None, digits: int = 3, of: str = "") -> str:
    """`[low, high]`, or why there is none. `of` is a prefix of the two keys, such as `gain_`."""
    low, high = (found or {}).get(f"{of}low"), (found or {}).get(f"{of}high")
    if finite(low) and finite(high):
        return f"[{num(low, digits)}, {num(high, digits)}]"
    return "no interval (one document)" if (found or {}).get("documents") == 1 else "no interval"


def p_value(p: Any) -> str:
    """A permutation p, to three digits."""
    return "< 0.001" if finite(p) and p < 0.001 else num(p)


def plain(value: Any) -> str:
    """Any JSON value in a line: counts as they are, other numbers to three digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value).replace("-", "−")
    if isinstance(value, float):
        return num(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value)
    return "–" if value is None else str(value)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
