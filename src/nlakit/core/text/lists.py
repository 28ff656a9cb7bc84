"""Lists in explanations: their items, and which of them say again what the list has said."""

from __future__ import annotations

import re

from nlakit.core.text.stats import words

STRETCH = re.compile(r"[^.;:!?\n“”\"]+")
BETWEEN = re.compile(r",\s*(?:and|or)\s+|,\s*|\s+(?:and|or)\s+")


def list_items(text: str) -> list[list[str]]:
    """The lists of a text, each as its items in lower case: stretches between marks that commas,
    `and` or `or` cut into two or more. Of the first item, which has the sentence before it, as many
    last words count as the second has."""
    found = []
    for stretch in STRETCH.findall(text):
        items = [said for said in (words(item) for item in BETWEEN.split(stretch)) if said]
        if len(items) > 1:
            items[0] = items[0][-len(items[1]) :]
            found.append([" ".join(item) for item in items])
    return found


def repeated_items(text: str) -> float:
    """Share of a text's list items that stand earlier in their list; NaN without a list."""
    lists = list_items(text)
    count = sum(map(len, lists))
    return 1 - sum(len(set(items)) for items in lists) / count if count else float("nan")
