"""What can be said of explanations without any model: copies, openings, loops, scripts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
PREFIXES = (40, 80, 120, 200)


def words(text: str) -> list[str]:
    """Lower-cased words of a text."""
    return [match.group().lower() for match in WORD.finditer(text)]


def has_loop(text: str, times: int = 3) -> bool:
    """Whether a word, or a group of up to three words, stands `times` times in a row."""
    found = words(text)
    for size in (1, 2, 3):
        span = size * times
        for start in range(len(found) - span + 1):
            group = found[start : start + size]
            if all(found[start + size * k : start + size * (k + 1)] == group for k in range(times)):
                return True
    return False


def longest_copied_run(text: str, source: str) -> int:
    """Length in words of the longest run of `text` that stands word by word in `source`."""
    left, right = words(text), words(source)
    best = 0
    previous = [0] * (len(right) + 1)
    for word in left:
        current = [0] * (len(right) + 1)
        for column, other in enumerate(right, start=1):
            if word == other:
                current[column] = previous[column - 1] + 1
                best = max(best, current[column])
        previous = current
    return best


def other_script_share(text: str) -> float:
    """Share of letters outside the Latin script."""
    letters = [char for char in text if char.isalpha()]
    other = sum("LATIN" not in unicodedata.name(char, "") for char in letters)
    return other / len(letters) if letters else 0.0


def uniqueness(texts: Sequence[str]) -> dict[str, float]:
    """Share of distinct texts by their first 40, 80, 120, 200 characters and in full."""
    n = max(len(texts), 1)
    shares = {str(size): len({text[:size] for text in texts}) / n for size in PREFIXES}
    return {**shares, "full": len(set(texts)) / n}


def collapse_summary(texts: Sequence[str]) -> dict[str, Any]:
    """Uniqueness, the commonest 80-character opening, and shares of empty, looping and
    other-script texts. The texts must be whole: stored excerpts hide or fake repetition."""
    n = max(len(texts), 1)
    openings = Counter(text[:80] for text in texts if text.strip())
    opening, count = openings.most_common(1)[0] if openings else ("", 0)
    return {
        "rows": len(texts),
        "unique": uniqueness(texts),
        "top_opening": opening,
        "top_opening_share": count / n,
        "empty_share": sum(not text.strip() for text in texts) / n,
        "loop_share": sum(has_loop(text) for text in texts) / n,
        "other_script_share": sum(other_script_share(text) > 0.2 for text in texts) / n,
        "mean_words": sum(len(words(text)) for text in texts) / n,
    }
