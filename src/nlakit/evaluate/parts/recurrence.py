"""Which words to believe? Whether words that recur when a token is explained again, and in the
explanations of its neighbours, stand in its source more often than those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import cosine
from nlakit.core.prompts import document_ids
from nlakit.core.statistics import auc_rows, derangement, estimate, estimate_share
from nlakit.core.text.recurrence import AGAIN, ALONE, Told, mentions, share, stems_in
from nlakit.evaluate.bench import Bench, Part, Values
from nlakit.evaluate.parts.readouts import holds_subject, untrained
from nlakit.models.records import Recurrence
from nlakit.models.subject import activations_of
from nlakit.models.using.explaining import CONTROLS, Again, nearby, with_costs
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.progress import ticker

NEIGHBOURS = 2
SAME = 0.98  # cosine of a vector that is read again with the stored one; bfloat16 gives 0.999
SIGNALS = ("samples", "neighbours", "both")
APART = ("next", "frame")  # kinds of words that claim nothing of the text up to the token


def measure(bench: Bench) -> Part:
    """The part `recurrence`, on twice `control_rows` rows, of as many documents as there are:
    `samples` texts a row at `temperature`, and the explanations of the two tokens before it.

    Over the different content words of all explanations, each with whether its source has it (by
    its stem): `auc`, the chance that one that is there scores above one that is not. Conditions:
    the word's recurrence over `samples`, `neighbours` and `both`, and `deletion`, what the centred
    cosine loses without it; each over `other_row`, the share of another document's texts that have
    the word. `auc_over_deletion`: that of a recurrence less that of deletion. `supported`: share of
    the words that the source has, of all (`explanation`, and in another document's source
    `other_row`), of those that at least half of the texts repeat (`repeated`), and of those that
    fewer than a quarter do (`unrepeated`).

    The values of a row are such that their mean is the figure over all words, and their spread
    over documents its own.
    """
    part = Part("recurrence")
    if bench.av is None:
        part.notes.append("no AV: nothing can be explained again")
        return part
    rows = picked(bench)
    if not rows:
        part.notes.append("no row has both an explanation and a source: no word can be looked up")
        return part
    again = Again(
        bench.settings.samples, NEIGHBOURS, bench.settings.temperature, bench.seed,
        bench.settings.generate_batch,
    )  # fmt: skip
    found, partners = recurrences(part, bench, bench.av, again, rows)
    words = Words.of(bench, rows, found, partners)
    part.detail["told"] = {
        bench.rows.row_ids[row]: {"samples": one.samples, "neighbours": one.neighbours}
        for row, one in zip(rows, found, strict=True)
    }
    part.detail["apart"] = words.apart
    if not 0 < words.supported.sum() < len(words.supported):
        part.notes.append("all words are in their sources, or none is: nothing to tell apart")
        return part
    add_areas(part, bench, words)
    add_support(part, bench, words)
    part.detail["figure"] = figure(part, bench, words, again)
    return part


def recurrence_figure(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """How well recurrence predicts support in the source, from the results of an evaluation; None
    where that was not measured.

    `auc`: condition (`samples`, `neighbours`, `both`, `deletion`, `other_row`) → mean, low, high,
    rows, documents, those that could be measured; `chance` 0.5; `supported`: `explanation`,
    `repeated`, `unrepeated`, `other_row` → the same of shares; `words`, `samples`, `neighbours`,
    `temperature`.
    """
    part = (results.get("parts") or {}).get("recurrence") or {}
    return (part.get("detail") or {}).get("figure")


def picked(bench: Bench, written: bool = True) -> list[int]:
    """Up to twice `control_rows` rows that have a source and, if it is to be `written`, an
    explanation, first one of each document: rows of one document say the same thing."""
    usable = [
        row
        for row, (text, source) in enumerate(zip(bench.texts, bench.rows.sources, strict=True))
        if source.strip() and (text.strip() or not written)
    ]
    first = list({bench.documents[row]: row for row in reversed(usable)}.values())[::-1]
    others = sorted(set(usable) - set(first))
    return [*sorted(first), *others][: 2 * bench.settings.control_rows]


def recurrences(
    part: Part, bench: Bench, av: Verbalizer, again: Again, rows: list[int]
) -> tuple[list[Recurrence], list[list[Told]]]:
    """The marks of the rows' explanations, and the texts of another document's row for each."""
    texts, vectors = [bench.texts[row] for row in rows], bench.rows.vectors[rows]
    beside = neighbour_vectors(part, bench, av, again, rows)
    total = len(rows) * again.samples + CONTROLS + sum(map(len, beside))
    with ticker("recurrence", total, "texts") as progress:
        others = again.tell(av, vectors, beside, on_batch=progress.advance)
    found = again.recurrences(texts, others)
    if bench.ar is not None:
        found = with_costs(found, texts, vectors, bench.reconstruct, bench.mean)
    else:
        part.notes.append("no AR: what a word's deletion costs is not known")
    told = [[Told.of(text) for text in (*one.samples, *one.neighbours)] for one in found]
    partners = derangement([bench.documents[row] for row in rows], bench.seed)
    return found, [told[i] if i >= 0 else [] for i in partners.tolist()]


def neighbour_vectors(
    part: Part, bench: Bench, av: Verbalizer, again: Again, rows: list[int]
) -> list[dict[int, NDArray[np.float32]]]:
    """Position → raw activation of the tokens before each row's, read again from the row's source,
    which ends with its token; empty where that does not give the row's own activation."""
    if not holds_subject(av):
        part.notes.append(
            "all weights of the AV are trained, and the rows hold one activation each: recurrence "
            "over samples alone"
        )
        return [{} for _ in rows]
    tokenizer, contract = av.tokenizer, av.contract
    found: list[dict[int, NDArray[np.float32]]] = []
    with untrained(av):
        for row in rows:
            ids = document_ids(tokenizer, bench.rows.sources[row], contract.nlakit.special_tokens)
            if av.positions and len(ids) > av.positions:
                found.append({})
                continue
            vectors = activations_of(av.decoder, ids, contract.layer)
            same = float(cosine(bench.rows.vectors[row][None], vectors[-1:])[0]) >= SAME
            first = int(ids[0] == tokenizer.bos_token_id)
            spots = nearby(len(ids) - 1, again.neighbours, len(ids), first) if same else []
            found.append({spot: vectors[spot] for spot in spots})
    if missing := sum(not one for one in found):
        part.notes.append(
            f"{missing} of {len(rows)} rows have no neighbours: their source, read again, does not "
            "end in the row's own activation"
        )
    return found


