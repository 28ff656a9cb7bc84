"""What the page asks of the models beside an explanation, on the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.core.metrics import cosine
from nlakit.core.text.recurrence import Told as Heard
from nlakit.core.text.recurrence import marks
from nlakit.core.text.transforms import without_each
from nlakit.evaluate.parts.attribution import MAX_WORDS, pieces
from nlakit.evaluate.parts.readouts import holds_subject, logit_lens
from nlakit.models.head import head_of
from nlakit.models.subject import decoder_of
from nlakit.serve.pages.pairs import Marks, Pair, Reading, Told

GUESSES, NEAREST, LENS = 8, 5, 8


@dataclass(frozen=True)
class Guess:
    token: str
    chance: float


@torch.no_grad()
def guesses(reading: Reading, at: int) -> list[Guess]:
    """The subject's own likeliest next tokens behind token `at`."""
    subject = reading.pair.nla.subject
    ids = torch.tensor([reading.ids[: at + 1]], device=subject.device)
    hidden = decoder_of(subject.model)(input_ids=ids, use_cache=False)[0][:, -1]
    chances = torch.softmax(head_of(subject.model).logits(hidden).float()[0], dim=-1)
    best = chances.topk(min(GUESSES, len(chances)))
    return [
        Guess(subject.tokenizer.decode([token]), chance)
        for token, chance in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Neighbour:
    """A training row; `value` is the centred cosine of its vector with the token's."""

    value: float
    source: str
    token: str
    label: str
    document: str


def nearest(pair: Pair, vector: NDArray[Any]) -> tuple[list[Neighbour], float]:
    """The training rows nearest to a raw vector `(d,)`, and the mean over all rows as their
    floor."""
    rows = pair.rows
    assert rows is not None
    values = pair.row_directions @ pair.directions(vector)[0]
    found = [
        Neighbour(
            float(values[row]),
            rows.sources[row],
            rows.tokens[row],
            rows.texts[row],
            rows.doc_ids[row],
        )
        for row in np.argsort(-values)[:NEAREST].tolist()
    ]
    return found, float(values.mean())


@dataclass(frozen=True)
class Carried:
    """A piece of an explanation and what its deletion costs, in (centred) cosine; `strength` 0 is
    at the floor, 3 the strongest."""

    words: str
    cost: float
    strength: int


def carried(pair: Pair, vector: NDArray[Any], text: str) -> tuple[list[Carried], float]:
    """What each word carries: the score that goes with it when it is deleted.

    The floor, given beside it, is what 95 of 100 deletions change at most on vectors of other
    texts: a word below it cannot be told from any other.
    """
    words = pieces(text.split(), MAX_WORDS)
    if not words:
        return [], 0.0
    made = pair.directions(pair.nla.reconstruct([" ".join(words), *without_each(words)]))
    own = made @ pair.directions(vector)[0]
    strange = made @ pair.strangers.T
    costs = own[0] - own[1:]
    floor = float(np.quantile(np.abs(strange[0] - strange[1:]), 0.95))
    top = max(float(costs.max()), 1e-9)
    strengths = [0 if cost <= floor else 1 + int(3 * cost / top * 0.999) for cost in costs]
    return [
        Carried(word, float(cost), strength)
        for word, cost, strength in zip(words, costs, strengths, strict=True)
    ], floor


@dataclass(frozen=True)
class Moved:
    """What an edit does to a reconstruction. `alike`: cosine of the reconstructions before and
    after; `towards` and `away`: words that the change points to and from, None where the untrained
    subject is not at hand to read it."""

    before: Marks
    after: Marks
    alike: float
    towards: str | None
    away: str | None


def moved(pair: Pair, vector: NDArray[Any], before: str, after: str) -> Moved:
    """Reconstruct an explanation and its edit, and compare both with a raw vector `(d,)`."""
    made = pair.nla.reconstruct([before, after])
    was, now = pair.compared(np.stack([vector, vector]), made)
    alike = float(cosine(made[:1], made[1:])[0])
    change = made[1] - made[0]
    words: Sequence[str | None] = (None, None)
    if pair.nla.av is not None and holds_subject(pair.nla.av) and np.linalg.norm(change) > 0:
        words = logit_lens(pair.nla.av, np.stack([change, -change]), LENS)
    return Moved(was, now, alike, *words)


@dataclass(frozen=True)
class Related:
    """Two explained tokens side by side. `alike`: centred cosine of their vectors, None where they
    are not of one space; `crossed`: each text scored against each vector, None likewise."""

    told: tuple[Told, Told]
    pairs: tuple[str, str]
    measure: str
    alike: float | None
    crossed: list[list[Marks]] | None


def related(one: tuple[Reading, int], other: tuple[Reading, int]) -> Related:
    """Compare two explained tokens. A text is scored by the first token's pair."""
    (left, at), (right, place) = one, other
    told = left.told[at], right.told[place]
    pair, contract = left.pair, left.pair.nla.contract
    names = left.pair.name, right.pair.name
    if contract.difference(right.pair.nla.contract) or pair.nla.ar is None:
        return Related(told, names, pair.measure, None, None)
    vectors = np.stack([left.vectors[at], right.vectors[place]])
    directions = pair.directions(vectors)
    texts = [one.explanation for one in told]
    crossed = [pair.marks(vectors, [text, text]) for text in texts]
    rows = [[mark for mark in row if mark is not None] for row in crossed]
    return Related(told, names, pair.measure, float(directions[0] @ directions[1]), rows)


@dataclass(frozen=True)
class Piece:
    """A piece of an explanation. level: `again` where at least half of the samples say it too,
    `alone` where fewer than a quarter do, else empty."""

    text: str
    level: str


def recurring(text: str, samples: Sequence[str], controls: Sequence[Heard]) -> list[Piece]:
    """An explanation cut at its words, marked by how they recur in samples for the same token;
    `controls`: what is said of random directions, whose words say nothing of any token."""
    pieces, last = [], 0
    for one in marks(text, samples, (), controls):
        if one.level is not None and one.start >= last:
            pieces += [Piece(text[last : one.start], ""), Piece(one.text, one.level)]
            last = one.end
    return [*pieces, Piece(text[last:], "")]
