"""Lists in explanations: their items, which of them say again what the list has said, and which
may change places."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlakit.core.text.stats import WORD

STRETCH = re.compile(r"[^.;:!?\n“”\"]+")
BETWEEN = re.compile(r",\s*(?:and|or)\s+|,\s*|\s+(?:and|or)\s+")
Words = list[re.Match[str]]

# A list whose items may change places: it follows a colon or one of these words, which cannot
# belong to its first item, and ends before punctuation or a function word.
BEFORE = (
    "about|against|among|as|at|between|by|concerning|describes|discusses|for|from|includes|including"
    "|into|like|lists|mentions|names|of|on|regarding|says|through|under|with|without"
)
ARTICLE = "a|an|the|his|her|its|their|our|my|your"
FUNCTION = (
    f"{BEFORE}|{ARTICLE}|am|and|are|around|be|because|been|before|being|but|can|cannot|could|did|do"
    "|does|had|has|have|he|how|i|if|in|is|it|may|me|might|must|nor|not|off|or|out|over|shall|she"
    "|should|since|so|than|that|them|then|there|these|they|this|those|though|to|until|up|upon|us|was"
    "|we|were|what|when|where|which|while|who|whom|whose|why|will|within|would|you"
)
ANY = r"-?\w+(?:['’-]\w+)*"
CONTENT = rf"(?!(?i:{FUNCTION})\b){ANY}"
ITEM = rf"(?:(?:{ARTICLE}) )?{CONTENT}(?: {CONTENT}){{0,3}}"
END = rf"(?=\s*\Z|\n|\s?[.;:,!?…)](?!\w)| (?:{FUNCTION})\b)"


def _enumeration(item: str, word: str) -> str:
    return rf"{item}(?:(?:, {item})+,?)? {word} {item}"


# After a colon a function word may be an item by itself: “next: the, a or but”. Of “a and b, or c”
# the items are two.
SINGLE = rf"(?:{ITEM}|(?=(?i:{FUNCTION})\b){ANY})"
PAIRED = rf"(?:{ITEM} and {ITEM}|{SINGLE})"
MOVABLE = re.compile(
    rf": (?P<told_or>{_enumeration(PAIRED, 'or')}){END}"
    rf"|: (?P<told_and>{_enumeration(SINGLE, 'and')}){END}"
    rf"|\b(?:{BEFORE}) (?P<of_or>{_enumeration(ITEM, 'or')}){END}"
    rf"|\b(?:{BEFORE}) (?P<of_and>{_enumeration(ITEM, 'and')}){END}"
)


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


def movable_items(text: str) -> Iterator[list[tuple[int, int]]]:
    """The lists whose items may change places without harm to the sentence, each as the spans of
    its items: short ones, without verbs as far as function words tell. Of two items the last is no
    longer than the first: “of rain and he left” is no list."""
    for match in MOVABLE.finditer(text):
        name = match.lastgroup or ""
        start, end = match.span(name)
        word = f" {name.partition('_')[2]} "
        cut = text.rindex(word, start, end)
        spans = []
        for piece in text[start:cut].removesuffix(",").split(", "):
            spans.append((start, start + len(piece)))
            start += len(piece) + len(", ")
        spans.append((cut + len(word), end))
        first, *_, last = (text[a:b].count(" ") for a, b in spans)
        if len(spans) > 2 or last <= first:
            yield spans


def repeated_items(text: str) -> float:
    """Share of a text's list items that stand earlier in their list; NaN without a list."""
    found = list_items(text)
    count = sum(map(len, found))
    return 1 - sum(len(set(items)) for items in found) / count if count else float("nan")
