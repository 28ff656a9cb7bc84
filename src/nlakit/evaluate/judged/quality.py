"""Are explanations any good, as a language model rates them beside their sources?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from nlakit.core.text.claims import fenced
from nlakit.evaluate.bench import Bench, Part
from nlakit.evaluate.judged.ask import NO_JUDGE, Form, Judged, failures, padded, spread

RATE = """\
Below are a text and an explanation that somebody wrote of what a reader has in mind at the end of \
the text. Rate the explanation, each from 1 (not at all) to 5 (fully):
- validity: what it says of the text is right;
- specificity: it fits this text and few others;
- relatedness: it is about what this text is about.
Give your reasons first, in a sentence or two.

{source}

{explanation}"""


Rating = Annotated[int, Field(ge=1, le=5)]


class Quality(Form):
    reasons: str = Field(max_length=400)
    validity: Rating
    specificity: Rating
    relatedness: Rating

    @property
    def product(self) -> float:
        """Of the three, from 0 to 1."""
        return (self.validity * self.specificity * self.relatedness - 1) / 124


def measure(bench: Bench) -> Part:
    """`validity`, `specificity`, `relatedness`, each 1 to 5, and `quality`: their product from 0
    to 1. Conditions: `explanation`, `label`, and `other_row`, the floor of the first.

    An empty text has 1, 1, 1 without being asked for.
    """
    part = Part("quality")
    if bench.judge is None:
        part.notes.append(NO_JUDGE)
        return part
    judged = Judged.of(bench)
    part.notes += judged.notes
    known = zip(bench.rows.known_texts, judged.sources, strict=False)  # the judge sees the first
    labels = [label if source else None for label, source in known]
    for condition, texts in (
        ("explanation", list(judged.texts)),
        ("other_row", judged.others(judged.texts)),
        ("label", labels),
        ("label_other_row", judged.others(labels)),
    ):
        found = rate(bench, judged.sources, texts)
        scores = {
            name: spread([getattr(one, name) if one else np.nan for one in found], len(bench))
            for name in ("validity", "specificity", "relatedness")
        }
        scores["quality"] = spread([one.product if one else np.nan for one in found], len(bench))
        floors = {"explanation": "other_row", "label": "label_other_row"}
        part.add(condition, scores, floors.get(condition))
        part.texts[condition] = padded(texts, len(bench))
        part.notes += failures(condition, "ratings failed", texts, found)
        part.detail[condition] = [one.model_dump() if one else None for one in found]
    return part


def rate(bench: Bench, sources: Sequence[str], texts: Sequence[str | None]) -> list[Quality | None]:
    """A rating a text; None without a text and where the judge failed."""
    assert bench.judge is not None, "the part checks that there is a judge"
    empty = Quality(reasons="empty", validity=1, specificity=1, relatedness=1)
    found: list[Quality | None] = [None if text is None else empty for text in texts]
    asked = [i for i, text in enumerate(texts) if text and text.strip()]
    prompts = [
        RATE.format(
            source=fenced(sources[i], "source"), explanation=fenced(texts[i] or "", "explanation")
        )
        for i in asked
    ]
    for i, answer in zip(asked, bench.judge.ask(prompts, Quality), strict=True):
        found[i] = answer
    return found
