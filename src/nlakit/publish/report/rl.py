"""Joint RL in the report: what it did to the pair, from before the first step to the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlakit.publish.report import figures
from nlakit.publish.report.numbers import num

Record = Mapping[str, Any]
Picture = tuple[Any, str, str]
BY = {
    "content": "the best under the frozen AR of those whose content has not fallen",
    "fve": "the best under the live AR",
    "last": "the last",
}
# Title → what is measured on held-out rows, with its legend, and what is said of it.
MEASURED = {
    "FVE": (
        {"fve": "live AR", "frozen_fve": "frozen AR"},
        "Zero is the mean of the training rows. The frozen AR is that from before RL: a gap that"
        " opens is what the live one has learnt, by reading better or by a code.",
    ),
    "Centred cosine": (
        {
            "centred": "live AR",
            "frozen_centred": "frozen AR",
            "empty_centred": "floor: empty text",
            "other_centred": "floor: other row",
        },
        "Under both ARs, beside the floors under the live one.",
    ),
    "Content": (
        {
            "shuffle_kept": "other order",
            "paraphrase_kept": "other words",
            "within_family": "own document",
            "unique": "unique",
            "claim_precision": "in the source",
        },
        "What must not fall while FVE rises: the share of the centred cosine that stays with the"
        " sentences in another order and in other words, texts that find their document in its"
        " family, different texts, and claims that the source has.",
    ),
}
# The same of the texts that are drawn, every step.
DRAWN = {
    "Entropy": ({"entropy": "entropy"}, "Nats a token. Zero: all texts of a vector are one."),
    "KL to the supervised AV": ({"kl": "KL"}, "Nats a token. Zero: the AV as it was."),
}
PAID = "Mean over the texts of a step: their sum, and its parts."


@dataclass(frozen=True)
class RLSection:
    """What RL did, ready to be shown. rows: a measure with its means before RL, at the kept step
    and at the last measurement."""

    steps: int
    kept: int
    by: str
    stopped: str | None
    rows: list[tuple[str, str, str, str]]
    pictures: list[Picture]


def rl_section(records: Sequence[Record], summary: Record, keep: str) -> RLSection:
    """From metrics.jsonl and training.json of RL, and the rule by which a pair was kept."""
    measured = [{"step": 0, **summary["start"]}, *(r for r in records if "frozen_fve" in r)]
    steps = max((int(record["step"]) for record in records), default=0)
    kept = steps if keep == "last" else int(summary["kept"][keep]["step"])
    shown = (measured[0], next((r for r in measured if r["step"] == kept), {}), measured[-1])
    rows = []
    for title, (names, _) in MEASURED.items():
        for key, name in names.items():
            before, then, last = (num(record.get(key)) for record in shown)
            rows.append((f"{title}, {name}", before, then, last))
    parts = [key for one in records[:1] for key in one if key.startswith("reward_")]
    paid = {key: key.removeprefix("reward_") for key in parts if key != "reward_spread"}
    pictures = [
        *(_picture(title, *one, measured, kept) for title, one in MEASURED.items()),
        *(_picture(title, *one, records, kept) for title, one in DRAWN.items()),
        _picture("Reward", paid, PAID, records, kept),
    ]
    return RLSection(steps, kept, BY[keep], _stopped(summary, steps), rows, pictures)


def _stopped(summary: Record, steps: int) -> str | None:
    brake = summary.get("stopped")
    if not brake:
        return None
    return f"{brake['name']}, after {steps} steps: {brake['says']} ({brake['evidence']})"


def _picture(
    title: str, names: Mapping[str, str], said: str, records: Sequence[Record], kept: int
) -> Picture:
    """Measurements are points; what every step has is drawn as a running mean."""
    points = "frozen_fve" in records[0] if records else False
    lines = {name: figures.series(records, key) for key, name in names.items()}
    if not points:
        lines = {name: figures.running_mean(*line) for name, line in lines.items() if line[0]}
    return figures.curves(title, lines, kept, points=points), title, said
