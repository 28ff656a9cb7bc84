"""Which words carry the reconstruction? Each word and each sentence deleted in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nlakit.core.statistics import derangement
from nlakit.core.text.transforms import sentences, without_each
from nlakit.evaluate.bench import Bench, Part, Values
from nlakit.evaluate.parts.ar_reading import SCORES
from nlakit.evaluate.scoring import row_scores
from nlakit.run.progress import ticker

# With 32 rows the AR reads at most 32 × (36 + 6 + 1) = 1,376 texts.
MAX_WORDS = 36
MAX_SENTENCES = 6
STRONGEST = 5
SHOWN = 20  # rows whose words are kept for the report


def measure(bench: Bench) -> Part:
    """The part `attribution`, on the first `control_rows` rows. Δ = score(whole text) − score(text
    without the piece), positive where the piece helps.

    `delta_SCORE_word`: the sum over words by their number; `delta_SCORE_top_word`: the largest;
    `delta_SCORE_sentence`: mean over sentences; `share_top5`: share of the summed positive ΔFVE
    that the five strongest words have. Condition `real`; its floor `other_vector` scores the same
    reconstructions against another document's vector, so that what any deletion does, and the
    luck of a maximum, are in it.
    """
    part = Part("attribution")
    if bench.ar is None:
        part.notes.append("no AR: what it takes from a word cannot be measured")
        return part
    count = min(bench.settings.control_rows, len(bench))
    partners = derangement(bench.documents[:count], bench.seed).tolist()
    cuts = [Cut.of(text) for text in bench.texts[:count]]
    found: dict[tuple[str, str], Values] = {}
    shown: dict[str, list[tuple[str, float]]] = {}
    with ticker("deletions", count) as progress:
        for row, cut in enumerate(cuts):
            deltas = _deltas(bench, row, partners[row], cut) if cut.words else {}
            for condition, of in deltas.items():
                for name, value in _summary(of, cut).items():
                    empty = np.full(len(bench), np.nan)
                    found.setdefault((name, condition), empty)[row] = value
            if deltas and len(shown) < SHOWN:
                fve = deltas["real"]["fve"].tolist()
                shown[bench.rows.row_ids[row]] = list(zip(cut.words, fve, strict=False))
            progress.advance()
    for (name, condition), values in found.items():
        floor = "other_vector" if condition == "real" and (name, "other_vector") in found else None
        part.add(condition, {name: values}, floor)
    part.detail = {"words": shown}
    part.notes += _notes(cuts, len(bench))
    return part


@dataclass(frozen=True)
class Cut:
    """The words and sentences that are deleted in turn, and how many words there are: neighbours
    go together where the text has too many."""

    words: list[str]
    sentences: list[str]
    count: int

    @classmethod
    def of(cls, text: str) -> Cut:
        found = text.split()
        return cls(pieces(found, MAX_WORDS), pieces(sentences(text), MAX_SENTENCES), len(found))


def pieces(parts: Sequence[str], most: int) -> list[str]:
    """The parts; neighbours joined where there are more than `most`."""
    if len(parts) <= most:
        return list(parts)
    return [" ".join(group) for group in np.array_split(np.array(parts, dtype=object), most)]


def _deltas(bench: Bench, row: int, partner: int, cut: Cut) -> dict[str, dict[str, Values]]:
    """Condition → score → Δ of each word, then of each sentence."""
    # Words joined by single spaces, as without each of them: the space itself must cost nothing.
    whole = " ".join(cut.words)
    made = bench.reconstruct([whole, *without_each(cut.words), *without_each(cut.sentences)])
    vectors = {"real": bench.rows.vectors[row]}
    if partner >= 0:
        vectors["other_vector"] = bench.rows.vectors[partner]
    deltas = {}
    for condition, vector in vectors.items():
        scores = row_scores(np.tile(vector, (len(made), 1)), made, bench.mean, bench.base)
        deltas[condition] = {name: scores[name][0] - scores[name][1:] for name in SCORES}
    return deltas


def _summary(deltas: dict[str, Values], cut: Cut) -> dict[str, float]:
    """The row's value of each measure; the deltas of words come first."""
    split = len(cut.words)
    values: dict[str, float] = {}
    for name, of in deltas.items():
        # The mean Δ of a word shares a group's equally; the top one is that of a deleted piece.
        values[f"delta_{name}_word"] = float(of[:split].sum() / cut.count)
        values[f"delta_{name}_top_word"] = float(of[:split].max())
        values[f"delta_{name}_sentence"] = float(of[split:].mean())
    helped = np.sort(np.maximum(deltas["fve"][:split], 0.0))[::-1]
    if helped.sum() > 0:
        values["share_top5"] = float(helped[:STRONGEST].sum() / helped.sum())
    return values


def _notes(cuts: Sequence[Cut], rows: int) -> list[str]:
    read = sum(len(cut.words) + len(cut.sentences) + 1 for cut in cuts if cut.words)
    grouped = sum(cut.count > MAX_WORDS for cut in cuts)
    empty = sum(not cut.words for cut in cuts)
    said = [
        (True, f"pieces were deleted in the first {len(cuts)} of {rows} rows: {read} texts read"),
        (grouped, f"{grouped} texts have over {MAX_WORDS} words: neighbours were deleted together"),
        (empty, f"{empty} texts are empty: there is nothing to delete"),
    ]
    return [note for true, note in said if true]
