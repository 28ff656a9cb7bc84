"""Explanations with their words marked by how they recur, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

STYLES = {"again": "underline", "alone": "dim"}
SIGNS = {"again": "*", "alone": "?"}  # where there are no styles
WORTH = "What that is worth for this pair, nlakit eval --profile full measures (part recurrence)."


def marked(record: Mapping[str, Any], styled: bool) -> Text:
    """An explanation with its marks: as styles, or as signs behind the words."""
    text = Text(record["explanation"])
    marks = record["recurrence"]["marks"]
    levels = [(one["level"], one["start"], one["end"]) for one in marks if one["level"]]
    if styled:
        for level, start, end in levels:
            text.stylize(STYLES[level], start, end)
        return text
    pieces, last = [], 0
    for level, _, end in levels:
        pieces += [record["explanation"][last:end], SIGNS[level]]
        last = end
    return Text("".join([*pieces, record["explanation"][last:]]))


def legend(recurrence: Mapping[str, Any], styled: bool) -> Text:
    """What the marks mean, in words that wear them."""
    drawn, beside = len(recurrence["samples"]), len(recurrence["neighbours"])
    asked = [(drawn, "samples"), (beside, "neighbours")]
    told = " and ".join(f"{count} {name}" for count, name in asked if count)
    made = Text("of the other texts (" + told + ") at least half say a word ")
    pieces = {"again": "again", "alone": "alone"}
    if not styled:
        pieces = {name: f"{piece}{SIGNS[name]}" for name, piece in pieces.items()}
    made.append(pieces["again"], STYLES["again"] if styled else "")
    made.append(", or fewer than a quarter: it stands ")
    made.append(pieces["alone"], STYLES["alone"] if styled else "")
    return made.append(f". {WORTH}")
