"""Which of two explanations is better, asked blind and in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from nlakit.core.text.claims import fenced
from nlakit.evaluate.bench import Judge, Part
from nlakit.evaluate.judged.ask import SOURCE_CHARACTERS, Form

COMPARE = """\
Below are a text and two explanations, A and B, of what a reader has in mind at the end of the \
text. Which explanation is better: right about this text, specific to it, and about what matters \
in it? Length and style do not matter. Answer tie if neither is better. Give your reasons first, \
in a sentence or two.

{source}

Explanation A:
{first}

Explanation B:
{second}"""


class Preference(Form):
    reasons: str = Field(max_length=400)
    better: Literal["A", "B", "tie"]


def compare(
    sources: Sequence[str], first: Sequence[str], second: Sequence[str], judge: Judge
) -> Part:
    """`preference` `(n,)` between two texts a row: 1 for the first, −1 for the second, 0 for a tie;
    NaN where the judge failed. 0 is what a judge without an opinion gives.

    Each row is asked twice, with the texts swapped (MT-bench, Zheng et al. 2023): a verdict that
    does not survive the swap is a tie. Equal texts are a tie without being asked for.
    `consistent`, of the rows asked for: 1 if both answers agree, else 0.
    """
    n = len(sources)
    asked = [i for i in range(n) if first[i].strip() != second[i].strip()]
    shown = [
        [_question(sources[i], one[i], other[i]) for i in asked]
        for one, other in ((first, second), (second, first))
    ]
    answers = judge.ask(shown[0] + shown[1], Preference)
    pairs = list(zip(answers[: len(asked)], answers[len(asked) :], strict=True))
    preference, consistent = np.zeros(n), np.full(n, np.nan)
    preference[asked] = np.nan
    for i, (straight, swapped) in zip(asked, pairs, strict=True):
        if straight is None or swapped is None:
            continue
        votes = (_vote(straight), -_vote(swapped))
        consistent[i] = votes[0] == votes[1]
        preference[i] = votes[0] if votes[0] == votes[1] else 0
    part = Part("pairwise", texts={"first": list(first), "second": list(second)})
    part.add("first_over_second", {"preference": preference, "consistent": consistent})
    part.detail = {
        "rows": n,
        "equal_texts": n - len(asked),
        "failed": int(np.isnan(preference).sum()),
        "ties": int((preference == 0).sum()),
        "inconsistent": int((consistent == 0).sum()),
        "answered_A": sum(one is not None and one.better == "A" for pair in pairs for one in pair),
        "answers": sum(one is not None for pair in pairs for one in pair),
    }
    part.notes = notes(part.detail)
    return part


def notes(counts: dict[str, int]) -> list[str]:
    """What the counts of a comparison say."""
    said = [
        f"{counts['ties']} of {counts['rows']} rows are ties: {counts['equal_texts']} with equal "
        f"texts, {counts['inconsistent']} because the answer changed with the order",
        f"the text shown first was preferred in {counts['answered_A']} of {counts['answers']} "
        "answers",
    ]
    if counts["failed"]:
        said.append(f"the judge failed on {counts['failed']} rows; they are not scored")
    return said


def _question(source: str, first: str, second: str) -> str:
    return COMPARE.format(
        source=fenced(source[-SOURCE_CHARACTERS:], "source"),
        first=fenced(first, "explanation"),
        second=fenced(second, "explanation"),
    )


def _vote(answer: Preference) -> int:
    return {"A": 1, "B": -1, "tie": 0}[answer.better]
