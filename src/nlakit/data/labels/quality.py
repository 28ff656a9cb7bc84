"""How good a table of labels is: faults by rule, repetition, cost; a blind sheet for a human; and
how far two labelers say the same of a row, beside what they share on rows of other documents."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nlakit.core.statistics import derangement, estimate, estimate_share, paired_difference
from nlakit.core.text.lint import FAULTS, LIMITS, Limits, lint
from nlakit.core.text.stats import words
from nlakit.data.dedup import exact_key, near_duplicates
from nlakit.errors import DataError
from nlakit.run.folder import atomic_path

Row = dict[str, Any]
NEAR_SHARE = 0.5
OPENING_WORDS = 5
EXAMPLES = 3
ROUNDING = 1e-5  # of cosines in float32: equal labels tie
SHEET = ("row_id", "family", "end_of_text", "label", "true (y/n)", "specific (1-5)",
         "about_the_end (y/n)", "notes")  # fmt: skip


def quality(
    table: pa.Table,
    sources: Mapping[str, str],
    families: Mapping[str, str],
    limits: Limits = LIMITS,
) -> dict[str, Any]:
    """What can be said of a label table (columns of labeler.SCHEMA), as plain JSON values.

    sources, families: row_id → text up to the position, and its source_family. Shares are of the
    labelled rows, in 0..1; None where there is no row to take them over. DataError if a row has no
    source or family.
    """
    rows = table.to_pylist()
    labelled = _labelled(rows)
    _need(rows, sources, "source text")
    _need(rows, families, "family")
    texts = [row["api_explanation"] for row in labelled]
    lengths = [len(words(text)) for text in texts]
    for row, length in zip(labelled, lengths, strict=True):
        row["faults"] = lint(row["api_explanation"], sources[row["row_id"]], limits)
        row["words"] = length
    quantiles = np.quantile(lengths, [0.05, 0.5, 0.95]).tolist() if lengths else [None] * 3
    return {
        "rows": len(rows),
        "labelled": len(labelled),
        "reasons": _counts(row["reason"] for row in rows if row["api_explanation"] is None),
        "faulty_share": _mean(bool(row["faults"]) for row in labelled),
        "faults": _fault_counts(labelled),
        "examples": _examples(labelled),
        "by_family": _groups(rows, lambda row: families[row["row_id"]]),
        "by_labeler": _groups(rows, lambda row: row["labeler_model"] or "unknown"),
        **_repetition(texts),
        "words": dict(zip(("p5", "p50", "p95"), quantiles, strict=True)),
        "verdicts": _counts(row["verdict"] for row in rows if row["verdict"] is not None),
        "repaired": sum(row.get("repaired") or 0 for row in rows),
        "spent": {name: _spent(rows, name) for name in ("tokens_in", "tokens_out", "cost")},
    }


def _labelled(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["api_explanation"] is not None]


def _need(rows: Sequence[Row], known: Mapping[str, str], what: str) -> None:
    lost = [row["row_id"] for row in rows if row["row_id"] not in known]
    if lost:
        raise DataError(
            f"{len(lost)} labels are of rows without a {what}",
            found=lost[:3],
            do="give the activations that the labels were made for",
        )


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(value or "unknown" for value in values).most_common())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Iterable[int]) -> float | None:
    found = list(values)
    return _share(sum(found), len(found))


def _fault_counts(labelled: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Count and share of each fault that occurs, gravest first."""
    counts = Counter(fault for row in labelled for fault in row["faults"])
    return {
        fault: {"count": counts[fault], "share": counts[fault] / len(labelled)}
        for fault in FAULTS
        if counts[fault]
    }


def _examples(labelled: Sequence[Row]) -> dict[str, list[Row]]:
    """The first few labels of each fault."""
    shown: dict[str, list[Row]] = defaultdict(list)
    for row in labelled:
        for fault in row["faults"]:
            if len(shown[fault]) < EXAMPLES:
                shown[fault].append({"row_id": row["row_id"], "text": row["api_explanation"]})
    return dict(shown)


