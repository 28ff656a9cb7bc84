"""What can be said of explanations without any model: copies, openings, loops, scripts, cuts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import eq
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Han, kana and hangul, with their compatibility and half-width forms.
CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3040-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U0001b000-\U0001b16f\U00020000-\U000323af]"
)
SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’»)\]`]*\Z")
PREFIXES = (40, 80, 120, 200)
OPENING, OPENINGS = 80, 5  # characters of an opening, openings that are shown
MAX_OTHER_SCRIPT = 0.2  # share of its letters above which a text counts as one in another script
OWN_SCRIPT = 0.05  # share of the letters from which a script is one of the texts' own
# Distinct texts that share the greatest length, and their share, that show a cut; shorter texts
# meet by chance.
CUT_TEXTS, CUT_SHARE, CUT_LENGTH = 3, 0.05, 40
# Both depend on how many texts are compared, so they are taken over the same number everywhere.
SAMPLE, OTHERS = 2000, 20
ORDER, EPSILON = 4, 0.1  # of BLEU


def words(text: str) -> list[str]:
    """Lower-cased words of a text."""
    return [word.lower() for word in WORD.findall(text)]


def has_loop(text: str, times: int = 3) -> bool:
    """Whether a word, or a group of up to three words, stands `times` times in a row."""
    return _repeats(words(text), times)


def _repeats(found: Sequence[str], times: int = 3) -> bool:
    # A group of k words stands n times in a row where k(n − 1) words in a row equal the k-th next.
    return any(
        b"\1" * (size * (times - 1)) in bytes(map(eq, found, found[size:])) for size in (1, 2, 3)
    )


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


@cache
def script_of(letter: str) -> str:
    """Script of a letter by its Unicode name: LATIN, CYRILLIC, GREEK, ...; CJK for Han, kana and
    hangul."""
    name = unicodedata.name(letter, "")
    if CJK.match(letter):
        return "CJK"
    return "LATIN" if "LATIN" in name else name.partition(" ")[0]


def scripts_of(texts: Sequence[str]) -> set[str]:
    """Scripts that hold at least 5% of the letters of the texts (of 1000 of them, evenly spaced);
    LATIN where there are no letters."""
    some = texts[:: -(-len(texts) // 1000) or 1]
    counts: Counter[str] = Counter()
    for letter, count in Counter(chain.from_iterable(some)).items():
        if letter.isalpha():
            counts[script_of(letter)] += count
    return {s for s, n in counts.items() if n >= OWN_SCRIPT * counts.total()} or {"LATIN"}


def other_script_share(text: str, scripts: Collection[str] = ("LATIN",)) -> float:
    """Share of letters outside the given scripts."""
    if text.isascii() and "LATIN" in scripts:
        return 0.0
    letters = {char: count for char, count in Counter(text).items() if char.isalpha()}
    other = sum(count for char, count in letters.items() if script_of(char) not in scripts)
    return other / sum(letters.values()) if letters else 0.0


def unique_rows(texts: Sequence[str], size: int | None = None) -> Values:
    """1 / number of texts with the same first `size` characters: `(n,)`; their mean is the share
    of distinct ones. It falls with n: compare over as many rows."""
    cut = [text[:size] for text in texts]
    counts = Counter(cut)
    return np.array([1 / counts[text] for text in cut], dtype=np.float64)


def uniqueness(texts: Sequence[str]) -> dict[str, float]:
    """Share of distinct texts by their first 40, 80, 120, 200 characters and in full."""
    n = max(len(texts), 1)
    shares = {str(size): len({text[:size] for text in texts}) / n for size in PREFIXES}
    return {**shares, "full": len(set(texts)) / n}


def unfinished(text: str) -> bool:
    """Whether a text does not end like a sentence; an ellipsis is no end."""
    end = text.rstrip()
    return bool(end) and (end.endswith(("...", "…")) or not SENTENCE_END.search(end))


def cut_length(texts: Sequence[str]) -> int | None:
    """Length in characters at which a store has cut its texts: the greatest one, if several
    distinct texts have exactly it and most of these are unfinished. None if nothing shows a cut.

    Texts cut by a token limit end at many lengths and are not found.
    """
    distinct = {text for text in texts if text.strip()}
    longest = max(map(len, distinct), default=0)
    found = [text for text in distinct if len(text) == longest]
    if longest < CUT_LENGTH or len(found) < max(CUT_TEXTS, CUT_SHARE * len(distinct)):
        return None
    return longest if 2 * sum(map(unfinished, found)) >= len(found) else None


def self_bleu(texts: Sequence[str], seed: int = 0) -> Values:
    """BLEU-4 of each text against 20 random others: `(n,)`, 1 where it says nothing new.

    Self-BLEU of Texygen (Zhu et al., SIGIR 2018), sampled: of 2000 random texts with words, each
    against 20 others of them; NaN for the other texts. Precisions of zero count as 0.1 matches,
    as there, but for a text that shares no word: 0. Orders that a text is too short for are left
    out.
    """
    values = np.full(len(texts), np.nan)
    rng = np.random.default_rng(seed)
    picked = list(_sampled(texts, rng))
    grams = [[_grams(words(texts[row]), size) for size in range(1, ORDER + 1)] for row in picked]
    others = min(OTHERS, len(picked) - 1)
    for place, row in enumerate(picked if others > 0 else ()):
        drawn = rng.choice(len(picked) - 1, others, replace=False)
        drawn += drawn >= place  # all but the text itself
        values[row] = _bleu(grams[place], [grams[other] for other in drawn.tolist()])
    return values


def distinct_2(texts: Sequence[str], seed: int = 0) -> float | None:
    """Distinct pairs of words over all pairs (Li et al., NAACL 2016) of 2000 random texts; None
    without a pair."""
    some = _sampled(texts, np.random.default_rng(seed))
    counts = Counter(chain.from_iterable(_grams(words(texts[row]), 2).elements() for row in some))
    return len(counts) / counts.total() if counts else None


def _sampled(texts: Sequence[str], rng: np.random.Generator) -> Iterator[int]:
    """Up to SAMPLE random rows whose texts have words."""
    left = SAMPLE
    for row in map(int, rng.permutation(len(texts))):
        if left and WORD.search(texts[row]):
            left -= 1
            yield row


def _grams(found: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(found[start:] for start in range(size)), strict=False))


def _bleu(text: list[Counter[Any]], others: list[list[Counter[Any]]]) -> float:
    """BLEU of n-gram counts, by order from 1, against those of several references."""
    matched: list[dict[Any, int]] = [{} for _ in text]
    for other in others:
        for grams, theirs, most in zip(text, other, matched, strict=True):
            shared = grams.keys() & theirs.keys()
            if not shared:
                break  # nor is any longer run shared
            for gram in shared:
                most[gram] = max(most.get(gram, 0), min(grams[gram], theirs[gram]))
    if not matched[0]:
        return 0.0
    logs = [
        np.log((sum(most.values()) or EPSILON) / grams.total())
        for grams, most in zip(text, matched, strict=True)
        if grams
    ]
    length = text[0].total()
    # The nearest length; of two equally near, the shorter.
    near = min((other[0].total() for other in others), key=lambda n: (abs(n - length), n))
    return float(np.exp(np.mean(logs) + min(0.0, 1 - near / length)))


def text_rows(
    texts: Sequence[str], scripts: Collection[str] = ("LATIN",), seed: int = 0
) -> dict[str, Values]:
    """Values a row `(n,)` of each measure, 0 or 1 but for unique*, self_bleu and words:
    unique_40, ..., unique, duplicate (another row has the text too), empty, loop, other_script
    (over a fifth of the letters), cjk (at least a letter), cut, self_bleu, words.

    The texts must be whole: stored excerpts hide or fake repetition.
    """
    length, unique = cut_length(texts), unique_rows(texts)
    loops, sizes = np.zeros(len(texts)), np.zeros(len(texts))
    for row, text in enumerate(texts):
        found = words(text)
        loops[row], sizes[row] = _repeats(found), len(found)
    written = np.array([bool(text.strip()) for text in texts], dtype=bool)
    foreign = [other_script_share(text, scripts) > MAX_OTHER_SCRIPT for text in texts]
    cjk = [not text.isascii() and bool(CJK.search(text)) for text in texts]
    cut = [len(text) == length and unfinished(text) for text in texts]
    return {
        **{f"unique_{size}": unique_rows(texts, size) for size in PREFIXES},
        "unique": unique,
        "duplicate": ((unique < 1) & written).astype(np.float64),
        "empty": (~written).astype(np.float64),
        "loop": loops,
        "other_script": np.array(foreign, dtype=np.float64),
        "cjk": np.array(cjk, dtype=np.float64),
        "cut": np.array(cut, dtype=np.float64),
        "self_bleu": self_bleu(texts, seed),
        "words": sizes,
    }


def openings(texts: Sequence[str]) -> list[dict[str, Any]]:
    """The five commonest first 80 characters of the texts that are not empty: `text`, `count`."""
    found = Counter(text[:OPENING] for text in texts if text.strip()).most_common(OPENINGS)
    return [{"text": text, "count": count} for text, count in found]


def collapse_summary(texts: Sequence[str], scripts: Collection[str] = ("LATIN",)) -> dict[str, Any]:
    """Means of `text_rows`, the commonest openings, and the length at which texts were cut; None
    for self-BLEU and distinct pairs without texts that have them."""
    rows, top = text_rows(texts, scripts), openings(texts)
    n = max(len(texts), 1)
    told = rows["self_bleu"][~np.isnan(rows["self_bleu"])]
    shares = ("empty", "loop", "other_script", "cjk", "duplicate", "cut")
    return {
        "rows": len(texts),
        "unique": uniqueness(texts),
        "top_opening": top[0]["text"] if top else "",
        "top_opening_share": top[0]["count"] / n if top else 0.0,
        "openings": top,
        **{f"{name}_share": float(rows[name].sum()) / n for name in shares},
        "cut_length": cut_length(texts),
        "self_bleu": float(told.mean()) if len(told) else None,
        "distinct_2": distinct_2(texts),
        "mean_words": float(rows["words"].sum()) / n,
    }
