"""A finished evaluation as one object: its results, findings, values a row, and rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nlakit.errors import DataError, RunError, first_line
from nlakit.evaluate.compare import Side
from nlakit.evaluate.findings import KEYS, ROWS, SCHEMA, VALUES
from nlakit.files.parquet import read_table
from nlakit.files.rows import TableRows
from nlakit.files.text import read_record
from nlakit.run.folder import RunDir

# Table → its columns, and those that every row has a value of.
TABLES: dict[str, tuple[pa.Schema, tuple[str, ...]]] = {
    "findings.parquet": (SCHEMA, (*KEYS, "rows", "documents")),
    "values.parquet": (VALUES, ("part", "measure", "condition", "row_id", "doc_id", "value")),
    "rows.parquet": (ROWS, ("row_id", "doc_id", "position", "norm", "source", "explanation")),
}
FILES = ("results.json", *TABLES, "eval.yaml")
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
    found, values, rows = (
        _checked(read_table(folder / name, schema.names), folder / name, name)
        for name, (schema, _) in TABLES.items()
    )
    return Evaluation(folder, results, found.to_pylist(), values, rows)


def _checked(found: pa.Table, file: Path, name: str) -> pa.Table:
    """What was read of a table of an evaluation, in the columns and types that it is written in."""
    schema, whole = TABLES[name]
    try:
        table = found.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise DataError(
            f"{file} is no table of an evaluation", found=first_line(error), do="evaluate again"
        ) from error
    if empty := [column for column in whole if table[column].null_count]:
        raise DataError(
            f"{file} has rows without a value in {empty[0]!r}",
            found=f"{table[empty[0]].null_count} of {table.num_rows} rows",
            do="evaluate again",
        )
    return table


def read_side(target: Path) -> Side:
    """A run, an evaluation's folder or the JSON of an audit as a side of a comparison.

    An audit has findings and no values: it can be compared, but not row by row.
    """
    if target.suffix == ".json":
        found = read_record(target)
        records = found.get("findings")
        if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
            raise DataError(f"{target} holds no findings", do="write it with `nlakit audit --save`")
        try:
            table = pa.Table.from_pylist(records, schema=SCHEMA)
        except pa.ArrowException as error:
            raise DataError(
                f"{target} holds no findings",
                found=first_line(error),
                do="write it with `nlakit audit --save`",
            ) from error
        findings = _checked(table, target, "findings.parquet").to_pylist()
        verdict, origin = (_mapping(found.get(name)) for name in ("verdict", "provenance"))
        origin = {**origin, "verdict": verdict.get("word")}
        return Side(target.stem, findings, origin=origin)
    evaluation = read_evaluation(evaluation_folder(target))
    provenance = evaluation.results["provenance"]
    return Side(
        target.resolve().name,
        evaluation.findings,
        values_by_key(evaluation.values),
        dict(zip(evaluation.rows.row_ids, evaluation.rows.doc_ids, strict=True)),
        {**provenance, "verdict": _mapping(evaluation.results.get("verdict")).get("word")},
    )


def values_by_key(values: pa.Table) -> dict[tuple[str, str, str], dict[str, float]]:
    """(part, measure, condition) → row → value."""
    made: dict[tuple[str, str, str], dict[str, float]] = {}
    names = ("part", "measure", "condition", "row_id", "value")
    columns = (values[name].to_pylist() for name in names)
    for part, measure, condition, row, value in zip(*columns, strict=True):
        made.setdefault((part, measure, condition), {})[row] = value
    return made


def _mapping(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
