"""The seam between rows and whoever describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import pyarrow as pa

Advance = Callable[..., object]


def ignore(rows: int, note: str = "") -> None:
    """For callers that show no progress."""


@dataclass(frozen=True)
class LabelRequest:
    """What a labeler sees of a row: the text up to and including the position, never the vector.

    expected: the subject's likeliest next tokens with their chances, best first; may be empty.
    """

    row_id: str
    text: str
    token: str
    expected: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Label:
    """An explanation, or the reason there is none (a reason never becomes text), and where it
    comes from. None stands for what is unknown or does not apply.

    labelled_at: ISO 8601, UTC; empty for a labeler whose labels depend on nothing but the row.
    tokens_in, tokens_out: of the answers that made the label. cost: what these answers cost, in
    US dollars. attempts: requests sent for the row, failed ones too. repaired: answers for the row
    that were not of the form asked for but plainly meant it.
    """

    row_id: str
    explanation: str | None
    reason: str | None = None
    labeler_model: str | None = None
    auditor_model: str | None = None
    verdict: str | None = None
    audit_score: float | None = None
    labeler_prompt: str | None = None
    auditor_prompt: str | None = None
    labelled_at: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    attempts: int | None = None
    repaired: int | None = None


class Labeler(Protocol):
    """Turns requests into labels, one each, in order; calls `advance(rows, note)` as
    rows are finished."""

    def label(self, requests: Sequence[LabelRequest], advance: Advance = ignore) -> list[Label]: ...

    def close(self) -> None:
        """Free what the labeler holds open."""
        ...


SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("text_sha256", pa.string()),
        ("api_explanation", pa.string()),
        ("reason", pa.string()),
        ("labeler_model", pa.string()),
        ("auditor_model", pa.string()),
        ("verdict", pa.string()),
        ("audit_score", pa.float32()),
        ("labeler_prompt", pa.string()),
        ("auditor_prompt", pa.string()),
        ("labelled_at", pa.string()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("cost", pa.float64()),
        ("attempts", pa.int32()),
        ("repaired", pa.int32()),
    ]
)


def text_sha256(text: str) -> str:
    """What labels of different runs and files are joined by."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def label_table(labels: Sequence[Label], requests: Sequence[LabelRequest]) -> pa.Table:
    """The label table: one row a request, in the columns of SCHEMA."""
    columns = {
        field.name: [getattr(label, field.name) for label in labels] for field in fields(Label)
    }
    columns["api_explanation"] = columns.pop("explanation")
    columns["text_sha256"] = [text_sha256(request.text) for request in requests]
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
