"""What each criterion of `nlakit explain --by` is worth, on held-out tokens of an evaluated pair.

python benchmarks/where.py EVAL [--pair demo] [--rows 96] [--out docs/results/where.md]

EVAL is a finished evaluation of the pair (`nlakit eval PAIR --out EVAL`), or a card's `results`: its
explanations and their scores are taken as they are. Each criterion, from one pass of the subject over
a document up to its last row, is correlated (Spearman, 95% interval over documents) with what the
explanation of the token is worth: its centred cosine less that of the empty text, and the share of its
words that stand in the source, less the share that stand in the source of another document. The floor
of a correlation is that of the token's position with the same.
"""  # noqa: E501

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from nlakit import NLA
from nlakit.core.prompts import document_ids
from nlakit.core.shown import span
from nlakit.core.statistics import derangement, estimate
from nlakit.core.text.claims import Source, claims
from nlakit.core.text.where import CRITERIA, rank_correlation
from nlakit.files.parquet import read_table
from nlakit.models.using.looking import look
from nlakit.run.folder import git_commit

Columns = dict[str, list[Any]]
Values = dict[str, np.ndarray]


def criteria(nla: NLA, rows: Columns) -> Values:
    """Each criterion `(n,)` at the rows' tokens, and their position."""
    assert nla.mean is not None
    found = {name: np.full(len(rows["doc_id"]), np.nan) for name in CRITERIA}
    how = nla.contract.nlakit.special_tokens
    for document in dict.fromkeys(rows["doc_id"]):
        own = [row for row, name in enumerate(rows["doc_id"]) if name == document]
        longest = max(own, key=lambda row: rows["position"][row])
        ids = document_ids(nla.subject.tokenizer, rows["source"][longest], how)
        own = [row for row in own if rows["position"][row] < len(ids)]
        places = [rows["position"][row] for row in own]
        values = look(nla.subject, ids, nla.contract.layer, nla.mean, places=places)
        for name in CRITERIA:
            found[name][own] = values[name][places]
    return {**found, "position": np.array(rows["position"], dtype=np.float64)}


def words_found(texts: list[str], sources: list[str]) -> np.ndarray:
    """Share `(n,)` of the long words of each text that stand in its source; NaN without any."""
    shares = []
    for text, source in zip(texts, sources, strict=True):
        words = [claim for claim in claims(text) if claim.kind == "word"]
        place = Source(source)
        shares.append(np.mean([place.has(word) for word in words]) if words else np.nan)
    return np.array(shares)


def outcomes(folder: Path, rows: Columns) -> Values:
    """What the explanations of the rows are worth, each `(n,)`."""
    kept = (pc.field("part") == "roundtrip") & (pc.field("measure") == "centred_cosine")
    by_row = {
        (one["condition"], one["row_id"]): one["value"]
        for one in read_table(folder / "values.parquet").filter(kept).to_pylist()
    }
    gained = [by_row["real", row] - by_row["empty", row] for row in rows["row_id"]]
    other = [rows["source"][row] for row in derangement(rows["doc_id"])]
    held = words_found(rows["explanation"], rows["source"])
    return {
        "centred cosine over its floor": np.array(gained),
        "words found over another source's": held - words_found(rows["explanation"], other),
    }


def document(nla: NLA, folder: Path, rows: Columns, command: str) -> str:
    """The record: a correlation a cell, and what the best quarter by each criterion is worth."""
    measured, worth, documents = criteria(nla, rows), outcomes(folder, rows), rows["doc_id"]
    head = [f"| {' | '.join(worth)} |", "|---|---|---|"]
    lines = [
        "# Where to look",
        "",
        f"- command: `{command}`; {os.cpu_count()} CPU cores, one thread; commit {git_commit()}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- {nla!r}; {len(documents)} held-out rows of {len(set(documents))} documents",
        "- Spearman's ρ of each criterion with what the explanation of the token is worth, with a",
        "  95% interval over documents. `position` is the floor: it knows nothing of the token",
        "- a word is found if it stands in the source; from each row's share, the share of its",
        "  words that stand in another document's source is taken",
        "",
        f"| by {head[0]}",
        head[1],
    ]
    for name, values in measured.items():
        cells = []
        for gained in worth.values():
            known = np.flatnonzero(~(np.isnan(values) | np.isnan(gained)))
            names = [documents[row] for row in known]
            cells.append("–")
            if names:
                found = rank_correlation(values[known], gained[known], names)
                cells[-1] = span(found.as_dict(), "+")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "The mean of all rows, and of the quarter that each criterion puts first:", ""]
    lines += [f"| rows {head[0]}", head[1]]
    quarter = max(len(documents) // 4, 1)
    chosen = {"all": np.arange(len(documents))} | {
        f"first by {name}": np.argsort(-np.nan_to_num(values, nan=-np.inf))[:quarter]
        for name, values in measured.items()
    }
    for name, picked in chosen.items():
        cells = []
        for gained in worth.values():
            held = [row for row in picked if not np.isnan(gained[row])]
            cells.append("–")
            if held:
                found = estimate(gained[held], [documents[row] for row in held])
                cells[-1] = span(found.as_dict(), "+")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--pair", default="demo")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--out", type=Path, default=Path("docs/results/where.md"))
    given = parser.parse_args()
    rows = read_table(given.evaluation / "rows.parquet").slice(0, given.rows).to_pydict()
    command = f"python benchmarks/where.py {given.evaluation} --pair {given.pair}"
    text = document(NLA.load(given.pair), given.evaluation, rows, f"{command} --rows {given.rows}")
    given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
