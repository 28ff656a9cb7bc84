"""From values a row to findings with intervals: one place, so that each can be computed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nlakit.core.statistics import estimate, estimate_share, paired_difference
from nlakit.evaluate.bench import Measured, Part

KEYS = ("part", "measure", "condition", "group")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in KEYS]
    + [("mean", pa.float64()), ("low", pa.float64()), ("high", pa.float64())]
    + [("rows", pa.int64()), ("documents", pa.int64()), ("floor", pa.string())]
    + [("gain", pa.float64()), ("gain_low", pa.float64()), ("gain_high", pa.float64())]
    + [("p", pa.float64())]
)
# Measures whose mean lies in [0, 1], and whose interval does.
SHARES = frozenset(
    "top1 top1_k top5 top20 mrr percentile family_top1 within_family_top1 within_family_top5"
    " within_family_top20 within_family_mrr within_family_percentile document_top1 document_mrr"
    " quote_precision number_precision word_precision name_precision claim_precision"
    " claim_precision_theme claim_precision_entity claim_precision_detail recurrence"
    " unique unique_40 unique_80 unique_120 unique_200 same_tail_unique duplicate empty loop"
    " other_script cjk cut unfinished hit_token_limit self_bleu same_text word_overlap names_token"
    " repeated_items auditor_words seen_document seen_source above_0_30 auc supported"
    " top1_kept".split()
)
VALUES = pa.schema(
    [(name, pa.string()) for name in ("part", "measure", "condition", "row_id", "doc_id")]
    + [("value", pa.float64()), ("floor", pa.string()), ("p", pa.float64())]
)
# The evaluated rows, without their vectors.
ROWS = pa.schema(
    [(name, pa.string()) for name in ("row_id", "doc_id", "source_family")]
    + [("position", pa.int64()), ("norm", pa.float64())]
    + [(name, pa.string()) for name in ("source", "label", "explanation")]
)


def finding(
    part: str,
    one: Measured,
    floor: NDArray[Any] | None,
    documents: Sequence[str],
    picked: NDArray[np.bool_] | None = None,
    group: str = "all",
) -> dict[str, Any]:
    """Mean with its interval over documents, and the gain over the floor, paired by row.

    `picked` `(n,)` keeps the rows of a group. Rows without a value are left out and not counted.
    """
    names = np.asarray(documents)
    known = ~np.isnan(one.values) & (True if picked is None else picked)
    record: dict[str, Any] = {
        **dict(zip(KEYS, (part, one.measure, one.condition, group), strict=True)),
        "mean": None, "low": None, "high": None, "rows": int(known.sum()), "documents": 0,
        "floor": one.floor, "gain": None, "gain_low": None, "gain_high": None, "p": one.p,
    }  # fmt: skip
    if not known.any():
        return record
    share = one.measure in SHARES
    taken = estimate_share if share else estimate
    record |= taken(one.values[known], names[known].tolist()).as_dict()
    both = known if floor is None else known & ~np.isnan(floor)
    if floor is not None and both.any():
        gain = paired_difference(one.values[both], floor[both], names[both].tolist())
        ends = np.array([gain.low, gain.high])
        if share and np.isfinite(ends).all():  # no difference of shares lies beyond
            ends = ends.clip(-1, 1)
        record |= {"gain": gain.mean, "gain_low": float(ends[0]), "gain_high": float(ends[1])}
    return {name: record[name] for name in SCHEMA.names}


def findings(
    parts: Iterable[Part],
    documents: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """A record a part, measure and condition; for the part `roundtrip` also one a group.

    groups: kind (family, position, norm) → the row's group. Groups of one document are left out:
    they have no interval.
    """
    made = []
    names = np.asarray(documents)
    for part in parts:
        for one in part.measured:
            floor = part.of(one.measure, one.floor) if one.floor else None
            made.append(finding(part.name, one, floor, documents))
            if part.name != "roundtrip" or one.condition != "real":
                continue
            for kind, labels in (groups or {}).items():
                for label in sorted(set(labels)):
                    picked = np.asarray(labels) == label
                    if len(set(names[picked].tolist())) > 1:
                        group = f"{kind}={label}"
                        made.append(finding(part.name, one, floor, documents, picked, group))
    return made


def value_table(
    parts: Iterable[Part], row_ids: Sequence[str], documents: Sequence[str]
) -> pa.Table:
    """Tidy values: one a part, measure, condition and row, without those that a row lacks."""
    columns: dict[str, list[Any]] = {name: [] for name in VALUES.names}
    for part in parts:
        for one in part.measured:
            known = np.flatnonzero(~np.isnan(one.values)).tolist()
            columns["row_id"] += [row_ids[i] for i in known]
            columns["doc_id"] += [documents[i] for i in known]
            columns["value"] += one.values[known].tolist()
            for name in ("part", "measure", "condition", "floor", "p"):
                value = part.name if name == "part" else getattr(one, name)
                columns[name] += [value] * len(known)
    return pa.table(columns, schema=VALUES)


def parts_of(values: pa.Table, row_ids: Sequence[str]) -> list[Part]:
    """The measured values of a tidy table again, rows in the order of `row_ids`."""
    place = {row: i for i, row in enumerate(row_ids)}
    made: dict[str, Part] = {}
    found: dict[tuple[str, str, str], Measured] = {}
    for record in values.to_pylist():
        key = (record["part"], record["measure"], record["condition"])
        if key not in found:
            empty = np.full(len(row_ids), np.nan)
            found[key] = Measured(key[1], key[2], empty, record["floor"], record["p"])
            made.setdefault(key[0], Part(key[0])).measured.append(found[key])
        found[key].values[place[record["row_id"]]] = record["value"]
    return list(made.values())
