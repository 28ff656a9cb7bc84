"""What the parts that ask a language model have in common.

An explanation of another document's row is judged in the same words beside each: a judge who says
yes to everything is exposed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from nlakit.core.statistics import derangement
from nlakit.evaluate.bench import Bench, Values

SOURCE_CHARACTERS = 6000  # of a text that the judge is shown: its end
NO_JUDGE = "no judge is configured (eval.judge), so nothing was judged"


class Form(BaseModel):
    """What the judge fills in."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Judged:
    """The rows that the judge sees: their sources, explanations, and partners of other documents
    (−1: none). A row without a source has neither text nor partner: nothing judges them."""

    sources: list[str]
    texts: list[str | None]
    partners: list[int]
    notes: list[str]

    @classmethod
    def of(cls, bench: Bench) -> Judged:
        rows = bench.rows.head(bench.settings.judge_rows)
        drawn = derangement(rows.doc_ids, bench.seed).tolist()
        partners = [row if source else -1 for row, source in zip(drawn, rows.sources, strict=True)]
        long = sum(len(source) > SOURCE_CHARACTERS for source in rows.sources)
        notes = [f"the judge saw {len(rows)} of {len(bench)} rows"]
        if long:
            notes.append(f"of {long} sources it saw the last {SOURCE_CHARACTERS} characters")
        if missing := sum(not source for source in rows.sources):
            notes.append(f"{missing} of them have no source to be judged by")
        shown = [source[-SOURCE_CHARACTERS:] for source in rows.sources]
        texts = [
            text if source else None
            for text, source in zip(bench.texts[: len(rows)], shown, strict=True)
        ]
        return cls(shown, texts, partners, notes)

    def others(self, values: Sequence[Any]) -> list[Any]:
        """What the partners have; None without a partner."""
        return [values[row] if row >= 0 else None for row in self.partners]


def failures(condition: str, what: str, wanted: Sequence[Any], found: Sequence[Any]) -> list[str]:
    """A note on the rows that were asked about and have no answer."""
    attempted = sum(one is not None for one in wanted)
    failed = sum(w is not None and f is None for w, f in zip(wanted, found, strict=True))
    return [f"{condition}: {what} in {failed} of {attempted} rows; not scored"] if failed else []


def spread(values: Sequence[Any], n: int) -> Values:
    """Values of the first rows as `(n,)`, NaN for those that the judge did not see."""
    found = np.full(n, np.nan)
    found[: len(values)] = values
    return found


def padded(texts: Sequence[str | None], n: int) -> list[str | None]:
    return [*texts, *[None] * (n - len(texts))]
