"""Does the AR read? The same explanations with their order, parts, quotes or names changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nlakit.core.metrics import mse_normalised
from nlakit.core.statistics import derangement, estimate, ratio_rows
from nlakit.core.text.stats import words
from nlakit.core.text.transforms import (
    after_words,
    clauses,
    fewer,
    first_tokens,
    first_words,
    other_names,
    paraphrase,
    quotes_only,
    sentence_shuffle,
    sentences,
    without_copied,
    without_quotes,
    word_shuffle,
    word_shuffle_in_sentences,
)
from nlakit.evaluate.bench import Bench, Part, Values

OPENING = 8  # words
PREFIXES = (10, 20, 40, 80)  # tokens
SCORES = ("fve", "centred_cosine")
Inputs = Mapping[str, Sequence[str | None]]

DRAWN: dict[str, Callable[[str, np.random.Generator], str]] = {
    "sentence_shuffle": sentence_shuffle,
    "word_shuffle": word_shuffle,
    "word_shuffle_in_sentences": word_shuffle_in_sentences,
    "sentence_deletion": lambda text, rng: fewer(sentences(text), rng),
    "clause_deletion": lambda text, rng: fewer(clauses(text), rng),
    "other_names": other_names,
    "paraphrase": paraphrase,
}
RETAINED = (
    "retained: (mean of the condition − mean of the empty text) / (mean of the real texts − mean "
    "of the empty text) over the rows that have the condition; a ratio of means, so no row has it; "
    "its interval, over documents, is that of the ratio linearised"
)


def measure(bench: Bench) -> Part:
    """The part `ar_reading`: `fve` and `centred_cosine` of each condition beside the empty text,
    and of each row `fve_lost` and `centred_cosine_lost` (real − condition), `moved` and
    `length_ratio` (words of the changed text by words of the real one)."""
    part = Part("ar_reading")
    if bench.ar is None:
        part.notes.append("no AR: what it reads of a text cannot be measured")
        return part
    settings = bench.settings
    count = len(bench) if settings.profile == "full" else min(len(bench), settings.control_rows)
    read(bench, part, transformed(bench, bench.ar.tokenizer, count))
    rest = part.texts["opening_kept_rest_other"].count(None)
    if rest:
        part.notes.append(
            f"{rest} of {count} texts have under {2 * OPENING} words, or no partner in another"
            " document that has as many: their opening cannot be told apart from the rest"
        )
    return part


def transformed(bench: Bench, tokenizer: Any, count: int) -> Inputs:
    """Condition → text of each of the first `count` rows; None where the row has none."""
    texts, sources = bench.texts[:count], bench.rows.sources[:count]
    inputs: dict[str, Sequence[str | None]] = {"real": texts}
    for salt, (name, change) in enumerate(DRAWN.items(), start=31):
        rng = np.random.default_rng([bench.seed, salt])
        inputs[name] = [change(text, rng) for text in texts]
    inputs[f"first_{OPENING}_words"] = [first_words(text, OPENING) for text in texts]
    inputs |= _openings(texts, bench.documents[:count], bench.seed)
    for count in PREFIXES:
        inputs[f"prefix_{count}"] = [first_tokens(tokenizer, text, count) for text in texts]
    inputs["no_quotes"] = [without_quotes(text) for text in texts]
    inputs["quotes_only"] = [quotes_only(text) for text in texts]
    inputs["no_copied_words"] = list(map(without_copied, texts, sources))
    return inputs | {"empty": [""] * len(texts)}


def _openings(
    texts: Sequence[str], documents: Sequence[str], seed: int
) -> dict[str, list[str | None]]:
    """What follows the opening, alone; and the opening followed by what follows that of another
    document's row. Only for texts at least twice as long as an opening: replacing a short rest
    changes little for an honest AR too."""
    long = [i for i, text in enumerate(texts) if len(text.split()) >= 2 * OPENING]
    partners = derangement([documents[i] for i in long], seed)
    after: list[str | None] = [None] * len(texts)
    kept: list[str | None] = [None] * len(texts)
    for i, partner in zip(long, map(int, partners), strict=True):
        after[i] = after_words(texts[i], OPENING)
        if partner >= 0:
            rest = after_words(texts[long[partner]], OPENING)
            kept[i] = f"{first_words(texts[i], OPENING)} {rest}"
    return {f"after_{OPENING}_words": after, "opening_kept_rest_other": kept}


def read(bench: Bench, part: Part, inputs: Inputs) -> None:
    """Let the AR read every condition of `inputs`, of which `real` and `empty` are two, and add
    values, texts, retention and notes to the part. The texts may be those of the first rows only.
    """
    real, before = bench.score(inputs["real"]), inputs["real"]
    for condition, texts in inputs.items():
        found = bench.score(texts)
        floor = None if condition == "empty" else "empty"
        part.texts[condition] = list(texts)
        part.add(condition, {name: found[name] for name in SCORES}, floor)
        if condition != "real":
            lost = {f"{name}_lost": real[name] - found[name] for name in SCORES}
            part.add(condition, {**lost, "moved": moved(bench, before, texts)})
            part.add(condition, {"length_ratio": length_ratios(before, texts, len(bench))})
    part.detail["retained"] = {
        condition: kept(part, condition, bench.documents)
        for condition in inputs
        if condition not in ("real", "empty")
    }
    part.notes.append(RETAINED)
    part.notes += _unsaid(part.detail["retained"])


def moved(bench: Bench, before: Sequence[str | None], after: Sequence[str | None]) -> Values:
    """‖û(after) − û(before)‖² a row `(n,)`: how far a change of the text moves the reconstruction,
    towards the row's own vector or away from it. That of the empty text is the scale."""
    moves = np.full(len(bench), np.nan)
    both = [(i, b, a) for i, (b, a) in enumerate(zip(before, after, strict=True))
            if b is not None and a is not None]  # fmt: skip
    if both:
        places, left, right = zip(*both, strict=True)
        moves[list(places)] = mse_normalised(bench.reconstruct(left), bench.reconstruct(right))
    return moves