def _groups(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, Row]:
    """Rows, labelled rows, share of these with any fault and their mean words, a group."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    result = {}
    for name in sorted(groups):
        labelled = _labelled(groups[name])
        result[name] = {
            "rows": len(groups[name]),
            "labelled": len(labelled),
            "faulty_share": _mean(bool(row["faults"]) for row in labelled),
            "mean_words": _mean(row["words"] for row in labelled),
        }
    return result


def _repetition(texts: Sequence[str]) -> dict[str, Any]:
    """Labels that repeat an earlier one (but for case and white space), those that nearly do (the
    former among them), and the commonest opening."""
    exact = len(texts) - len({exact_key(text) for text in texts})
    near = sum(original is not None for original in near_duplicates(texts, NEAR_SHARE))
    openings = Counter(" ".join(words(text)[:OPENING_WORDS]) for text in texts)
    opening, count = openings.most_common(1)[0] if openings else (None, 0)
    return {
        "duplicates": {"count": exact, "share": _share(exact, len(texts))},
        "near_duplicates": {"count": near, "share": _share(near, len(texts))},
        "top_opening": {"text": opening, "count": count, "share": _share(count, len(texts))},
    }


def _spent(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Sum over the rows where the figure is known, refused ones too, and how many labelled rows
    lack it. The total is None as soon as one does: unknown is not zero."""
    known = [row[name] for row in rows if row[name] is not None]
    unknown = sum(row[name] is None for row in _labelled(rows))
    return {
        "total": None if unknown else sum(known),
        "known": sum(known),
        "labels_without": unknown,
    }


def write_sheet(
    path: Path,
    table: pa.Table,
    sources: Mapping[str, str],
    families: Mapping[str, str],
    n: int = 50,
    seed: int = 0,
) -> None:
    """Write a CSV of `n` random labelled rows for a human to judge, blind: no labeler, no verdict,
    no fault. It opens with a byte-order mark, without which Excel does not read UTF-8.

    DataError if no row is labelled, or if one has no source or family.
    """
    labelled = _labelled(table.to_pylist())
    if not labelled:
        raise DataError("no row is labelled", do="label some rows before judging them")
    _need(labelled, sources, "source text")
    _need(labelled, families, "family")
    picks = np.random.default_rng(seed).permutation(len(labelled))[:n]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", errors="replace", newline="") as handle,
    ):
        writer = csv.writer(handle)
        writer.writerow(SHEET)
        for pick in picks.tolist():
            name, label = labelled[pick]["row_id"], labelled[pick]["api_explanation"]
            cells = (name, families[name], sources[name][-400:], label)
            writer.writerow([*map(_plain_cell, cells), "", "", "", ""])


