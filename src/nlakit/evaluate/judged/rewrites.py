"""Does the AR read meaning or wording? Explanations rewritten by a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nlakit.core.text.claims import fenced
from nlakit.evaluate.bench import Bench, Judge, Part, Values
from nlakit.evaluate.judged.ask import NO_JUDGE, Form, failures, padded
from nlakit.evaluate.parts.ar_reading import length_ratios, read

Embed = Callable[[Sequence[str]], NDArray[Any]]
LENGTH = (0.5, 2.0)  # words of the rewrite by words of the original
MIN_SIMILARITY = 0.6
ABROAD = "German"

KEEP = "Keep every fact, name, number and quotation, and add none."
PROMPTS = {
    "light_paraphrase": "Reword the text below lightly: change about a third of the words to "
    f"synonyms and leave the order of the sentences as it is. {KEEP}",
    "aggressive_paraphrase": "Say what the text below says in entirely different words and with "
    f"other sentence structures; reuse as few of its words as you can. {KEEP}",
    "coherence": "Rewrite the text below as one fluent, coherent paragraph, as an editor would: "
    "repair what is broken or listed, and drop what does not fit.",
    "summary": "Sum up the text below in one short sentence of at most fifteen words.",
}
THERE = f"Translate the text below into {ABROAD}. {KEEP}"
BACK = f"Translate the text below into English. {KEEP}"
ANSWER = "Put the new text alone, without comment, into the field `text`."


class Rewrite(Form):
    """A text written anew."""

    text: str = Field(min_length=1)


def measure(bench: Bench) -> Part:
    """The part `rewrites`, on the first `judge_rows` rows. Needs an AR and a judge."""
    if bench.ar is None or bench.judge is None:
        missing = NO_JUDGE if bench.judge is None else "no AR: what it makes of rewrites is unknown"
        return Part("rewrites", notes=[missing])
    from nlakit.evaluate.embedding import embedder

    return rewritten(bench, bench.judge, embedder(bench.settings.embedding))


def rewritten(bench: Bench, judge: Judge, embed: Embed | None) -> Part:
    """`fve` and `centred_cosine` of each rewrite beside the empty text, with what `ar_reading`
    measures of a changed text, and its `similarity` to the original by `embed`.

    Only faithful rewrites are scored: words by words of the original in [0.5, 2], and a cosine of
    the embeddings of at least 0.6, where there is an embedding. The summary may be as short as it
    likes. An empty text is its own rewrite.
    """
    texts = bench.texts[: bench.settings.judge_rows]
    part = Part("rewrites", notes=[f"the judge rewrote {len(texts)} of {len(bench)} rows"])
    if embed is None:
        part.notes.append("no sentence embedding: rewrites are gated on their length alone")
    made = {name: ask(judge, prompt, texts) for name, prompt in PROMPTS.items()}
    abroad = ask(judge, THERE, texts)
    made["back_translation"] = ask(judge, BACK, abroad)
    inputs: dict[str, list[str | None]] = {"real": padded(texts, len(bench))}
    similarity = {}
    for name, found in made.items():
        part.notes += failures(name, "rewriting failed", texts, found)
        near = similarities(embed, texts, found) if embed else None
        passed = faithful(length_ratios(texts, found, len(texts)), near, name != "summary")
        kept = [text if ok else None for text, ok in zip(found, passed, strict=True)]
        part.notes += failures(name, "the rewrite is not faithful", found, kept)
        inputs[name] = padded(kept, len(bench))
        if near is not None:
            similarity[name] = np.append(near, np.full(len(bench) - len(texts), np.nan))
    inputs["empty"] = padded([""] * len(texts), len(bench))
    read(bench, part, inputs)
    for name, near in similarity.items():
        part.add(name, {"similarity": near})
    # Whole and whether scored or not, so that the gate can be checked by eye.
    part.texts |= {name: padded(found, len(bench)) for name, found in made.items()}
    part.texts["abroad"] = padded(abroad, len(bench))
    return part


def ask(judge: Judge, prompt: str, texts: Sequence[str | None]) -> list[str | None]:
    """A rewrite a text; None without a text and where the judge failed. An empty text stays."""
    found = list(texts)
    asked = [i for i, text in enumerate(texts) if text and text.strip()]
    prompts = [f"{prompt} {ANSWER}\n\n{fenced(texts[i] or '', 'explanation')}" for i in asked]
    answers = judge.ask(prompts, Rewrite) if prompts else []
    for i, answer in zip(asked, answers, strict=True):
        found[i] = answer.text.strip() if answer and answer.text.strip() else None
    return found


def similarities(embed: Embed, before: Sequence[str], after: Sequence[str | None]) -> Values:
    """Cosine of the embeddings of each text and its rewrite `(n,)`; NaN without one."""
    near = np.full(len(before), np.nan)
    known = [i for i, text in enumerate(after) if text]
    if known:
        left = np.asarray(embed([before[i] for i in known]), dtype=np.float64)
        right = np.asarray(embed([after[i] or "" for i in known]), dtype=np.float64)
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        near[known] = np.sum(left * right, axis=1) / np.maximum(norms, 1e-12)
    return near


def faithful(ratios: Values, near: Values | None, as_long: bool) -> NDArray[np.bool_]:
    """Which rewrites are kept `(n,)`; what could not be measured, of an empty text, passes."""
    low = LENGTH[0] if as_long else 0.0
    passed = np.isnan(ratios) | ((ratios >= low) & (ratios <= LENGTH[1]))
    return passed if near is None else passed & (np.isnan(near) | (near >= MIN_SIMILARITY))