@dataclass(frozen=True)
class Words:
    """The w different content words of the explanations that claim something of their source.

    row: place in the bench `(w,)`; supported `(w,)`: whether the source has it; other `(w,)`:
    whether another document's source has; scores: condition → `(w,)`; apart: how many words of a
    kind are left out.
    """

    row: NDArray[np.int64]
    supported: NDArray[np.bool_]
    other: NDArray[np.bool_]
    scores: dict[str, Values]
    apart: dict[str, int]

    @classmethod
    def of(
        cls,
        bench: Bench,
        rows: Sequence[int],
        found: Sequence[Recurrence],
        partners: Sequence[Sequence[Told]],
    ) -> Words:
        """Scores are NaN where a row has no neighbours, no other document or no AR."""
        sources = [stems_in(bench.rows.sources[row]) for row in rows]
        strangers = derangement([bench.documents[row] for row in rows], bench.seed).tolist()
        apart: dict[str, int] = dict.fromkeys(APART, 0)
        lines: list[tuple[Any, ...]] = []
        for place, (row, one) in enumerate(zip(rows, found, strict=True)):
            seen: set[tuple[bool, str]] = set()
            said = mentions(bench.texts[row])
            for mention, mark in zip(said, one.marks, strict=True):
                word = mention.stems[0]
                if mention.phrase or (mark.kind == "next", word) in seen:
                    continue
                seen.add((mark.kind == "next", word))
                if mark.kind in APART:
                    apart[mark.kind] += 1
                    continue
                stranger = strangers[place]
                lines.append(
                    (
                        row,
                        word in sources[place],
                        stranger >= 0 and word in sources[stranger],
                        *(_number(v) for v in (mark.samples, mark.neighbours, mark.together)),
                        _number(mark.cost),
                        _number(share(mention, partners[place])),
                    )
                )
        columns = list(zip(*lines, strict=True)) or [()] * 8
        names = (*SIGNALS, "deletion", "other_row")
        return cls(
            np.array(columns[0], dtype=np.int64),
            np.array(columns[1], dtype=bool),
            np.array(columns[2], dtype=bool),
            {n: np.array(c, dtype=np.float64) for n, c in zip(names, columns[3:], strict=True)},
            apart,
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def by_row(values: Values, rows: NDArray[np.int64], n: int) -> Values:
    """A value a row `(n,)` from values of words `(w,)`: the mean over rows that have words is that
    over words, m, and what a row differs from it is what its words do, R/W Σ (v − m)."""
    made = np.full(n, np.nan)
    if len(values):
        here, places = np.unique(rows, return_inverse=True)
        off = np.bincount(places, weights=values - values.mean())
        made[here] = values.mean() + len(here) / len(values) * off
    return made


def add_areas(part: Part, bench: Bench, words: Words) -> None:
    """`auc` and `auc_over_deletion`, over the words that have every score that can be had at all:
    areas over different words are no comparison."""
    known = {name: ~np.isnan(values) for name, values in words.scores.items()}
    names = [name for name, have in known.items() if have.any()]
    if "neighbours" not in names:
        names = [name for name in names if name != "both"]  # that of samples, once more
    all_known = np.all([known[name] for name in names], axis=0)
    labels, rows = words.supported[all_known], words.row[all_known]
    if not 0 < labels.sum() < len(labels):
        part.notes.append("too few words with every score: no AUC")
        return
    made = {
        name: by_row(auc_rows(words.scores[name][all_known], labels), rows, len(bench))
        for name in names
    }
    floor = "other_row" if "other_row" in made else None
    for name, values in made.items():
        part.add(name, {"auc": values}, None if name == "other_row" else floor)
        if name in SIGNALS and "deletion" in made:
            part.add(name, {"auc_over_deletion": values - made["deletion"]})
    if left := int((~all_known).sum()):
        part.notes.append(f"{left} of {len(all_known)} words lack a score: they are not compared")


def add_support(part: Part, bench: Bench, words: Words) -> None:
    """`supported`, of all words and by how many of the other texts repeat them."""
    together, held = words.scores["both"], words.supported.astype(np.float64)
    chosen = {
        "explanation": np.ones(len(held), dtype=bool),
        "repeated": together >= AGAIN,
        "unrepeated": together < ALONE,
    }
    for name, which in chosen.items():
        if which.any():
            values = by_row(held[which], words.row[which], len(bench))
            part.add(name, {"supported": values}, "other_row" if name == "explanation" else None)
    other = by_row(words.other.astype(np.float64), words.row, len(bench))
    part.add("other_row", {"supported": other})


def figure(part: Part, bench: Bench, words: Words, again: Again) -> dict[str, Any]:
    """What `recurrence_figure` finds."""

    def of(measure: str) -> dict[str, Any]:
        taken = estimate if measure == "auc_over_deletion" else estimate_share
        found = {}
        for one in part.measured:
            if one.measure == measure:
                known = np.flatnonzero(~np.isnan(one.values))
                documents = [bench.documents[row] for row in known]
                found[one.condition] = taken(one.values[known], documents).as_dict()
        return found

    return {
        "auc": of("auc"),
        "chance": 0.5,
        "auc_over_deletion": of("auc_over_deletion"),
        "supported": of("supported"),
        "words": len(words.row),
        "samples": again.samples,
        "neighbours": again.neighbours if "neighbours" in of("auc") else 0,
        "temperature": again.temperature,
    }
