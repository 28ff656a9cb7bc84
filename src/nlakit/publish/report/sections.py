"""Findings as sections of the report: one a part, each finding beside its floor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlakit.files.text import as_json
from nlakit.publish.report import figures
from nlakit.publish.report.numbers import finite, num
from nlakit.publish.report.parts import (
    FOLDED,
    LAYER,
    MEASURES,
    OTHER_ROW,
    PARTS,
    PREFIX,
    SCALE,
    condition_words,
    measure_words,
    part_words,
)

Finding = Mapping[str, Any]
Picture = tuple[Any, str, str]
Words = Mapping[str, Sequence[tuple[str, Any]]]
GROUPS = {
    "all": "",
    "family": "family",
    "position": "position in the document",
    "norm": "norm of the activation",
}
# For all rows together, these stand in the first table of the page.
ABOVE = {*MEASURES, "top1", "top5", "mrr"}
# What has a place of its own, here or elsewhere on the page.
PLACED = {"words", "retained", "controls", "card", "claims"}
LEVELS = 5
MOST_DETAIL = 8000


@dataclass(frozen=True)
class Line:
    """One finding. floor: that of the condition it is measured against, over the same group."""

    title: str
    meaning: str
    found: Finding
    floor_title: str | None
    floor: Finding | None


@dataclass(frozen=True)
class Block:
    """One measure under every condition, or of every group of a kind."""

    title: str
    meaning: str
    lines: list[Line]


@dataclass(frozen=True)
class Section:
    """One part of the evaluation, ready to be shown."""

    name: str
    short: str
    title: str
    question: str
    blocks: list[Block]
    folded: list[Block]
    retained: list[tuple[str, dict[str, Any]]]
    words: list[dict[str, Any]]
    notes: list[str]
    detail: str
    pictures: list[Picture]


def sections(
    findings: Iterable[Finding], parts: Mapping[str, Mapping[str, Any]], shown: int
) -> list[Section]:
    """A section a part that has findings or notes: known parts in their order, then the others.

    shown: rows whose words are shown.
    """
    found: dict[str, list[Finding]] = {name: [] for name in (*PARTS, *parts)}
    for one in findings:
        found.setdefault(one["part"], []).append(one)
    return [
        section(name, own, parts.get(name, {}), shown)
        for name, own in found.items()
        if own or any(parts.get(name, {}).values())
    ]


def section(name: str, own: Sequence[Finding], said: Mapping[str, Any], shown: int) -> Section:
    detail = said.get("detail") or {}
    words = words_of(detail)
    other = {key: value for key, value in detail.items() if key not in PLACED}
    open_blocks, folded = blocks(name, own)
    return Section(
        name,
        *part_words(name),
        open_blocks,
        folded,
        [(condition_words(key)[0], one) for key, one in detail.get("retained", {}).items()],
        coloured(words, shown),
        list(said.get("notes") or []),
        dumped(other) if other else "",
        [one for one in (*ladders(own), *by_group(name, own)) if one[0]],
    )


def blocks(part: str, own: Sequence[Finding]) -> tuple[list[Block], list[Block]]:
    """Measures that are shown, and those that are folded away."""
    gathered: dict[tuple[str, str], list[Finding]] = {}
    for kind in GROUPS:
        for one in own:
            if (part, kind) == ("roundtrip", "all") and one["measure"] in ABOVE:
                continue
            if one["group"].partition("=")[0] == kind:
                gathered.setdefault((one["measure"], kind), []).append(one)
    places = {(one["measure"], one["condition"], one["group"]): one for one in own}
    split: tuple[list[Block], list[Block]] = [], []
    for (measure, kind), members in gathered.items():
        title, meaning = measure_words(measure)
        of = f" by {GROUPS[kind]}" if GROUPS[kind] else ""
        hidden = FOLDED.fullmatch(measure) or (of and measure != "centred_cosine")
        # A floor of one condition only stands in that condition's line.
        beside = {one["floor"] for one in members if str(one["floor"]).endswith(OTHER_ROW)}
        lines = [line(one, places) for one in members if one["condition"] not in beside]
        split[bool(hidden)].append(Block(title + of, meaning, lines))
    return split


def line(one: Finding, places: Mapping[tuple[str, str, str], Finding]) -> Line:
    group = one["group"].partition("=")[2]
    title, meaning = (group, "") if group else condition_words(one["condition"])
    floor = one["floor"]
    return Line(
        title,
        meaning,
        one,
        floor_words(one["condition"], floor) if floor else None,
        places.get((one["measure"], floor, one["group"])) if floor else None,
    )


def floor_words(condition: str, floor: str) -> str:
    """A floor's name; short where it is the same condition on another row."""
    same = floor == f"{condition}{OTHER_ROW}"
    return "the same of another row" if same else condition_words(floor)[0]


def dumped(detail: Mapping[str, Any]) -> str:
    """As indented JSON; a text that is cut says so."""
    text = as_json(detail, indent=1)
    if len(text) <= MOST_DETAIL:
        return text
    said = f"the first {MOST_DETAIL} of {len(text)} characters; all of them are in results.json"
    return f"{text[:MOST_DETAIL]}\n… ({said})"


