"""What an audit says of texts alone: collapse, cuts, sources, labels, and rows seen in training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.statistics import derangement
from nlakit.core.text.lint import lint
from nlakit.core.text.stats import (
    cut_length,
    distinct_2,
    longest_copied_run,
    openings,
    scripts_of,
    text_rows,
    unfinished,
    unique_rows,
    words,
)
from nlakit.evaluate.audit.rows import AuditRows
from nlakit.evaluate.bench import Part, Values
from nlakit.evaluate.verdict import MAX_EMPTY, MAX_OPENING, MIN_UNIQUE

SHORT_OPENING = 60  # characters; a template may vary soon after
FEW = 300  # rows of measures that take some ten milliseconds a row
COPY_SOURCE = 5000  # last characters of a source that are searched for copies
LEAK_CHARACTERS, LEAK_LEAST = 200, 80  # letters of a source that are compared, and needed at least


def texts_part(rows: AuditRows) -> Part:
    """The part `collapse`, as an evaluation has it, beside labels where there are some; warnings
    `collapsed` and `truncated-texts`."""
    texts, part = rows.names("explanation"), Part("collapse")
    known = [name for name in ("source_text", "label") if name in rows.table]
    scripts = scripts_of([text for name in known for text in rows.names(name)])
    if "label" in rows.table:
        labels = rows.names("label")
        there = np.array([bool(label.strip()) for label in labels])
        found = text_values(rows, labels, scripts)
        # A row without a label is no empty label.
        part.add("label", {name: np.where(there, v, np.nan) for name, v in found.items()})
    found = text_values(rows, texts, scripts)
    part.add("explanation", found, "label" if "label" in rows.table else None)
    part.detail = {"openings": openings(texts), "distinct_2": distinct_2(texts, rows.seed)}
    starts = Counter(text[:SHORT_OPENING] for text in texts if text.strip()).most_common(1)
    rules = {
        "unique texts": (found["unique"].mean() < MIN_UNIQUE, len(set(texts))),
        f"texts with one opening of {SHORT_OPENING} characters": (
            bool(starts) and starts[0][1] > MAX_OPENING * len(texts),
            starts[0][1] if starts else 0,
        ),
        "empty texts": (found["empty"].mean() > MAX_EMPTY, int(found["empty"].sum())),
    }
    if hits := {name: count for name, (hit, count) in rules.items() if hit}:
        said = ", ".join(f"{count} {name}" for name, count in hits.items())
        rows.warn("collapsed", f"of {len(texts)} rows: {said}", **hits)
    if length := cut_length(texts):
        share = float(found["cut"].mean())
        rows.warn(
            "truncated-texts",
            f"{share:.0%} of the texts stop at {length} characters: what is stored is not "
            "what was written, and copies and openings are miscounted",
            length=length, share=share,
        )  # fmt: skip
    return part


def text_values(
    rows: AuditRows, texts: Sequence[str], scripts: Collection[str]
) -> dict[str, Values]:
    """The measures of `text_rows` over the sampled rows, the cheap ones over all, and
    `unfinished`: whether a text breaks off."""
    picked = [texts[int(i)] for i in rows.sample]
    some = text_rows(picked, scripts, rows.seed)
    unique, length = unique_rows(texts), cut_length(texts)
    written = np.array([bool(text.strip()) for text in texts])
    broken = np.array([unfinished(text) for text in texts])
    return {name: rows.spread(values, rows.sample) for name, values in some.items()} | {
        "unique": unique,
        "duplicate": ((unique < 1) & written).astype(float),
        "empty": (~written).astype(float),
        "unfinished": broken.astype(float),
        "cut": (broken & (np.array([len(text) for text in texts]) == length)).astype(float),
    }


def source_parts(rows: AuditRows) -> list[Part]:
    """Copying from the source, and finding the own document by tf-idf, each beside another
    row's."""
    if "explanation" not in rows.table or "source_text" not in rows.table:
        rows.cannot("copying, and whether a text finds its document", "explanation and source_text")
        return []
    texts, sources = rows.names("explanation"), rows.names("source_text")
    documents = [rows.documents[i] for i in rows.sample]
    partners = derangement(documents, rows.seed)
    if (partners < 0).any():
        rows.cannot("copying, and whether a text finds its document", "rows of two documents")
        return []
    part, others = Part("source"), rows.sample[partners]
    some = few(rows)
    there = np.array([bool(sources[i]) for i in rows.sample])
    if not there.all():
        part.notes.append(f"{(~there).sum()} of {len(there)} rows have no source: left out")
    for condition, of in (("real", some), ("other_row", others[np.isin(rows.sample, some)])):
        runs = [float(longest_copied_run(texts[i], sources[j][-COPY_SOURCE:]))
                if sources[j] else np.nan
                for i, j in zip(of.tolist(), some.tolist(), strict=True)]  # fmt: skip
        floor = "other_row" if condition == "real" else None
        part.add(condition, {"copied_run": rows.spread(runs, some)}, floor)
    part.notes.append(f"copied_run: {len(some)} rows, the last {COPY_SOURCE} characters of sources")
    found = _document_ranks([texts[i] for i in rows.sample], [sources[i] for i in rows.sample],
                            documents)  # fmt: skip
    if found is None:
        rows.cannot("whether a text finds its document", "sources or texts with words")
    else:
        for condition, texts_of in (("real", np.arange(len(partners))), ("other_row", partners)):
            rank = np.where(there, found(texts_of), np.nan)
            scores = {
                "document_top1": np.where(there, rank == 0, np.nan),
                "document_mrr": 1 / (1 + rank),
            }
            spread = {name: rows.spread(value, rows.sample) for name, value in scores.items()}
            part.add(condition, spread, "other_row" if condition == "real" else None)
        part.notes.append(f"document_top1: tf-idf among {len(documents)} rows' sources, own "
                          "document's other rows left out")  # fmt: skip
    return [part]


