"""The rows of an audit: which ones are judged, what stands beside them, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.evaluate.audit.table import AuditTable
from nlakit.evaluate.bench import Part, Values
from nlakit.evaluate.conditions import FLOORS

SAMPLE = 2000  # rows of a measure that compares all pairs, or takes a millisecond a text
ALL_FLOORS = (*FLOORS, "no_injection", "zero", "random_direction")
TRAIN = ("train", "training", "av", "ar", "rl")
TEST = ("test", "testing", "eval", "val", "valid", "validation", "dev", "held_out", "heldout")
VARIANTS = {
    "real": ("av", "av_out", "av_output", "matched"),
    "empty": ("", "empty_string", "empty_text"),
    "gibberish": ("nonsense", "noise", "random_tokens"),
    "unrelated": ("random", "random_text", "random_sentences"),
    "other_row": ("shuffle", "shuffled", "mismatched", "permuted"),
    "no_injection": ("without_injection", "noinjection"),
    "mean": ("mean_vector",),
}


@dataclass
class AuditRows:
    """n judged rows of a table, and what an audit finds in them.

    picked `(n,)`: their places in the table. aligned: variant → place in the table of the row with
    the same key, −1 where there is none. documents: a name a row. sample: places among the n, of
    whole documents. training: places in the table.
    """

    table: AuditTable
    picked: NDArray[np.int64]
    training: NDArray[np.int64]
    aligned: dict[str, NDArray[np.int64]]
    documents: list[str]
    seed: int
    sample: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    parts: list[Part] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unsaid: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sample = sampled(self.documents, SAMPLE, self.seed)

    def __len__(self) -> int:
        return len(self.picked)

    def names(self, column: str) -> list[Any]:
        """A column of texts or names, judged rows only."""
        values = self.table[column]
        return [values[row] for row in self.picked.tolist()]

    def values(self, column: str, variant: str = "real") -> NDArray[Any]:
        """A column of numbers `(n,)` or vectors `(n, d)` under a variant; NaN where it has none."""
        rows = self.aligned[variant]
        found = self.table[column][rows]
        found[rows < 0] = np.nan
        return found

    def spread(self, values: Sequence[float] | Values, places: NDArray[np.int64]) -> Values:
        """Values of some rows as `(n,)`, NaN elsewhere."""
        made = np.full(len(self), np.nan)
        made[places] = values
        return made

    def warn(self, code: str, message: str, **evidence: Any) -> None:
        """Add a warning, once for each code."""
        if code not in {one["code"] for one in self.warnings}:
            self.warnings.append({"code": code, "message": message, "evidence": evidence})

    def cannot(self, measure: str, missing: str) -> None:
        """Say what could not be said, and what it needs."""
        self.unsaid.append({"measure": measure, "missing": missing})


def sampled(documents: Sequence[str], limit: int, seed: int) -> NDArray[np.int64]:
    """At most `limit` rows, in their order: all rows of documents drawn at random."""
    names, index = np.unique(np.asarray(documents), return_inverse=True)
    drawn = np.random.default_rng([seed, 32]).permutation(len(names))[index]
    return np.sort(np.argsort(drawn, kind="stable")[:limit])


def audited_rows(table: AuditTable, seed: int = 0) -> AuditRows:
    """Which rows of a table are judged, by its columns `split` and `variant`."""
    every, notes = np.arange(table.rows), list(table.notes)
    sides = np.array([side_of(name) for name in table["split"]]) if "split" in table else None
    training, kept = np.zeros(0, dtype=np.int64), np.ones(table.rows, dtype=bool)
    if sides is not None and (sides == "train").any():
        if (sides == "test").any():
            training, kept = every[sides == "train"], sides == "test"
            notes.append(f"{len(training)} rows of training parts are not judged, {kept.sum()} are")
        else:
            notes.append("no row is of a test part: these are scores of rows that were trained on")
    variants = np.array([variant_of(name) for name in table["variant"]]) \
        if "variant" in table else np.full(table.rows, "real")  # fmt: skip
    real = variants == "real"
    if not (real & kept).any():
        notes.append("no row is of the variant `real`: all are judged together, without floors")
        real[:] = True
    documents = document_names(table)
    picked = every[real & kept]
    rows = AuditRows(
        table, picked, training[real[training]], {"real": picked},
        [documents[i] for i in picked.tolist()], seed,
    )  # fmt: skip
    rows.notes += notes
    if not real.all():
        _align(rows, variants, kept & ~real)
    if table.rows > SAMPLE and len(rows.sample) < len(rows):
        rows.notes.append(f"measures of single texts and of pairs: {SAMPLE} rows drawn at random")
    return rows


def variant_of(name: str | None) -> str:
    """A variant by its own name; a row without one is real."""
    plain = "real" if name is None else name.strip().lower().replace(" ", "_").replace("-", "_")
    return next((own for own, aliases in VARIANTS.items() if plain in aliases), plain)


def side_of(name: str | None) -> str:
    """`train`, `test` or `other`."""
    plain = (name or "").strip().lower().replace("-", "_")
    return "train" if plain in TRAIN else "test" if plain in TEST else "other"


def document_names(table: AuditTable) -> list[str]:
    """The document of each row of the table; a row that names none is its own."""
    if "doc_id" not in table:
        # The variants of a row are one row.
        keys = table["row_id"] if "row_id" in table else [None] * table.rows
        return [f"row {i}" if key is None else f"id {key}" for i, key in enumerate(keys)]
    return [f"row {i}" if doc is None else doc for i, doc in enumerate(table["doc_id"])]


def _keys(table: AuditTable) -> list[Any] | None:
    """What names a row across variants, None if nothing does."""
    if "row_id" in table:
        return table["row_id"]
    if "doc_id" in table:
        places = table["position"].tolist() if "position" in table else [0] * table.rows
        places = [None if place != place else place for place in places]  # NaN equals nothing
        return list(zip(table["doc_id"], places, strict=True))
    return None


def _align(rows: AuditRows, variants: NDArray[Any], others: NDArray[np.bool_]) -> None:
    """For each judged row, find the rows of the other variants with its key."""
    keys = _keys(rows.table)
    if keys is None:
        rows.cannot("gains over the variants", "row_id, or doc_id and position")
        return
    place = {keys[row]: i for i, row in enumerate(rows.picked.tolist())}
    if len(place) < len(rows):
        rows.cannot("gains over the variants", "a row_id that is unique within a variant")
        return
    dropped: set[Any] = set()
    for name in np.unique(variants[others]).tolist():
        found = np.full(len(rows), -1, dtype=np.int64)
        for row in np.flatnonzero(others & (variants == name)).tolist():
            if keys[row] in place:
                found[place[keys[row]]] = row
            else:
                dropped.add(keys[row])
        rows.aligned[name] = found
    if dropped:
        rows.warn(
            "cut-table",
            f"{len(dropped)} rows stand under another variant and not under `real`: the "
            "mean of `real` leaves out rows that were attempted",
            attempted=len(rows) + len(dropped), evaluated=len(rows),
        )  # fmt: skip
    unknown = sorted(set(rows.aligned) - {"real", *ALL_FLOORS})
    if unknown:
        rows.notes.append(f"variants that are no floor by name: {', '.join(unknown)}")