def words_of(detail: Mapping[str, Any]) -> Words:
    """Row id → words with their Δ, from a mapping or from a list of records."""
    kept = detail.get("words") or {}
    if isinstance(kept, Mapping):
        return {str(row): words for row, words in kept.items()}
    return {str(one["row_id"]): one["words"] for one in kept}


def word_scale(words: Words) -> float:
    """The |Δ| that has the strongest colour: the 95th percentile, so that one word of one row
    does not make all others pale."""
    sizes = [abs(delta) for row in words.values() for _, delta in row if finite(delta)]
    return float(np.quantile(sizes, 0.95)) if sizes else 0.0


def coloured(words: Words, count: int) -> list[dict[str, Any]]:
    """Rows with a level from −5 to 5 a word, and their three strongest words in words."""
    scale = word_scale(words)
    rows = []
    for row_id, row in list(words.items())[:count]:
        known = [(word, float(delta)) for word, delta in row if finite(delta)]
        strongest = [one for one in sorted(known, key=lambda one: -one[1])[:3] if one[1] > 0]
        rows.append(
            {
                "row_id": row_id,
                "words": [(word, level(delta, scale), delta) for word, delta in row],
                "strongest": ", ".join(f"{word} {num(d, 3, True)}" for word, d in strongest),
            }
        )
    return rows


def level(delta: Any, scale: float) -> int:
    """Whole steps of colour, −5 to 5; 0 where there is no number."""
    if not finite(delta) or not scale:
        return 0
    return int(np.clip(LEVELS * delta / scale, -LEVELS, LEVELS))


def looked_up(parts: Mapping[str, Any], row_ids: Sequence[str]) -> dict[str, list[list[str]]]:
    """Row id → claim and what was found of it, by rule and by a judge, for the rows that have
    any."""
    found: dict[str, list[list[str]]] = {}
    for part in ("truth", "claims"):
        rows = ((parts.get(part) or {}).get("detail") or {}).get("claims") or []
        for row_id, said in zip(row_ids, rows, strict=False):  # a judge sees the first rows only
            found.setdefault(row_id, []).extend(claim(one) for one in said)
    return {row_id: said for row_id, said in found.items() if said}


def claim(one: Mapping[str, Any]) -> list[str]:
    """What is claimed, and what was found of it."""
    if "found" in one:
        state = "found in the source" if one["found"] else "not in the source"
        return [f"{one['kind']}: {one['text']}", state]
    loss = num(one.get("delta_fve"), 3, signed=True)
    return [str(one["claim"]), f"judged {one['verdict'] or 'by nobody'}, ΔFVE {loss}"]


def ladders(own: Sequence[Finding]) -> list[Picture]:
    """Score against the length of the text, the norm of the injected vector and its layer: a panel
    a measure, and a panel a group where there are groups."""
    kinds = [
        (PREFIX, "real", "tokens of the explanation", "Score by length read", "{}",
         "How much of the score the first tokens of an explanation reach. A line that is flat from"
         " the start means that an opening says it all."),
        (SCALE, None, "norm of the vector", "Score by norm of the vector", "×{}",
         "What the explanations reach when the vector is made shorter or longer."),
        (LAYER, None, "layer", "Score by layer read", "{}",
         "What the explanations reach of the layer's own vectors when the pair is given another"
         " layer than its own."),
    ]  # fmt: skip
    pictures = []
    for pattern, whole, axis, title, step, text in kinds:
        panels = []
        for measure in ("fve", "centred_cosine"):
            for group in dict.fromkeys(one["group"] for one in own):
                members = [o for o in own if (o["measure"], o["group"]) == (measure, group)]
                steps = sorted(
                    (float(found[1]), step.format(found[1]), one)
                    for one in members
                    if (found := pattern.fullmatch(one["condition"]))
                )
                if len(steps) < 2:
                    continue
                at = {one["condition"]: one for one in members}
                entries = [(label, one) for _, label, one in steps]
                entries += [("all", at[whole])] if whole in at else []
                floors = [at.get(one["floor"]) for _, one in entries]
                name = MEASURES[measure] + ("" if group == "all" else f", {group}")
                panels.append((name, entries, floors))
        said = f"{text} Bars: 95% intervals; dashed: the floor."
        pictures.append((figures.multiples(title, panels, axis), title, said))
    return pictures


def by_group(part: str, own: Sequence[Finding]) -> list[Picture]:
    """Centred cosine of the round trip by family, position and norm."""
    pictures = []
    for kind, title in list(GROUPS.items())[1:] if part == "roundtrip" else []:
        entries = [
            (one["group"].partition("=")[2], one, figures.BLUE)
            for one in own
            if one["measure"] == "centred_cosine" and one["group"].startswith(f"{kind}=")
        ]
        svg = figures.bars(f"centred cosine by {kind}", entries)
        said = "Mean and 95% interval over documents. The table has the gain over the best floor."
        pictures.append((svg, f"By {title}", said))
    return pictures
