"""The verdict: one word by a fixed rule, always with its evidence.

The thresholds are those of the design: a change needs a reason in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nlakit.core.statistics import Estimate, estimate, paired_difference, sign_flip_p
from nlakit.core.text.stats import collapse_summary
from nlakit.errors import DataError
from nlakit.evaluate.conditions import FLOORS

Word = Literal["collapsed", "content-blind", "weak", "content-sensitive"]
MIN_UNIQUE, MAX_OPENING, MAX_EMPTY = 0.50, 0.50, 0.20
BLIND_GAIN, SENSITIVE_GAIN = 0.05, 0.10


@dataclass(frozen=True)
class Verdict:
    """The word, the reasons in the order they were checked, and the figures behind them."""

    word: Word
    reasons: list[str]
    evidence: dict[str, Any]


def best_floor(centred: Mapping[str, NDArray[Any]]) -> str:
    """The floor with the highest mean centred cosine."""
    known = [name for name in FLOORS if name in centred]
    if not known:
        raise DataError("no floor was scored", do="a score without its floor is not reported")
    return max(known, key=lambda name: float(np.mean(centred[name])))


def judge(
    texts: Sequence[str],
    centred: Mapping[str, NDArray[Any]],
    fve_real: NDArray[Any],
    documents: Sequence[str],
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Judge a pair on held-out rows.

    centred: condition → centred cosine a row `(n,)`; needs `real` and at least one floor;
    `same_document` (the explanation of another position of the document, NaN where there is
    none) is needed for `content-sensitive`. fve_real: FVE a row `(n,)`.
    """
    floor = best_floor(centred)
    gain = paired_difference(centred["real"], centred[floor], documents)
    p = sign_flip_p(centred["real"] - centred[floor], documents, permutations, seed)
    fve = estimate(fve_real, documents)
    topic = _topic_gain(centred, documents)
    collapse = collapse_summary(texts)
    evidence = {
        "best_floor": floor,
        "content_gain": gain.as_dict(),
        "content_gain_p": p,
        "fve": fve.as_dict(),
        "gain_over_same_document": topic.as_dict() if topic else None,
        "unique_share": collapse["unique"]["full"],
        "top_opening_share": collapse["top_opening_share"],
        "empty_share": collapse["empty_share"],
    }
    word, reasons = _apply(collapse, gain, fve, topic)
    return Verdict(word, reasons, evidence)


def _topic_gain(centred: Mapping[str, NDArray[Any]], documents: Sequence[str]) -> Estimate | None:
    same = centred.get("same_document")
    if same is None:
        return None
    known = np.flatnonzero(~np.isnan(same))
    if len(known) < 2:
        return None
    names = [documents[row] for row in known.tolist()]
    return paired_difference(centred["real"][known], same[known], names)


def _apply(
    collapse: Mapping[str, Any], gain: Estimate, fve: Estimate, topic: Estimate | None
) -> tuple[Word, list[str]]:
    collapsed = [
        (collapse["unique"]["full"] < MIN_UNIQUE, "under half of the texts are unique"),
        (collapse["top_opening_share"] > MAX_OPENING, "one opening on over half of the rows"),
        (collapse["empty_share"] > MAX_EMPTY, "over a fifth of the texts are empty"),
    ]
    found = [reason for failed, reason in collapsed if failed]
    if found:
        return "collapsed", found
    span = f"{gain.mean:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
    if gain.mean < BLIND_GAIN or gain.low <= 0 <= gain.high:
        return "content-blind", [f"content gain {span} is under {BLIND_GAIN} or touches 0"]
    missing = []
    if gain.low < SENSITIVE_GAIN:
        missing.append(f"content gain {span} does not stay above {SENSITIVE_GAIN}")
    if fve.low <= 0:
        missing.append(f"FVE {fve.mean:.3f} [{fve.low:.3f}, {fve.high:.3f}] does not stay above 0")
    if topic is None or topic.low <= 0:
        shown = "not measured" if topic is None else f"{topic.mean:.3f} [{topic.low:.3f}, ...]"
        missing.append(f"gain over another position of the same document: {shown}")
    if missing:
        return "weak", missing
    return "content-sensitive", [f"content gain {span}, FVE and position gain above 0"]
