"""The rows of the report: some in full for every reader, all of them for the page's own script."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from nlakit.publish.report.numbers import finite

Example = Mapping[str, Any]
SHOWN_SOURCE = 300
KEPT_SOURCE = 1200
LAST_WORD = re.compile(r"\S{1,24}\s*$")
SCORES = ("centred_cosine", "label_centred_cosine", "other_row_centred_cosine", "cosine", "fve")
COLUMNS = (
    "place", "id", "document", "family", *SCORES, "floor",
    "explanation", "label", "cut", "source", "last", "claims", "words",
)  # fmt: skip
# What ends a script element or a comment in HTML, or a line in JavaScript.
UNSAFE = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def spread_examples(examples: Sequence[Example], count: int) -> list[dict[str, Any]]:
    """`count` examples evenly spread over the order of centred cosine, best first."""
    order = best_first(examples)
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    return [
        {**order[place], "place": int(place) + 1, "parts": source_parts(order[place]["source"])}
        for place in places
    ]


def best_first(examples: Sequence[Example]) -> list[Example]:
    """By centred cosine; rows without one come last."""

    def key(example: Example) -> float:
        value = example["centred_cosine"]
        return value if finite(value) else -math.inf

    return sorted(examples, key=key, reverse=True)


def source_parts(source: str) -> tuple[str, str, str]:
    """A source text as what is folded away, what is shown, and the last word.

    The activation is taken at the last token. A word is cut at 24 characters, since some scripts
    put no spaces.
    """
    match = LAST_WORD.search(source)
    end = match.start() if match else len(source)
    start = max(0, end - SHOWN_SOURCE)
    space = source.find(" ", start, start + 24) if start else -1
    start = space + 1 if space >= 0 else start
    return source[:start], source[start:end], source[end:]


def rows_json(
    examples: Sequence[Example],
    floor: Mapping[str, float],
    claims: Mapping[str, Any],
    words: Mapping[str, Any],
    word_scale: float,
) -> Markup:
    """Every row, best first, as JSON that is safe inside a script element.

    floor, claims and words are by row id: the best floor's centred cosine, the claims that were
    looked up, the words with their Δ; `word_scale` is the Δ of the strongest colour. A source keeps
    its last 1200 characters before the last word; `cut` counts the others.
    """
    rows = []
    for place, example in enumerate(best_first(examples), start=1):
        before, shown, last = source_parts(example["source"])
        text = before + shown
        row = {
            **{name: rounded(example.get(name)) for name in SCORES},
            "place": place,
            "id": example["row_id"],
            "document": example.get("doc_id"),
            "family": example["source_family"],
            "floor": rounded(floor.get(example["row_id"])),
            "explanation": example["explanation"],
            "label": example["label"],
            "cut": max(0, len(text) - KEPT_SOURCE),
            "source": text[-KEPT_SOURCE:],
            "last": last,
            "claims": claims.get(example["row_id"]),
            "words": [[word, rounded(d)] for word, d in words.get(example["row_id"], ())] or None,
        }
        rows.append([row[name] for name in COLUMNS])
    return safe_json({"columns": COLUMNS, "word_scale": rounded(word_scale), "rows": rows})


def rounded(value: Any) -> float | None:
    return round(float(value), 4) if finite(value) else None


def safe_json(value: Any) -> Markup:
    """JSON that cannot end its script element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(UNSAFE))  # only inside strings: JSON itself has none of them
