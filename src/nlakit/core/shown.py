"""Measured values as people read them. Loads nothing heavy: every command imports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def span(found: Mapping[str, Any], sign: str = "") -> str:
    """A mean with its interval; one without bounds may be null, as JSON has it."""
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None:
        return "–"
    bounds = "no interval" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
    return f"{mean:{sign}.3f} {bounds}"


def short(mean: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    """A mean with how far its interval reaches, in at most 17 characters: `0.419 ±.034`, or
    `0.419 -.038+.033` where the sides differ in a printed digit; `±?` without an interval."""
    if mean is None:
        return "–"
    size = max(abs(end) for end in (mean, low, high) if end is not None)
    digits = 3 - sum(size >= 10**power for power in (1, 2, 3))
    shown = f"{round(mean, digits) + 0.0:{sign}.{digits}f}"  # never a negative zero
    if low is None or high is None:
        return f"{shown} ±?"
    reach = (mean - low, high - mean)
    below, above = (f"{one:.{digits}f}".removeprefix("0") or "0" for one in reach)
    return f"{shown} ±{below}" if below == above else f"{shown} -{below}+{above}"


def shorter(found: Mapping[str, Any], sign: str = "") -> str:
    """`short` of an estimate as a mapping."""
    return short(found["mean"], found["low"], found["high"], sign)


def counted(value: float, digits: int = 0) -> str:
    """A count, given in millions from a million on."""
    return f"{value:,.{digits}f}" if value < 1e6 else f"{value / 1e6:,.1f} M"


def cut(text: str, width: int) -> str:
    """Text in at most `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def plain_table(columns: Sequence[str], left: int = 1, **about: Any) -> Table:
    """A table that spends its width on its cells, so that a line of scores fits 80 columns. The
    first `left` columns are words, the others numbers; `about`: title and caption."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=0,  # the box has a space between columns
        title_justify="left",
        caption_justify="left",
        **about,
    )
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", no_wrap=True)
    return table
