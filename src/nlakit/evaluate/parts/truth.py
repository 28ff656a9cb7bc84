"""Is what an explanation says in the text that was read? Quotes, numbers, names and words, looked
up by rule: no model and no service."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlakit.core.statistics import derangement
from nlakit.core.text.claims import KINDS, STRONG, Claim, Source, check
from nlakit.evaluate.bench import Bench, Part, Values
from nlakit.evaluate.conditions import of_partners

Checked = list[tuple[Claim, bool]]


def measure(bench: Bench) -> Part:
    """`quote_precision`, `number_precision`, `name_precision`, `word_precision`: share of a text's
    claims of a kind that its source has, NaN without one. `fabricated`: how many quotes, numbers
    and names it lacks; 0 without any.

    Conditions: `explanation`, with the explanation of another document's row as floor; `label`,
    with that row's label. Claim precision as in FActScore (Min et al. 2023), by lookup.
    """
    part = Part("truth")
    sources = [None if text is None else Source(text) for text in bench.rows.known_sources]
    if missing := sum(source is None for source in sources):
        part.notes.append(f"{missing} of {len(bench)} rows have no source: nothing is looked up")
    if missing == len(bench):
        return part
    partners = derangement(bench.documents, bench.seed)
    for condition, floor, texts in (
        ("explanation", "other_row", list(bench.texts)),
        ("label", "label_other_row", bench.rows.known_texts),
    ):
        if not any(texts):
            continue
        other = of_partners(texts, partners)
        part.texts[condition], part.texts[floor] = [*texts], other
        for name, said in ((condition, texts), (floor, other)):
            checked = [
                None if text is None or source is None else check(text, source)
                for text, source in zip(said, sources, strict=True)
            ]
            part.add(name, scores(checked), floor if name == condition else None)
            if name == condition:
                part.notes += without_claims(name, checked)
            if name == "explanation":
                part.detail["claims"] = [listed(one or []) for one in checked]
    if (partners < 0).any():
        part.notes.append(
            f"{int((partners < 0).sum())} of {len(bench)} rows have no row of another document, "
            "and so no floor"
        )
    return part


def scores(checked: Sequence[Checked | None]) -> dict[str, Values]:
    """Measure → value a row `(n,)`; NaN where there is no text."""
    found: dict[str, Values] = {}
    for kind in KINDS:
        found[f"{kind}_precision"] = np.array([_precision(one or [], kind) for one in checked])
    found["fabricated"] = np.array(
        [
            np.nan
            if one is None
            else float(sum(not held for claim, held in one if claim.kind in STRONG))
            for one in checked
        ]
    )
    return found


def _precision(checked: Checked, kind: str) -> float:
    held = [found for claim, found in checked if claim.kind == kind]
    return sum(held) / len(held) if held else float("nan")


def without_claims(condition: str, checked: Sequence[Checked | None]) -> list[str]:
    """A note for each kind of which some rows have no claim."""
    known = [one for one in checked if one is not None]
    counts = {
        kind: sum(all(claim.kind != kind for claim, _ in one) for one in known) for kind in KINDS
    }
    return [
        f"{condition}: {count} of {len(known)} texts have no {kind} to look up, and so no "
        f"{kind}_precision"
        for kind, count in counts.items()
        if count
    ]


def listed(checked: Checked) -> list[dict[str, str | bool]]:
    """The quotes, numbers and names of one text, for the report."""
    return [
        {"kind": claim.kind, "text": claim.text, "found": held}
        for claim, held in checked
        if claim.kind in STRONG
    ]
