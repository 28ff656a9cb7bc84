"""Which words of an explanation recur in other explanations of the same token and of its
neighbours. An explanation disagrees with itself where it invents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from nlakit.core.text.claims import NUMBER, PREDICTED, QUOTE, bare, names, plain_number, stop_words
from nlakit.core.text.lists import lists
from nlakit.core.text.stats import WORD
from nlakit.core.text.stems import stem

Kind = Literal["quote", "number", "name", "item", "word", "next", "frame"]
Level = Literal["again", "alone"]
TEMPERATURE = 1.0  # at which samples are drawn unless another is asked for
AGAIN, ALONE = 0.5, 0.25  # share of the other texts that say a word: from, and below
SHORTEST = 3  # letters of a content word; a number or a word of another script may be shorter
FRAME = 0.25  # share of the texts for random directions from which on a word is the pair's habit
PIECE = re.compile(f"{NUMBER.pattern}|{WORD.pattern}")


@dataclass(frozen=True)
class Mention:
    """A content word of a text, or a phrase: its span, where it stands, the stems of its words."""

    start: int
    end: int
    kind: Kind
    stems: tuple[str, ...]

    @property
    def phrase(self) -> bool:
        return len(self.stems) > 1


@dataclass(frozen=True)
class Marked:
    """A mention with the share of other texts in which it recurs; None where there are none.

    samples: of texts drawn for the same token; neighbours: of texts of tokens beside it; together:
    of all of these. chance: of texts for random directions, which is what a word scores that has
    nothing to do with the token. cost: what the centred cosine of the AR's reading loses without
    it; None without an AR or a mean. kind: `quote`, `number`, `name` (in mid-sentence), `item` of a
    list, other `word`; `next`, what is predicted to come next; `frame`, of which `chance` is at
    least 0.25. level: `again` where at least half of the other texts have it, `alone` where fewer
    than a quarter do, None between them; and for phrases, predictions and frames, of which that
    says nothing.
    """

    start: int
    end: int
    text: str
    kind: Kind
    phrase: bool
    samples: float | None
    neighbours: float | None
    together: float | None
    chance: float | None
    cost: float | None = None
    level: Level | None = None


def level_of(mention: Mention, frame: bool, together: float | None) -> Level | None:
    if mention.phrase or mention.kind == "next" or frame or together is None:
        return None
    return "again" if together >= AGAIN else "alone" if together < ALONE else None


def mentions(text: str) -> list[Mention]:
    """Content words and phrases of a text by their place, a phrase before its words.

    A content word is a number, or a word of three letters or more that is no stop word; a phrase is
    a quote, a name or an item of a list with several of them. What follows `next:` in its sentence
    is a guess at the text's continuation, and of the kind `next`.
    """
    spans = list(_spans(text))
    found = []
    for match in PIECE.finditer(text):
        if said := _stem_of(match):
            found.append(Mention(*match.span(), _kind_of(match, spans), (said,)))
    phrases = []
    for kind, start, end in spans:
        inside = [one for one in found if start <= one.start and one.end <= end]
        if kind != "next" and len(inside) > 1 and {one.kind for one in inside} <= {kind, "number"}:
            stems = tuple(one.stems[0] for one in inside)
            phrases.append(Mention(inside[0].start, inside[-1].end, kind, stems))
    return sorted([*phrases, *found], key=lambda one: (one.start, -one.end, not one.phrase))


def _kind_of(match: re.Match[str], spans: Sequence[tuple[Kind, int, int]]) -> Kind:
    start, end = match.span()
    around: list[Kind] = [kind for kind, first, last in spans if first <= start and end <= last]
    number = around[:1] in ([], ["item"]) and match.group()[0].isdecimal()
    return "number" if number else around[0] if around else "word"


def _spans(text: str) -> Iterator[tuple[Kind, int, int]]:
    """Where kinds of words stand: a word is of the first kind in which it lies."""
    for match in PREDICTED.finditer(text):
        yield "next", *match.span()
    for match in QUOTE.finditer(text):
        yield "quote", *match.span()
    # What is quoted neither begins nor goes on with a name outside.
    rest = QUOTE.sub(lambda match: '"' * len(match.group()), text)
    for run in names(rest):
        yield "name", run[0].start(), run[-1].end()
    for item in chain.from_iterable(lists(rest)):
        yield "item", item[0].start(), item[-1].end()


def _stem_of(match: re.Match[str]) -> str | None:
    """The stem of a content word, None for another word."""
    said = match.group()
    if said[0].isdecimal():
        return plain_number(said)
    word = bare(said)
    short = len(word) < SHORTEST and word.isascii()
    return None if short or word in stop_words() or word.endswith("n't") else stem(word)


@dataclass(frozen=True)
class Told:
    """What a text says, and what it says will come next: the stems of its content words."""

    said: frozenset[str]
    predicted: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Told:
        found = [(one.kind == "next", one.stems[0]) for one in mentions(text) if not one.phrase]
        said, predicted = (frozenset(s for n, s in found if n is k) for k in (False, True))
        return cls(said, predicted)

    def has(self, mention: Mention) -> bool:
        """Whether all stems of a mention occur, in any order: of a prediction among the
        predictions, of anything else outside them."""
        return (self.predicted if mention.kind == "next" else self.said).issuperset(mention.stems)


def stems_in(source: str) -> frozenset[str]:
    """The stems of a source text's content words, in which a mention is looked up."""
    return frozenset(one for match in PIECE.finditer(source) if (one := _stem_of(match)))


def share(mention: Mention, texts: Sequence[Told]) -> float | None:
    """Share of the texts that have a mention; None without texts."""
    return sum(text.has(mention) for text in texts) / len(texts) if texts else None


def marks(
    text: str,
    samples: Iterable[str],
    neighbours: Iterable[str] = (),
    controls: Sequence[Told] = (),
) -> list[Marked]:
    """The mentions of an explanation with their recurrence in samples for the same token and in
    explanations of its neighbours; `controls` were written for random directions."""
    drawn, beside = ([Told.of(one) for one in texts] for texts in (samples, neighbours))
    found = []
    for one in mentions(text):
        chance = share(one, controls)
        frame = one.kind != "next" and chance is not None and chance >= FRAME
        together = share(one, [*drawn, *beside])
        found.append(
            Marked(
                one.start,
                one.end,
                text[one.start : one.end],
                "frame" if frame else one.kind,
                one.phrase,
                share(one, drawn),
                share(one, beside),
                together,
                chance,
                level=level_of(one, frame, together),
            )
        )
    return found


def without_span(text: str, start: int, end: int) -> str:
    """The text without a span, and without what touches its ends up to the next white space: a
    word goes with its comma, as a deleted word does elsewhere."""
    before, after = text[:start], text[end:]
    left = before[: len(before) - len(re.split(r"\s", before)[-1])].rstrip()
    right = after[len(re.split(r"\s", after)[0]) :].lstrip()
    return f"{left} {right}".strip()
