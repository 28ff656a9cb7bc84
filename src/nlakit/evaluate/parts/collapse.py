"""Are the texts all alike? Copies, openings, loops, scripts, cuts, beside the labels'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlakit.core.prompts import encode
from nlakit.core.text.claims import claims
from nlakit.core.text.lists import repeated_items
from nlakit.core.text.stats import SAMPLE, cut_length, distinct_2, openings, scripts_of, text_rows
from nlakit.evaluate.bench import Bench, Part, Values
from nlakit.models.verbalizer import Verbalizer


def measure(bench: Bench) -> Part:
    """The part `collapse`: the measures of `text_rows`, `repeated_items` of lists, `content_words`
    (how many different ones of five letters or more, no stop words), and `hit_token_limit` with an
    AV, under `explanation` beside its reference `label`, which had the same sources to say.

    A script is wrong if neither the sources nor the labels use it.
    """
    rows, part = bench.rows, Part("collapse")
    scripts = scripts_of([*rows.sources, *rows.texts])
    conditions = {"explanation": bench.texts}
    if any(text.strip() for text in rows.texts):
        conditions["label"] = rows.texts
    else:
        part.notes.append("no labels: the explanations stand without a reference")
    if bench.av is None:
        part.notes.append("hit_token_limit not measured: it needs the verbalizer's tokenizer")
    for condition, texts in conditions.items():
        found = text_rows(texts, scripts, bench.seed)
        found["repeated_items"] = np.array([repeated_items(text) for text in texts])
        found["content_words"] = np.array([content_words(text) for text in texts])
        if bench.av is not None:
            found["hit_token_limit"] = at_limit(bench.av, texts)
        reference = condition == "explanation" and "label" in conditions
        part.add(condition, found, "label" if reference else None)
        part.detail[condition] = {"openings": openings(texts), "distinct_2": distinct_2(texts)}
        if length := cut_length(texts):
            part.notes.append(
                f"{condition}: {int(found['cut'].sum())} of {len(texts)} texts stop unfinished at "
                f"exactly {length} characters: they were cut before they came here, and "
                "copies and openings are miscounted"
            )
    part.detail["scripts"] = sorted(scripts)
    if len(bench) > SAMPLE:
        part.notes.append(f"self_bleu and distinct_2: over {SAMPLE} random texts with words")
    return part


def content_words(text: str) -> float:
    return float(sum(claim.kind == "word" for claim in claims(text)))


def at_limit(av: Verbalizer, texts: Sequence[str]) -> Values:
    """1 where a text leaves no room for its closing tag within the AV's limit of new tokens:
    `(n,)`. For an explanation: it was cut there; for a label: the AV could not have written it."""
    record = av.contract.nlakit
    room = record.max_new_tokens - max(len(av.close), 1)
    lengths = [
        len(encode(av.tokenizer, record.av_open + text, special=False)) if text.strip() else 0
        for text in texts
    ]
    return (np.array(lengths) > room).astype(np.float64)