def _plain_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def agreement(
    first: pa.Table,
    second: pa.Table,
    documents: Mapping[str, str],
    limit: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How far two labelers say the same of the same row.

    documents: row_id → doc_id. `same_row` is the mean tf-idf cosine of the two labels of a row;
    `floor` that of the first's label and the second's of a row of another document; `gain` their
    paired difference; `same_document` the second's label elsewhere in the document, over the rows
    that have one (None if these are not of two documents). `top_1` is the share of first labels
    that are nearest to their own row's second label among all rows (ties count in part), `chance`
    what blind picking scores. Over at most `limit` random shared rows. DataError if fewer than
    two rows, or rows of fewer than two documents, are labelled in both.
    """
    rows, left, right = _joined(first, second, limit, seed)
    _need([{"row_id": row} for row in rows], documents, "document")
    names = [documents[row] for row in rows]
    if len(set(names)) < 2:
        raise DataError(
            "agreement needs two rows, of two documents, that both labelers labelled",
            found=f"{len(rows)} shared rows of {len(set(names))} documents",
            do="label more rows with both",
        )
    likeness = _tf_idf_cosines(left, right)
    own, place = likeness.diagonal(), np.arange(len(rows))
    other = likeness[place, derangement(names, seed)]
    nearest = likeness >= likeness.max(axis=1, keepdims=True) - ROUNDING
    hits = nearest.diagonal() / nearest.sum(axis=1)
    return {
        "rows": len(rows),
        "documents": len(set(names)),
        "same_row": estimate(own, names).as_dict(),
        "floor": estimate(other, names).as_dict(),
        "gain": paired_difference(own, other, names).as_dict(),
        "same_document": _same_document(likeness, names, seed),
        "top_1": estimate_share(hits, names).as_dict(),
        "chance": 1 / len(rows),
    }


def _joined(
    first: pa.Table, second: pa.Table, limit: int, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Row ids that both tables label, in the first's order, and the two labels of each."""
    ours, theirs = (
        {row["row_id"]: row["api_explanation"] for row in _labelled(table.to_pylist())}
        for table in (first, second)
    )
    shared = [row for row in ours if row in theirs]
    picks = np.sort(np.random.default_rng(seed).permutation(len(shared))[:limit])
    rows = [shared[pick] for pick in picks.tolist()]
    return rows, [ours[row] for row in rows], [theirs[row] for row in rows]


def _same_document(
    likeness: NDArray[np.float32], names: Sequence[str], seed: int
) -> dict[str, Any] | None:
    partners = derangement(names, seed, same=True)
    known = np.flatnonzero(partners >= 0)
    clusters = [names[row] for row in known.tolist()]
    if len(set(clusters)) < 2:
        return None
    return estimate(likeness[known, partners[known]], clusters).as_dict()


def _tf_idf_cosines(left: Sequence[str], right: Sequence[str]) -> NDArray[np.float32]:
    """Cosines of word counts weighted by ln(labels / labels with the word): `(n, n)`, left by
    right. What every label says weighs nothing; a label of nothing else is like none."""
    texts = [words(text) for text in (*left, *right)]
    column = {word: k for k, word in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
    weights = np.zeros((len(texts), len(column)), dtype=np.float32)
    for row, found in enumerate(texts):
        np.add.at(weights[row], [column[word] for word in found], 1)
    weights *= np.log(len(texts) / np.count_nonzero(weights, axis=0))
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    weights /= np.where(norms > 0, norms, 1)
    return weights[: len(left)] @ weights[len(left) :].T


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report of `quality` in a few plain lines."""
    labelled, spent = report["labelled"], report["spent"]
    size, opening = report["words"], report["top_opening"]
    shown = [
        f"{report['rows']} rows, {labelled} labelled; not labelled: {_listed(report['reasons'])}",
    ]
    if labelled:
        faults = {name: fault["count"] for name, fault in report["faults"].items()}
        shown += [
            f"with a fault {report['faulty_share']:.1%}: {_listed(faults)}",
            f"with a fault by family: {_by_family(report['by_family'])}",
            f"words {size['p5']:.0f} / {size['p50']:.0f} / {size['p95']:.0f} (5%, median, 95%)",
            f"duplicates {report['duplicates']['share']:.1%}, "
            f"near duplicates {report['near_duplicates']['share']:.1%}, "
            f"commonest opening {opening['share']:.1%}: {opening['text']!r}",
        ]
    if report["verdicts"]:
        shown.append(f"verdicts: {_listed(report['verdicts'])}")
    if report["repaired"]:
        shown.append(f"answers that had to be repaired: {report['repaired']}")
    tokens = " in, ".join(_total(spent[name], ",.0f") for name in ("tokens_in", "tokens_out"))
    shown.append(f"tokens {tokens} out; US dollars {_total(spent['cost'], '.4f')}")
    return shown


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _by_family(groups: Mapping[str, Row]) -> str:
    shares = {name: group["faulty_share"] for name, group in groups.items() if group["labelled"]}
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def _total(spent: Mapping[str, Any], form: str) -> str:
    return "unknown" if spent["total"] is None else format(spent["total"], form)


def agreement_line(found: Mapping[str, Any]) -> str:
    same, floor, top = found["same_row"], found["floor"], found["top_1"]
    return (
        f"agreement of two labelers on {found['rows']} rows: tf-idf cosine {same['mean']:.3f} "
        f"[{same['low']:.3f}, {same['high']:.3f}], other documents {floor['mean']:.3f} "
        f"[{floor['low']:.3f}, {floor['high']:.3f}]; top-1 {top['mean']:.1%}, "
        f"chance {found['chance']:.1%}"
    )
