"""Are the claims of an explanation true, as a language model judges, and do they carry anything?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import Field, create_model

from nlakit.core.text.claims import fenced, recurrence, without, without_run
from nlakit.evaluate.bench import Bench, Part, Values
from nlakit.evaluate.judged.ask import NO_JUDGE, Form, Judged, failures, padded, spread

MOST_CLAIMS = 8
LEVELS = ("theme", "entity", "detail")
Word = Literal["true", "false", "unverifiable"]

EXTRACT = """\
Below is an explanation that somebody wrote of a text. You do not see the text. List what the \
explanation claims about the text, at most {most} claims, each understandable alone and each said \
once. Leave out what is true of every text. For each claim give
- span: the words of the explanation that make the claim, copied exactly and without a gap;
- claim: the claim as one short sentence;
- specificity: theme (subject, genre or tone), entity (a person, place, thing or work), or \
detail (a quotation, number, event or relation).
If it claims nothing, the list is empty.

{explanation}"""
VERIFY = """\
Below are a text and {count} numbered claims about it. Judge each claim by the text alone:
- true: the text says or clearly implies it;
- false: the text contradicts it, or it names something as being in the text that is not there;
- unverifiable: the text cannot settle it, such as what comes after its end.
Give one verdict a claim, in their order.

{source}

{claims}"""


class Claim(Form):
    span: str = Field(max_length=600)
    claim: str = Field(min_length=1, max_length=300)
    specificity: Literal["theme", "entity", "detail"]


class Claims(Form):
    claims: list[Claim] = Field(max_length=MOST_CLAIMS)


class Verdicts(Form):
    verdicts: list[Word]


@cache
def verdicts_form(count: int) -> type[Verdicts]:
    """As many verdicts as there are claims: a list that is too short is no answer."""
    verdicts: Any = (list[Word], Field(min_length=count, max_length=count))
    return create_model("Verdicts", __base__=Verdicts, verdicts=verdicts)


def measure(bench: Bench) -> Part:
    """Claims of each explanation, each judged against the row's source.

    `claims`: how many; `claim_precision`: share judged true (FActScore, Min et al. 2023),
    `claim_precision_theme`, `_entity`, `_detail` among those; `fabricated`: how many judged false;
    `recurrence`: mean share of the other explanations that make the same claim; with an AR
    `delta_fve_true`, `delta_fve_false`: mean FVE lost by deleting a claim judged so.
    Conditions: `explanation`; its floor `other_row` (another document's claims against this
    source), for the deletions `random_span` (as many words from anywhere).
    """
    part = Part("claims")
    if bench.judge is None:
        part.notes.append(NO_JUDGE)
        return part
    judged = Judged.of(bench)
    part.notes += judged.notes
    said = extract(bench, judged.texts)
    part.notes += failures("explanation", "claims could not be extracted", judged.texts, said)
    verdicts = {}
    for condition, floor, about in (
        ("explanation", "other_row", said),
        ("other_row", None, judged.others(said)),
    ):
        found = verify(bench, judged.sources, about)
        verdicts[condition] = found
        part.add(condition, claim_scores(about, found, len(bench)), floor)
        part.notes += failures(condition, "verdicts failed", about, found)
    part.texts = {"explanation": list(judged.texts), "other_row": judged.others(judged.texts)}
    part.texts = {name: padded(texts, len(bench)) for name, texts in part.texts.items()}
    times = recurrences(said)
    others = max(sum(row is not None for row in said) - 1, 1)
    shares = [_mean([count / others for count in row]) for row in times]
    part.add("explanation", {"recurrence": spread(shares, len(bench))})
    deltas = deletions(bench, part, judged.texts, said, verdicts["explanation"])
    part.detail["claims"] = _listed(said, verdicts["explanation"], times, deltas)
    return part


def extract(bench: Bench, texts: Sequence[str | None]) -> list[list[Claim] | None]:
    """The claims of each text; none in an empty one, which is not asked for; None without a text,
    and where the judge failed."""
    assert bench.judge is not None, "the part checks that there is a judge"
    asked = {i: text for i, text in enumerate(texts) if text and text.strip()}
    prompts = [
        EXTRACT.format(most=MOST_CLAIMS, explanation=fenced(text, "explanation"))
        for text in asked.values()
    ]
    found: list[list[Claim] | None] = [None if text is None else [] for text in texts]
    for i, answer in zip(asked, bench.judge.ask(prompts, Claims), strict=True):
        found[i] = None if answer is None else answer.claims
    return found


def verify(
    bench: Bench, sources: Sequence[str], claims: Sequence[list[Claim] | None]
) -> list[list[Word] | None]:
    """A verdict a claim, by the row's source; None without claims to judge and where it failed."""
    assert bench.judge is not None, "the part checks that there is a judge"
    found: list[list[Word] | None] = [[] if said == [] else None for said in claims]
    for count in sorted({len(said) for said in claims if said}):
        asked = [i for i, said in enumerate(claims) if said is not None and len(said) == count]
        prompts = [_question(sources[i], claims[i] or []) for i in asked]
        answers = bench.judge.ask(prompts, verdicts_form(count))
        for i, answer in zip(asked, answers, strict=True):
            found[i] = None if answer is None else answer.verdicts
    return found


