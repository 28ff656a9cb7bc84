"""Does the subject follow an edited explanation? Edits made by rule, and what steering shows.

An edit succeeds if the words that it brings in are likelier than without steering, and likelier
than along all but 5% of random directions of the same size: log p of their first tokens, mean over
words and over the next places of the subject's own unsteered continuation. Over several places,
because grammar decides the very next word; along one continuation, so that all directions are
heard at the same places and no luck of sampling comes in. Beside the random directions stand those
of other documents' edits: a push that makes any word of explanations likelier is no steering.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlakit.core.statistics import estimate, estimate_share
from nlakit.core.text.claims import stop_words
from nlakit.core.text.edits import exchanged
from nlakit.core.text.stats import WORD
from nlakit.errors import DataError
from nlakit.models.nla import NLA, Positions
from nlakit.models.steering.record import Asked
from nlakit.models.steering.steer import edit_direction

MOST_EDITS = 1000
FORM = 0.1  # share of the explanations from which a word is of their form, not of their content
GUESS = re.compile(r"(?i)(?<=next: )[^.!?\n]+")
KINDS = ("word", "topic", "next")


@dataclass(frozen=True)
class Edit:
    """An edit of the explanation of a text; original None stands for the pair's own."""

    text: str
    original: str | None
    edited: str | dict[str, str]
    document: str
    kind: str = "edit"


def form_words(explanations: Sequence[str]) -> set[str]:
    """Words that stand in a tenth of the explanations, and in three, in lower case."""
    counts = Counter(
        word for one in explanations for word in {m.group().casefold() for m in WORD.finditer(one)}
    )
    return {word for word, count in counts.items() if count >= max(FORM * len(explanations), 3)}


def content_words(text: str, form: set[str]) -> list[str]:
    """Distinct words of three letters or more that are neither stop words nor of the form, those
    said most often first. The guess at what comes next is left out."""
    said = [match.group() for match in WORD.finditer(GUESS.sub("", text))]
    kept = [
        word for word in said
        if len(word) > 2 and word.isalpha() and word.casefold() not in stop_words() | form
    ]  # fmt: skip
    counts = Counter(word.casefold() for word in kept)
    return sorted(counts, key=lambda word: -counts[word])


def edits_of(own: str, other: str, form: set[str]) -> dict[str, str]:
    """Kind → the explanation with something of another document's explanation in its place:

    `word`: the content word that it says most often, for the other's; `topic`: each content word of
    the first sentence, for those of the other's first sentence in turn; `next`: the guess at what
    comes next, for the other's first guess that is one word. Without the kinds that cannot be made.
    """
    mine, theirs = content_words(own, form), content_words(other, form)
    fresh = [word for word in theirs if word not in mine]
    made: dict[str, str] = {}
    if mine and fresh:
        made["word"] = exchanged(own, {mine[0]: fresh[0]})
    first, rest = own.partition(". ")[::2]
    topic = content_words(first, form)
    in_turn = [word for word in content_words(other.partition(". ")[0], form) if word in fresh]
    if topic and in_turn:
        pairs = {word: in_turn[at % len(in_turn)] for at, word in enumerate(topic)}
        made["topic"] = f"{exchanged(first, pairs)}. {rest}"
    guess, known = GUESS.search(own), {m.group().casefold() for m in WORD.finditer(own)}
    said = re.split(r",\s*|\s+or\s+", found.group()) if (found := GUESS.search(other)) else []
    one = next((word for word in said if word.isalpha() and word.casefold() not in known), None)
    if guess and one:
        made["next"] = own[: guess.start()] + one + own[guess.end() :]
    return made


def ruled_edits(
    texts: Sequence[str],
    explanations: Sequence[str],
    documents: Sequence[str],
    count: int,
    seed: int,
) -> list[Edit]:
    """All three kinds for the first `count` contexts that allow them, each with the first partner
    of another document, in an order drawn by `seed`, that does. DataError where none does."""
    form, made = form_words(explanations), []
    for row, own in enumerate(explanations):
        order = np.random.default_rng((seed, row)).permutation(len(texts))
        partners = [int(other) for other in order if documents[other] != documents[row]]
        tried = (edits_of(own, explanations[other], form) for other in partners)
        found = next((edits for edits in tried if len(edits) == len(KINDS)), {})
        made += [Edit(texts[row], own, new, documents[row], kind) for kind, new in found.items()]
        if len(made) == count * len(KINDS):
            break
    if not made:
        raise DataError(
            "no explanation can be edited by the rule",
            found=f"{len(texts)} explanations",
            do="give explanations with content words and a guess after `next:`",
        )
    return made


