"""What the AR is fed beside the real explanation, and the AV beside the real vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.prompts import encode
from nlakit.core.statistics import derangement
from nlakit.core.text.characters import last_tokens
from nlakit.files.rows import TableRows

# What the AR scores without having read a text of its row.
FLOORS = ("mean", "empty", "gibberish", "unrelated", "other_row")
UNRELATED = (
    "The kettle was left on the stove while the guests looked for their coats.",
    "Rents in the harbour district rose again after the tram line was extended.",
    "A violin needs new strings about once a year if it is played every day.",
    "The committee postponed the vote because two members were snowed in.",
    "Granite weathers slowly, and its crystals can be seen with the naked eye.",
    "She mended the fence before the goats could find the gap behind the shed.",
    "The ferry runs every forty minutes in summer and twice a day in winter.",
    "Bees return to the hive when the light fades or a storm comes near.",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DRAWN = 16  # texts of a floor that says nothing of any row: more would be read for nothing


def gibberish(count: int, seed: int) -> list[str]:
    """Strings of random letters in word-like groups; 16 of them take turns."""
    rng = np.random.default_rng([seed, 11])
    drawn = [
        " ".join("".join(rng.choice(list(LETTERS), size=rng.integers(3, 9))) for _ in range(18))
        for _ in range(min(count, DRAWN))
    ]
    return [drawn[row % DRAWN] for row in range(count)]


def unrelated(count: int, seed: int) -> list[str]:
    """Three sentences that have nothing to do with the row; 16 such texts take turns."""
    rng = np.random.default_rng([seed, 12])
    drawn = [
        " ".join(rng.choice(UNRELATED, size=3, replace=False)) for _ in range(min(count, DRAWN))
    ]
    return [drawn[row % DRAWN] for row in range(count)]


def pick_rows(rows: TableRows, count: int, per_document: int = 2) -> TableRows:
    """`count` rows, up to `per_document` of each document, so that the control with another
    position of the same document exists; documents in the table's random order."""
    by_document: dict[str, list[int]] = {}
    for index, document in enumerate(rows.doc_ids):
        by_document.setdefault(document, []).append(index)
    picked: list[int] = []
    start = 0
    while len(picked) < min(count, len(rows)):
        for indices in by_document.values():
            picked += indices[start : start + per_document]
        start += per_document
    return rows.take(picked[:count])


def last_source_tokens(
    tokenizer: Any, sources: Sequence[str | None], count: int
) -> list[str | None]:
    """The last `count` tokens of each source text, as text: what plain copying would say."""
    return [
        None
        if source is None
        else last_tokens(tokenizer, encode(tokenizer, source, special=False), count)
        for source in sources
    ]


def ar_inputs(
    rows: TableRows, texts: Sequence[str], tokenizer: Any, seed: int
) -> dict[str, list[str | None]]:
    """Condition → text a row; None where the condition has none for the row.

    `real` are the AV's texts, `label` the teacher's (the ceiling); then floors and copy controls.
    An empty text counts as such: the AR is fed the empty string.
    """
    n = len(rows)
    other = derangement(rows.doc_ids, seed)
    same = derangement(rows.doc_ids, seed, same=True)
    inputs: dict[str, list[str | None]] = {
        "real": list(texts),
        "label": rows.known_texts,
        "empty": [""] * n,
        "gibberish": list(gibberish(n, seed)),
        "unrelated": list(unrelated(n, seed)),
        "other_row": of_partners(texts, other),
        "same_document": of_partners(texts, same),
        "label_other_row": of_partners(rows.known_texts, other),
        "last_token": last_source_tokens(tokenizer, rows.known_sources, 1),
        "last_10_tokens": last_source_tokens(tokenizer, rows.known_sources, 10),
    }
    return inputs


def of_partners(texts: Sequence[str | None], partners: NDArray[Any]) -> list[str | None]:
    """The text of each row's partner; None where the partner is −1."""
    return [texts[int(row)] if row >= 0 else None for row in partners]


def random_directions(shape: tuple[int, int], scale: float, seed: int) -> NDArray[np.float32]:
    """Random vectors `(n, d)` of norm `scale`: the AV's control of the same size."""
    drawn = np.random.default_rng([seed, 13]).standard_normal(shape)
    drawn *= scale / np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32)
