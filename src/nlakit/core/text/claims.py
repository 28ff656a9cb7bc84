"""What a text claims that can be looked up in its source, by rule; and cutting claims out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np

from nlakit.core.text.stats import WORD

Kind = Literal["quote", "number", "name", "word"]
KINDS: tuple[Kind, ...] = ("quote", "number", "name", "word")
STRONG: tuple[Kind, ...] = ("quote", "number", "name")

# An apostrophe inside a word or after a plural neither opens nor closes a quote.
QUOTE = re.compile(
    r"“([^“”]+)”|\"([^\"]+)\"|(?<!\w)[‘']((?:[^‘’'\n]|(?<=\w)[’'](?=\w))+)[’'](?!\w)"
)
NUMBER = re.compile(r"(?<![^\W_])\d+(?:[.,]\d+)*")
ENUMERATOR = re.compile(r"(?m)^\s*\d{1,2}[.)](?=\s)")
PREDICTED = re.compile(r"(?i)\bnext:[^.!?\n]*")
SENTENCE = re.compile(r"(?<=[.!?:;…])\s+|\n+")
SPELLED = "zero one two three four five six seven eight nine ten eleven twelve".split()
LONG = 5  # letters; shorter words are mostly grammar
NEAR = 0.7  # share of the words of two claims that both have
TAGS = "source|explanation|claims"


@dataclass(frozen=True)
class Claim:
    """Something that stands in a text and can be looked up in another."""

    kind: Kind
    text: str


@cache
def stop_words() -> frozenset[str]:
    """English words that say nothing of a text."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def bare(word: str) -> str:
    """A word without case and possessive."""
    return word.casefold().replace("’", "'").removesuffix("'s")


def claims(text: str) -> list[Claim]:
    """The distinct claims of a text: quotes, numbers and names outside quotes, long words.

    A name is a run of capitalised words that does not begin a sentence. A word has five letters or
    more and is not a stop word. What follows `next:` in its sentence is a guess at the text's
    continuation, as nlakit's own labels have it, not a claim about the text.
    """
    text = PREDICTED.sub("", text)
    found = [Claim("quote", quote) for quote in _quotes(text)]
    rest = ENUMERATOR.sub("", QUOTE.sub('""', text))
    found += [Claim("number", match.group()) for match in NUMBER.finditer(rest)]
    found += [Claim("name", _joined(run)) for run in names(rest)]
    found += [
        Claim("word", word)
        for word in (bare(match.group()) for match in WORD.finditer(text))
        if len(word) >= LONG and word.isalpha() and word not in stop_words()
    ]
    return list(dict.fromkeys(found))


def _quotes(text: str) -> list[str]:
    inner = (next(group for group in match.groups() if group) for match in QUOTE.finditer(text))
    return [quote for quote in (" ".join(one.split()) for one in inner) if quote]


def names(text: str) -> Iterator[list[re.Match[str]]]:
    """The names of a text, each as its words: runs of capitalised words that do not begin a
    sentence and are not all stop words."""
    start = 0
    for cut in [*SENTENCE.finditer(text), None]:
        end = len(text) if cut is None else cut.start()
        run: list[re.Match[str]] = []
        for place, match in enumerate(WORD.finditer(text, start, end)):
            word = match.group()
            capital = place > 0 and word[0].isupper() and bare(word).split("'")[0] != "i"
            if run and (not capital or text[run[-1].end() : match.start()].strip(" .-")):
                if _weighty(_joined(run)):
                    yield run
                run = []
            if capital:
                run.append(match)
        if run and _weighty(_joined(run)):
            yield run
        start = end if cut is None else cut.end()


def _joined(run: Sequence[re.Match[str]]) -> str:
    return " ".join(match.group() for match in run)


def _weighty(name: str) -> list[str]:
    """The words of a name that have to be in the source."""
    return [word for word in map(bare, name.split()) if word not in stop_words()]


@dataclass(frozen=True)
class Source:
    """A text in which claims are looked up."""

    text: str

    @cached_property
    def folded(self) -> str:
        return " ".join(self.text.casefold().split())

    @cached_property
    def words(self) -> list[str]:
        return [bare(match.group()) for match in WORD.finditer(self.text)]

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def numbers(self) -> set[str]:
        spelled = {str(n) for n, word in enumerate(SPELLED) if word in self.vocabulary}
        digits = re.findall(r"\d+", self.text)  # the 3 of version 2.3 or of x3
        numbers = (plain_number(one.group()) for one in NUMBER.finditer(self.text))
        return spelled.union(digits, numbers)

    def has(self, claim: Claim) -> bool:
        """Whether a claim is found. Case, white space and the punctuation of a quote do not
        matter; all words of a name have to be there, in any order."""
        if claim.kind == "quote":
            return self._quotes(claim.text)
        if claim.kind == "number":
            return plain_number(claim.text) in self.numbers
        return self.vocabulary.issuperset(_weighty(claim.text))

    def _quotes(self, quote: str) -> bool:
        folded = " ".join(quote.casefold().split())
        left = r"\b" if re.match(r"\w", folded) else ""
        right = r"\b" if re.search(r"\w$", folded) else ""
        # The last token of a source may be a piece of a word, and is quoted as it stands.
        if re.search(left + re.escape(folded) + right, self.folded) or (
            self.folded.endswith(folded)
        ):
            return True
        words = " ".join(bare(match.group()) for match in WORD.finditer(quote))
        return bool(words) and f" {words} " in f" {' '.join(self.words)} "


def plain_number(number: str) -> str:
    """A number without separators of thousands."""
    return re.sub(r",(?=\d{3}(?!\d))", "", number)


def check(text: str, source: Source) -> list[tuple[Claim, bool]]:
    """Each claim of a text, with whether the source has it."""
    return [(claim, source.has(claim)) for claim in claims(text)]


def near(first: str, second: str) -> bool:
    """Whether two claims share most of their words (Jaccard's index)."""
    left, right = (
        {bare(match.group()) for match in WORD.finditer(text)} for text in (first, second)
    )
    return bool(left | right) and len(left & right) >= NEAR * len(left | right)


def recurrence(claim: str, others: Sequence[Sequence[str]]) -> int:
    """In how many of the other texts, given as their claims, a claim recurs."""
    return sum(any(near(claim, other) for other in said) for said in others)


def without(text: str, span: str) -> str | None:
    """The text without the first place where `span` stands, in any case and white space; None if
    it stands nowhere."""
    pattern = r"\s+".join(map(re.escape, span.split()))
    match = re.search(pattern, text, re.IGNORECASE) if pattern else None
    return None if match is None else _cut(text, *match.span())


def without_run(text: str, count: int, rng: np.random.Generator) -> str:
    """The text without `count` words in a row, at a random place; all of a shorter text goes."""
    found = [match.span() for match in re.finditer(r"\S+", text)]
    if count >= len(found):
        return ""
    start = int(rng.integers(0, len(found) - count + 1))
    return _cut(text, found[start][0], found[start + count - 1][1])


def _cut(text: str, start: int, end: int) -> str:
    return f"{text[:start].rstrip()} {text[end:].lstrip()}".strip()


def fenced(text: str, tag: str) -> str:
    """Untrusted text between tags that nothing in it can open or close."""
    inner = re.sub(rf"<(?=\s*/?\s*(?:{TAGS})\b)", "‹", text, flags=re.IGNORECASE)
    return f"<{tag}>\n{inner}\n</{tag}>"