def check_count(edits: Sequence[Edit]) -> None:
    """Raise DataError for no edits, or more than 1000."""
    if not 1 <= len(edits) <= MOST_EDITS:
        raise DataError(
            f"steering takes 1 to {MOST_EDITS} edits a call", found=len(edits), do="split the file"
        )


def measure(
    nla: NLA,
    edits: Sequence[Edit],
    asked: Asked,
    positions: Positions = "last",
    others: int = 0,
    skip: Collection[tuple[str, str]] = (),
) -> Iterator[list[dict[str, Any]]]:
    """For each edit, a record a size (`Steered.as_dicts`) with `document` and `kind`.

    others: so many directions of other documents' edits of the same kind stand beside the random
    ones; all edits are texts then. skip: (document, kind) of edits that only lend their directions.
    Raises DataError as `check_count`, and the errors of `NLA.steer`.
    """
    check_count(edits)
    directions = _directions(nla, edits) if others else None
    for row, edit in enumerate(edits):
        if (edit.document, edit.kind) in skip:
            continue
        beside = None
        if directions is not None:
            far = [
                at for at, one in enumerate(edits)
                if one.kind == edit.kind and one.document != edit.document
            ]  # fmt: skip
            drawn = np.random.default_rng((asked.seed, row)).permutation(len(far))[:others]
            beside = directions[[far[at] for at in drawn]]
        found = nla.steer(
            edit.text, edit.original, edit.edited, positions=positions, others=beside, **vars(asked)
        )
        named = {"document": edit.document, "kind": edit.kind}
        yield [named | record for record in found.as_dicts()]


def _directions(nla: NLA, edits: Sequence[Edit]) -> Any:
    assert nla.ar is not None
    pairs = [(edit.original, edit.edited) for edit in edits]
    assert all(isinstance(old, str) and isinstance(new, str) for old, new in pairs)
    return np.stack([edit_direction(nla.ar, str(old), str(new)) for old, new in pairs])


def summarise(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A finding a kind (and all kinds together) and size: share of successes beside that of chance,
    and means in nats, each with its 95% interval over documents. Edits that bring no word in are
    counted in `edits` and in no mean."""
    records = [record | _differences(record) for record in records]
    kinds = list(dict.fromkeys(record["kind"] for record in records))
    found = []
    for kind in [*(kinds if len(kinds) > 1 else []), "all"]:
        for alpha in dict.fromkeys(record["alpha"] for record in records):
            rows = [r for r in records if r["alpha"] == alpha and kind in (r["kind"], "all")]
            heard = [r for r in rows if r["log_p"] is not None]
            one: dict[str, Any] = {"kind": kind, "alpha": alpha, "edits": len(rows)}
            one |= {"heard": len(heard), "chance": rows[0]["chance"]}
            for name in ("success", "rise", "next_rise", "gain", "other_gain"):
                one[name] = _estimated(name, heard)
            one |= {name: _estimated(name, rows) for name in ("cost", "random_cost")}
            found.append(one)
    return found


def _differences(record: dict[str, Any]) -> dict[str, float | None]:
    """What steering does to the next token's words and, along the edit's direction and random ones,
    to the unsteered continuation."""
    plain, random = record["unsteered_own_log_p"], record["random_own_log_p"]
    heard = record["log_p"] is not None
    return {
        "next_rise": record["next_log_p"] - record["unsteered_next_log_p"] if heard else None,
        "cost": record["own_log_p"] - plain,
        "random_cost": float(np.mean(random)) - plain if random else None,
    }


def _estimated(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    rows = [row for row in rows if row[name] is not None]
    if not rows:
        return None
    values = np.array([row[name] for row in rows], dtype=np.float64)
    over = estimate_share if name == "success" else estimate
    return over(values, [row["document"] for row in rows]).as_dict()
