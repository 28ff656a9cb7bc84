"""A finished evaluation as one object: its results, findings, values a row, and rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nlakit.errors import DataError, RunError
from nlakit.evaluate.compare import Side
from nlakit.files.parquet import read_table
from nlakit.files.rows import TableRows
from nlakit.files.text import read_record
from nlakit.run.folder import RunDir

FILES = ("results.json", "findings.parquet", "values.parquet", "rows.parquet", "eval.yaml")
DATED = {"manifest.json": "finished", "begin.json": "started", "card.json": "evaluated"}
SECTIONS = ("rows", "settings", "provenance")


@dataclass(frozen=True)
class Evaluation:
    """What `nlakit eval` wrote. findings: a record a part, measure, condition and group."""

    folder: Path
    results: dict[str, Any]
    findings: list[dict[str, Any]]
    values: pa.Table
    table: pa.Table

    def finding(self, part: str, measure: str, condition: str) -> dict[str, Any] | None:
        """The finding over all rows; None if it was not measured or no row has a value."""
        key = (part, measure, condition, "all")
        for one in self.findings:
            found = (one["part"], one["measure"], one["condition"], one["group"])
            if found == key and one["mean"] is not None:
                return one
        return None

    @property
    def rows(self) -> TableRows:
        """The rows again, with the norm in place of the vector: its direction is not kept, and
        groups need no more."""
        columns = {name: self.table[name].to_pylist() for name in self.table.column_names}
        return TableRows(
            columns["row_id"],
            columns["doc_id"],
            columns["label"],
            columns["source"],
            columns["source_family"],
            [""] * len(self.table),
            columns["position"],
            np.array(columns["norm"], dtype=np.float64)[:, None],  # type: ignore[arg-type]
        )

    @property
    def day(self) -> str:
        """When it was evaluated. The evaluation's own files bear no date, so that the same result
        is the same file: the records beside them do, and a correction's folder in its name."""
        for name, key in DATED.items():
            file = self.folder / name
            found = read_record(file).get(key) if file.exists() else None
            if found:
                return str(found)[:10]
        named = re.match(r"\d{4}-\d\d-\d\d", self.folder.name)
        return named[0] if named else "undated"

    @property
    def texts(self) -> list[str]:
        return self.table["explanation"].to_pylist()


def evaluation_folder(target: Path) -> Path:
    """The folder with the evaluation's files: of a run, or itself.

    Raises DataError if there is none, RunError if a run is not evaluated or its evaluation is of a
    pair other than the one there now.
    """
    if (target / "run.json").exists():
        run = RunDir(target)
        folder = run.need("eval")
        pair, evaluated = run.manifest("pair"), run.manifest("eval")
        if pair and evaluated and evaluated.parents.get("pair") != pair.identity():
            raise RunError(
                f"the evaluation in {target} is of another pair", do="redo it with --redo eval"
            )
        return folder
    if not (target / "results.json").exists():
        raise DataError(
            f"no evaluation in {target}",
            found="no results.json" if target.is_dir() else "no folder",
            do="give an evaluated run, or what `nlakit eval --av X --ar Y --out FOLDER` wrote",
        )
    return target


def read_evaluation(folder: Path) -> Evaluation:
    """Read the files of an evaluation; DataError if one is missing, damaged or of another kind."""
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise DataError(
            f"the evaluation in {folder} is incomplete",
            found=f"without {', '.join(missing)}",
            do="evaluate again: an evaluation of an earlier nlakit has no values a row",
        )
    results = read_record(folder / "results.json")
    if absent := [name for name in SECTIONS if not isinstance(results.get(name), dict)]:
        raise DataError(
            f"{folder / 'results.json'} is no evaluation of nlakit",
            found=f"without {', '.join(absent)}",
            do="evaluate again",
        )
    tables = [read_table(folder / name) for name in FILES[1:4]]
    return Evaluation(folder, results, tables[0].to_pylist(), tables[1], tables[2])


def read_side(target: Path) -> Side:
    """A run, an evaluation's folder or the JSON of an audit as a side of a comparison.

    An audit has findings and no values: it can be compared, but not row by row.
    """
    if target.suffix == ".json":
        found = read_record(target)
        findings = found.get("findings")
        if not isinstance(findings, list):
            raise DataError(f"{target} holds no findings", do="write it with `nlakit audit --save`")
        verdict = found.get("verdict") or {}
        origin = {**(found.get("provenance") or {}), "verdict": verdict.get("word")}
        return Side(target.stem, findings, origin=origin)
    evaluation = read_evaluation(evaluation_folder(target))
    provenance = evaluation.results["provenance"]
    return Side(
        target.resolve().name,
        evaluation.findings,
        values_by_key(evaluation.values),
        dict(zip(evaluation.rows.row_ids, evaluation.rows.doc_ids, strict=True)),
        {**provenance, "verdict": (evaluation.results.get("verdict") or {}).get("word")},
    )


def values_by_key(values: pa.Table) -> dict[tuple[str, str, str], dict[str, float]]:
    """(part, measure, condition) → row → value."""
    made: dict[tuple[str, str, str], dict[str, float]] = {}
    names = ("part", "measure", "condition", "row_id", "value")
    columns = (values[name].to_pylist() for name in names)
    for part, measure, condition, row, value in zip(*columns, strict=True):
        made.setdefault((part, measure, condition), {})[row] = value
    return made