def token_parts(rows: AuditRows) -> list[Part]:
    """Whether a text names the token that was read, beside the token of another document's row."""
    if "explanation" not in rows.table or "token" not in rows.table:
        rows.cannot("whether a text names the token that was read", "explanation and token")
        return []
    tokens, said = rows.names("token"), [set(words(text)) for text in rows.names("explanation")]
    partners = derangement([rows.documents[i] for i in rows.sample], rows.seed)
    part, places = Part("token"), rows.sample
    for condition, of in (("real", np.arange(len(partners))), ("other_row", partners)):
        named = [
            float(bool(own & said[row]))
            if j >= 0 and (own := set(words(tokens[places[j]])))
            else np.nan
            for row, j in zip(places.tolist(), of.tolist(), strict=True)
        ]
        floor = "other_row" if condition == "real" else None
        part.add(condition, {"names_token": rows.spread(named, places)}, floor)
    return [part]


def few(rows: AuditRows) -> NDArray[np.int64]:
    """At most 300 of the sampled rows, evenly spread."""
    return rows.sample[:: max(1, -(-len(rows.sample) // FEW))]


def _document_ranks(texts: Sequence[str], sources: Sequence[str], documents: Sequence[str]) -> Any:
    """A function from texts `(n,)` (indices) to the rank of each row's own source by tf-idf cosine
    among the sources of other documents, ties against it; None without words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        reader = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit(sources)
    except ValueError:  # no source has a word
        return None
    own: Any = reader.transform(sources)
    scores = (reader.transform(texts) @ own.T).toarray()
    _, index = np.unique(np.asarray(documents), return_inverse=True)
    rivals = index[:, None] != index[None]

    def ranks(of: NDArray[np.int64]) -> Values:
        own = scores[of, np.arange(len(of))][:, None]
        return ((scores[of] >= own - 1e-9) & rivals).sum(axis=1).astype(float)

    return ranks


def label_parts(rows: AuditRows) -> list[Part]:
    """Faults of labels, and how near the texts are to them beside another row's label."""
    if "label" not in rows.table:
        rows.cannot("faults of labels, agreement with them", "label")
        return []
    labels, part = rows.names("label"), Part("labels")
    sources = rows.names("source_text") if "source_text" in rows.table else [""] * len(rows)
    written = rows.sample[[bool(labels[i].strip()) for i in rows.sample]]
    faults = [lint(labels[i], sources[i]) for i in written]
    leaks = np.array([float("auditor_leakage" in found) for found in faults])
    part.add("label", {"auditor_words": rows.spread(leaks, written)})
    part.detail = {"faults": dict(Counter(name for found in faults for name in found))}
    if leaks.any():
        first = labels[written[int(leaks.argmax())]]
        rows.warn("auditor-words", f"{int(leaks.sum())} of {len(leaks)} labels hold words of an "
                  f"auditor, for example {first[:120]!r}", labels=int(leaks.sum()))  # fmt: skip
    if "explanation" in rows.table:
        texts = rows.names("explanation")
        same = [float(a.strip() == b.strip()) if b.strip() else np.nan
                for a, b in zip(texts, labels, strict=True)]  # fmt: skip
        part.add("real", {"same_text": np.array(same)})
        partners = derangement([rows.documents[i] for i in rows.sample], rows.seed)
        for condition, of in (("real", np.arange(len(partners))), ("other_row", partners)):
            near = [overlap(texts[rows.sample[j]], labels[i])
                    if j >= 0 and labels[i].strip() else np.nan
                    for i, j in zip(rows.sample.tolist(), of.tolist(), strict=True)]  # fmt: skip
            floor = "other_row" if condition == "real" else None
            part.add(condition, {"word_overlap": rows.spread(near, rows.sample)}, floor)
    return [part]


def overlap(first: str, second: str) -> float:
    """Share of the distinct words of two texts that both have (Jaccard)."""
    left, right = set(words(first)), set(words(second))
    return len(left & right) / max(len(left | right), 1)


def split_parts(rows: AuditRows) -> list[Part]:
    """Judged rows whose document, or whose source's beginning, stands in the training rows."""
    table, training = rows.table, rows.training.tolist()
    if not training or not {"doc_id", "source_text"} & set(table.columns):
        rows.cannot("contamination of the test part",
                    "split with both parts, and doc_id or source_text")  # fmt: skip
        return []
    part = Part("split")
    for measure, column, key in (
        ("seen_document", "doc_id", str),
        ("seen_source", "source_text", beginning),
    ):
        if column in table:
            values = table[column]
            known = {key(values[i]) for i in training if values[i]} - {""}
            hits = [float(bool(v) and key(v) in known) for v in rows.names(column)]
            part.add("real", {measure: np.array(hits)})
    counts = {one.measure: int(one.values.sum()) for one in part.measured}
    if any(counts.values()):
        said = ", ".join(f"{count} by {name}" for name, count in counts.items() if count)
        rows.warn("contaminated-split", f"of {len(rows)} judged rows, training has seen {said}",
                  **counts)  # fmt: skip
    return [part]


def beginning(text: str) -> str:
    """The first 200 characters without case and spaces, "" for a text that is too short to tell:
    prefixes of one document at two positions begin alike."""
    plain = re.sub(r"\W+", "", text.lower())[:LEAK_CHARACTERS]
    return plain if len(plain) >= LEAK_LEAST else ""
