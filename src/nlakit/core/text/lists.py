"""Lists in explanations: their items, and which of them say again what the list has said."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlakit.core.text.stats import WORD

STRETCH = re.compile(r"[^.;:!?\n“”\"]+")
BETWEEN = re.compile(r",\s*(?:and|or)\s+|,\s*|\s+(?:and|or)\s+")
Words = list[re.Match[str]]


def lists(text: str) -> Iterator[list[Words]]:
    """The lists of a text, each item as its words: stretches between marks that commas, `and` or
    `or` cut into two or more. Of the first item, which has the sentence before it, as many last
    words count as the second has."""
    for stretch in STRETCH.finditer(text):
        cuts = [match.span() for match in BETWEEN.finditer(text, *stretch.span())]
        starts = [stretch.start(), *(end for _, end in cuts)]
        ends = [*(start for start, _ in cuts), stretch.end()]
        pieces = (list(WORD.finditer(text, *span)) for span in zip(starts, ends, strict=True))
        items = [piece for piece in pieces if piece]
        if len(items) > 1:
            items[0] = items[0][-len(items[1]) :]
            yield items


def list_items(text: str) -> list[list[str]]:
    """The lists of a text, each as its items in lower case."""
    return [
        [" ".join(word.group().lower() for word in item) for item in one] for one in lists(text)
    ]


def repeated_items(text: str) -> float:
    """Share of a text's list items that stand earlier in their list; NaN without a list."""
    found = list_items(text)
    count = sum(map(len, found))
    return 1 - sum(len(set(items)) for items in found) / count if count else float("nan")
