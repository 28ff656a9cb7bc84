"""The seam between rows and whoever describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


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
    """An explanation, or the reason there is none. A reason never becomes text."""

    row_id: str
    explanation: str | None
    reason: str | None = None


class Labeler(Protocol):
    """Turns requests into labels, one each, in order. `name` goes into the table."""

    name: str

    def label(self, requests: Sequence[LabelRequest]) -> list[Label]: ...