def length_ratios(before: Sequence[str | None], after: Sequence[str | None], count: int) -> Values:
    """Words of the text after by words of the text before `(count,)`; NaN without either, or
    without words before."""
    ratios = np.full(count, np.nan)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        if new is not None and old is not None and words(old):
            ratios[i] = len(words(new)) / len(words(old))
    return ratios


def kept(part: Part, condition: str, documents: Sequence[str]) -> dict[str, Any]:
    """What a condition retains of each score's gain over the empty text, with its interval over
    documents (None where the real texts have no gain that is off 0); the mean movement as a share
    of that to the empty text; and the share of texts that the condition changes at all."""
    texts = zip(part.texts["real"], part.texts[condition], strict=True)
    changed = sum(new is not None and new != old for old, new in texts)
    moves, scale = part.of("moved", condition), part.of("moved", "empty")
    known = ~np.isnan(moves)
    whole = float(scale[known].sum())
    found: dict[str, Any] = {
        "rows": int(known.sum()),
        "changed": changed / sum(text is not None for text in part.texts["real"]),
        "moved_share": float(moves[known].sum()) / whole if whole > 1e-9 else None,
    }
    names = [documents[int(i)] for i in np.flatnonzero(known)]
    for score in SCORES:
        empty = part.of(score, "empty")[known]
        gain, full = part.of(score, condition)[known] - empty, part.of(score, "real")[known] - empty
        found[score] = _ratio(gain, full, names)
    return found


def _ratio(gain: Values, full: Values, documents: Sequence[str]) -> dict[str, float] | None:
    if len(set(documents)) < 2 or estimate(full, documents).low <= 0:
        return None
    found = estimate(ratio_rows(gain, full), documents)
    return {"ratio": found.mean, "low": found.low, "high": found.high}


def _unsaid(retained: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = [
        f"{name} changes {found['changed']:.0%} of the texts: what it retains says little"
        for name, found in retained.items()
        if found["changed"] < 0.5
    ]
    if any(found["rows"] and found["centred_cosine"] is None for found in retained.values()):
        notes.append("where the real texts gain nothing over the empty one, nothing is retained")
    return notes
