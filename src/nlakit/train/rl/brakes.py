"""When to stop: signs that a pair deceives its reward, each under its own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlakit.config.rl import BrakesConfig
from nlakit.train.rl.instruments import CONTENT, Change

WINDOW = 10  # steps over which the drawn texts are judged
FEW = 8  # documents; fewer may all change alike by chance, and their interval then has no width

SAID = {
    "shuffle_kept": "its sentences in another order are read worse: the order carries a code",
    "paraphrase_kept": "other words for the same are read worse: the wording carries a code",
    "within_family": "its words find their own document less often",
    "unique": "its greedy texts become alike",
    "claim_precision": "less of what it says is in the source",
}


@dataclass(frozen=True)
class Brake:
    """Why RL is stopped: a short name, a sentence, and the figures that show it."""

    name: str
    says: str
    evidence: str


def drawn_texts(records: Sequence[Mapping[str, Any]], limits: BrakesConfig) -> Brake | None:
    """What the last ten steps show of the drawn texts, beside the first: the AV as it was."""
    known = [record for record in records if not record["skipped"]]
    if len(known) < WINDOW:
        return None
    recent = {name: _mean(known[-WINDOW:], name) for name in ("entropy", "truncated")}
    start = known[0]["entropy"]
    at_first = known[0]["truncated"]
    if recent["truncated"] > limits.truncated:
        return Brake(
            "length",
            "texts fail or run to the limit instead of ending",
            f"{recent['truncated']:.0%} of the texts of the last {WINDOW} steps, at first "
            f"{at_first:.0%}",
        )
    evidence = f"{recent['entropy']:.2f} nats a token over the last {WINDOW} steps, at first "
    evidence += f"{start:.2f}"
    if recent["entropy"] > limits.entropy_high * start:
        return Brake("entropy up", "texts dissolve into chance", evidence)
    if recent["entropy"] < limits.entropy_low * start:
        return Brake("entropy down", "texts of a vector become one", evidence)
    return None


def _mean(records: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([record[name] for record in records]))


def held_out(changes: Mapping[str, Change | None], limits: BrakesConfig) -> Brake | None:
    """What a measurement on held-out documents shows beside that before the first step, by
    intervals for all measurements of the run together."""
    unique = changes["unique"]
    if unique and unique.now < limits.unique * unique.start:
        return Brake("alike", SAID["unique"], _told("unique", unique))
    live, frozen = changes["fve"], changes["frozen_fve"]
    if live and frozen and live.mean > 0 and _surely(frozen):
        return Brake(
            "private code",
            "the live AR reads more and the frozen AR less: they agree on a code",
            f"{_told('fve', live)}; {_told('frozen_fve', frozen)}",
        )
    for name in CONTENT:
        found = changes[name]
        if found and _surely(found) and found.mean < -limits.fall * abs(found.start):
            return Brake(name.replace("_", " "), SAID[name], _told(name, found))
    return None


def fallen(changes: Mapping[str, Change | None]) -> list[str]:
    """Content measures whose fall since the start has an interval below 0: the rule by which a
    checkpoint is not kept."""
    return [name for name in CONTENT if (found := changes[name]) is not None and found.high < 0]


def _surely(found: Change) -> bool:
    return found.documents >= FEW and found.high < 0


def _told(name: str, found: Change) -> str:
    return (
        f"{name} {found.start:.3f} -> {found.now:.3f} "
        f"({found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}])"
    )