def _question(source: str, said: Sequence[Claim]) -> str:
    lines = "\n".join(f"{n}. {' '.join(one.claim.split())}" for n, one in enumerate(said, start=1))
    return VERIFY.format(
        count=len(said), source=fenced(source, "source"), claims=fenced(lines, "claims")
    )


def claim_scores(
    claims: Sequence[list[Claim] | None], verdicts: Sequence[list[Word] | None], n: int
) -> dict[str, Values]:
    """Measure → value a row `(n,)`; NaN where the judge failed, saw nothing, or, for a share,
    there is no claim."""
    rows = [
        None if said is None or words is None else list(zip(said, words, strict=True))
        for said, words in zip(claims, verdicts, strict=True)
    ]
    found = {
        "claims": [np.nan if row is None else len(row) for row in rows],
        "fabricated": [
            np.nan if row is None else sum(word == "false" for _, word in row) for row in rows
        ],
        "claim_precision": [_mean([word == "true" for _, word in row or []]) for row in rows],
    }
    for level in LEVELS:
        found[f"claim_precision_{level}"] = [
            _mean([word == "true" for one, word in row or [] if one.specificity == level])
            for row in rows
        ]
    return {name: spread(values, n) for name, values in found.items()}


def recurrences(claims: Sequence[list[Claim] | None]) -> list[list[int]]:
    """For each claim the number of other rows that make it too."""
    said = [[one.claim for one in row or []] for row in claims]
    return [
        [recurrence(claim, said[:i] + said[i + 1 :]) for claim in row] for i, row in enumerate(said)
    ]


def deletions(
    bench: Bench,
    part: Part,
    texts: Sequence[str | None],
    claims: Sequence[list[Claim] | None],
    verdicts: Sequence[list[Word] | None],
) -> list[list[float]]:
    """FVE that each claim's span carries: with it − without it, NaN where that is unknown. Adds
    the means a row to the part, beside those of random runs of as many words."""
    if bench.ar is None:
        part.notes.append("no AR: what the claims carry was not measured")
        return [[np.nan] * len(row or []) for row in claims]
    rng = np.random.default_rng([bench.seed, 21])
    whole = bench.score(texts)["fve"]
    lost = {name: np.full((len(bench), MOST_CLAIMS), np.nan) for name in ("explanation", "random")}
    missing = 0
    for place in range(MOST_CLAIMS):
        spans = [row[place].span if row and len(row) > place else None for row in claims]
        cut = [
            None if span is None or text is None else without(text, span)
            for text, span in zip(texts, spans, strict=True)
        ]
        missing += sum(s is not None and c is None for s, c in zip(spans, cut, strict=True))
        drawn = [
            None
            if made is None or span is None or text is None
            else without_run(text, len(span.split()), rng)
            for text, span, made in zip(texts, spans, cut, strict=True)
        ]
        for name, left in (("explanation", cut), ("random", drawn)):
            lost[name][:, place] = whole - bench.score(left)["fve"]
    if missing:
        part.notes.append(f"{missing} claims quote no span of their explanation: not deleted")
    for word in ("true", "false"):
        picked = [[verdict == word for verdict in row or []] for row in verdicts]
        for condition, name in (("explanation", "explanation"), ("random_span", "random")):
            means = [_mean(lost[name][i, : len(row)][row]) for i, row in enumerate(picked)]
            floor = "random_span" if condition == "explanation" else None
            part.add(condition, {f"delta_fve_{word}": spread(means, len(bench))}, floor)
    return [lost["explanation"][i, : len(row or [])].tolist() for i, row in enumerate(claims)]


def _mean(values: Any) -> float:
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else float("nan")


def _listed(
    claims: Sequence[list[Claim] | None],
    verdicts: Sequence[list[Word] | None],
    times: Sequence[list[int]],
    deltas: Sequence[list[float]],
) -> list[list[dict[str, Any]]]:
    """Everything about each claim, for the report."""
    return [
        [
            {
                **one.model_dump(),
                "verdict": words[k] if words else None,
                "recurs_in": times[i][k],
                "delta_fve": None if np.isnan(deltas[i][k]) else deltas[i][k],
            }
            for k, one in enumerate(said or [])
        ]
        for i, (said, words) in enumerate(zip(claims, verdicts, strict=True))
    ]
