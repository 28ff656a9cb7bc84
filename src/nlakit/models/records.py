"""What a pair gives back: explained activations and scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from nlakit.core.text.recurrence import Marked


@dataclass(frozen=True)
class Score:
    """How near a reconstruction comes to a vector. `fve` is against the stored baseline; it and
    the centred cosine are None where a foreign pair stores no mean unit vector."""

    cosine: float
    centred_cosine: float | None
    fve: float | None
    mse: float


@dataclass(frozen=True)
class Recurrence:
    """The words of an explanation by how they recur in `samples`, drawn for the same activation at
    `temperature`, and in `neighbours`, the explanations of the tokens at `neighbour_positions`."""

    marks: list[Marked]
    samples: list[str]
    neighbours: list[str]
    neighbour_positions: list[int]
    temperature: float
    seed: int


@dataclass(frozen=True)
class Explained:
    """One explained activation; token and position are None for a bare vector, the scores are
    None without an AR. `floor` is the centred cosine of the empty text on the same vector.
    `recurrence` is None unless samples or neighbours were asked for. What comes last says whose the
    token is in a conversation: its sections are those of `core.text.chat.Span`."""

    explanation: str
    l2_norm: float
    position: int | None = None
    token: str | None = None
    token_id: int | None = None
    cosine: float | None = None
    centred_cosine: float | None = None
    fve: float | None = None
    mse: float | None = None
    floor: float | None = None
    recurrence: Recurrence | None = None
    role: str | None = None
    section: str | None = None
    channel: str | None = None
    message_index: int | None = None


class Explanations(list[Explained]):
    """Explained activations; shows itself as a table in a notebook."""

    def as_dicts(self) -> list[dict[str, Any]]:
        return [asdict(item) for item in self]

    def __repr__(self) -> str:
        lines = []
        for item in self:
            place = "vector" if item.position is None else f"{item.position:4d} {item.token!r}"
            score = "" if item.centred_cosine is None else f"  centred {item.centred_cosine:+.2f}"
            lines.append(f"{place}{score}  {item.explanation}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "<tr><th>position</th><th>token</th><th>explanation</th>"
        head += "<th>centred cosine</th><th>floor</th><th>FVE</th></tr>"
        rows = []
        for item in self:
            cells = [
                "" if item.position is None else str(item.position),
                "" if item.token is None else f"<code>{escape(item.token)}</code>",
                escape(item.explanation),
                "" if item.centred_cosine is None else f"{item.centred_cosine:.3f}",
                "" if item.floor is None else f"{item.floor:.3f}",
                "" if item.fve is None else f"{item.fve:.3f}",
            ]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        return f"<table>{head}{''.join(rows)}</table>"
