"""What a model card shows of an evaluation, as records for its template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nlakit.publish.evaluation import Evaluation, read_evaluation
from nlakit.publish.report.numbers import finite, percent

CORRECTIONS = "corrections"
# Measure of the part `collapse`, a share of rows → what it says.
FAILURES = {
    "empty": "empty",
    "hit_token_limit": "stopped by the token limit",
    "cut": "cut at one length when they were stored",
    "loop": "with a loop",
    "duplicate": "the same as another row's",
    "other_script": "over a fifth in another script",
}
EXAMPLES, SHOWN = 4, 300  # rows, and characters of a source
ZERO = "zero"


@dataclass(frozen=True)
class Headline:
    """A finding that the card leads with; `floor` where the finding names none: a condition, or
    zero where that is what reading nothing gives."""

    title: str
    part: str
    measure: str
    condition: str
    floor: str | None = None


HEADLINES = (
    Headline("FVE", "roundtrip", "fve", "real"),
    Headline("Centred cosine", "roundtrip", "centred_cosine", "real"),
    Headline("Cosine", "roundtrip", "cosine", "real"),
    Headline("Right vector first", "roundtrip", "top1", "real", "other_row"),
    Headline("Centred cosine, over the nearest training vector's label", "baselines",
             "centred_cosine", "real"),
    Headline("AV: loss of another row's vector over the right one's, nats a token", "av_reading",
             "gap", "labels", ZERO),
    Headline("Own document first, by words", "retrieval", "top1", "tfidf:explanation"),
    Headline("Own document's percentile in its family, by words", "retrieval",
             "within_family_percentile", "tfidf:explanation"),
    Headline("Stated names found in the source", "truth", "name_precision", "explanation"),
    Headline("Words that recur in samples and neighbours: AUROC for standing in the source",
             "recurrence", "auc", "both"),
)  # fmt: skip


def headlines(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The findings that the card leads with, with title and the floor's own finding."""
    found = []
    for one in HEADLINES:
        record = evaluation.finding(one.part, one.measure, one.condition)
        if record is None:
            continue
        floor = record["floor"] or one.floor
        below = evaluation.finding(one.part, one.measure, floor) if floor else None
        found.append({**record, "title": one.title, "floor": floor, "below": below})
    return found


def failures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """What failed over all attempted rows: its name, the explanations' share and the labels'."""
    texts = evaluation.results["texts"]
    found = []
    for measure, title in FAILURES.items():
        own, label = (
            evaluation.finding("collapse", measure, condition)
            for condition in ("explanation", "label")
        )
        share = texts.get(f"{measure}_share")
        shown = f"{percent(own['mean'])} {_shares(own)}" if own else percent(share)
        found.append((title, shown, percent(label["mean"]) if label else "–"))
    return found


def _shares(found: Mapping[str, Any]) -> str:
    """The interval of a share, as percentages."""
    low, high = found["low"], found["high"]
    return f"[{percent(low)}, {percent(high)}]" if finite(low) and finite(high) else "no interval"


def parts(evaluation: Evaluation) -> list[tuple[str, list[dict[str, Any]], list[str]]]:
    """Part, its findings over all rows, and its notes."""
    notes = {name: part["notes"] for name, part in evaluation.results.get("parts", {}).items()}
    names = dict.fromkeys([one["part"] for one in evaluation.findings] + list(notes))
    return [
        (
            name,
            [
                one
                for one in evaluation.findings
                if one["part"] == name and one["group"] == "all" and one["mean"] is not None
            ],
            notes.get(name, []),
        )
        for name in names
    ]


def examples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows drawn at random by the evaluation's seed, in the order drawn; long sources cut ahead."""
    rows = evaluation.table.to_pylist()
    rng = np.random.default_rng([int(evaluation.results["settings"]["seed"]), 41])
    picked = rng.choice(len(rows), size=min(EXAMPLES, len(rows)), replace=False)
    scores = {one["row_id"]: one for one in evaluation.results.get("examples", ())}
    return [
        {
            **rows[i],
            "source": rows[i]["source"][-SHOWN:],
            "cut": max(0, len(rows[i]["source"]) - SHOWN),
            "scores": scores.get(rows[i]["row_id"], {}),
        }
        for i in picked.tolist()
    ]


def corrections(folder: Path, old: Evaluation) -> list[dict[str, Any]]:
    """Dated entries: each headline number of the card that a later evaluation overturns."""
    made = []
    for place in sorted((folder / CORRECTIONS).glob("*")):
        new = read_evaluation(place)
        made.append(
            {
                "name": place.name,
                "date": new.day,
                "rows": new.results["rows"],
                "commit": new.results["provenance"].get("git_commit"),
                "verdicts": (old.results["verdict"]["word"], new.results["verdict"]["word"]),
                "overturned": overturned(old, new),
            }
        )
    return made


def overturned(old: Evaluation, new: Evaluation) -> list[dict[str, Any]]:
    """Headline numbers of the old evaluation that lie outside the new one's interval."""
    found = []
    for before in headlines(old):
        after = new.finding(before["part"], before["measure"], before["condition"])
        if after and not after["low"] <= before["mean"] <= after["high"]:
            found.append({"title": before["title"], "before": before, "after": after})
    return found
