"""Comparisons on disk: records as JSON, Parquet and a table, and one figure a measure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from nlakit.errors import DataError
from nlakit.evaluate.compare import HEADLINES, Side, best_step, claims, compare, is_headline
from nlakit.files.markdown import cell
from nlakit.files.parquet import write_table
from nlakit.files.text import as_json, read_jsonl
from nlakit.publish.compare.figure import CURVES, Dot, draw_dots, draw_trajectory
from nlakit.publish.evaluation import read_side
from nlakit.publish.report.numbers import interval, num
from nlakit.run.folder import FOLDERS, atomic_write

HEADER = (
    "measure",
    "other",
    "first → other",
    "difference",
    "p",
    "detectable",
    "rows",
    "method",
)
HEADLINE_NAMES = "; ".join(f"{part}: {', '.join(names)}" for part, names in HEADLINES.items())
NOTE = (
    "Difference: other − first, with its 95% interval over documents. p is two-sided. Of the"
    f" headline measures ({HEADLINE_NAMES}) it is adjusted by Holm over their rows; of the others"
    " it is not corrected, and marked †. Paired: row by row, on rows that both have. Unpaired:"
    " Welch's t with standard errors over documents. Intervals: the same from two intervals alone,"
    " where a side has no values a row. Detectable: the smallest true difference that a test at 5%,"
    " alone, finds with a chance of 80% on as many documents that spread alike."
)
Record = Mapping[str, Any]


def write_comparison(
    targets: Sequence[Path], out: Path, permutations: int, seed: int
) -> list[dict[str, Any]]:
    """Compare the first target with each other one and write comparison.json, .parquet and .md and
    a figure a measure into `out`. Targets: runs, evaluations, or the JSON of an audit."""
    sides = _named(targets)
    records = compare(sides, permutations, seed)
    report = {
        "sides": [{"name": side.name, **side.origin} for side in sides],
        "settings": {"permutations": permutations, "seed": seed},
        "comparisons": records,
    }
    atomic_write(out / "comparison.json", as_json(report, indent=1) + "\n")
    write_table(out / "comparison.parquet", pa.Table.from_pylist(records))
    atomic_write(out / "comparison.md", markdown(sides, records))
    for part, measure in dict.fromkeys((one["part"], one["measure"]) for one in records):
        _draw(sides, part, measure, out / f"{_slug(f'{part}-{measure}')}.png")
    return records


def _named(targets: Sequence[Path]) -> list[Side]:
    """The sides, named with the folder above where two would share a name."""
    sides = [read_side(target) for target in targets]
    names = [side.name for side in sides]
    return [
        replace(side, name=f"{target.resolve().parent.name}/{side.name}")
        if names.count(side.name) > 1
        else side
        for side, target in zip(sides, targets, strict=True)
    ]


def cells(record: Record) -> tuple[str, ...]:
    """A record as a row of the table."""
    return (
        f"{record['part']}: {record['measure']}, {record['condition']}",
        record["other"],
        f"{num(record['first_mean'])} → {num(record['other_mean'])}",
        f"{num(record['difference'], signed=True)} {interval(record)}",
        num(record["p"], 4) + "†" if record["p_holm"] is None else num(record["p_holm"], 4),
        num(record["detectable"]),
        f"{record['rows']} of {record['documents']} docs",
        record["method"],
    )


def headlines(records: Sequence[Record]) -> list[Record]:
    """The records that a reader looks at first; all of them where there is none of these."""
    first = [one for one in records if is_headline(one)]
    return first or list(records)


def short_name(record: Record) -> str:
    """What was measured, with the method of a retrieval."""
    method, _, rest = record["condition"].partition(":")
    return " ".join([record["part"], record["measure"], *([method] if rest else [])])


def markdown(sides: Sequence[Side], records: Sequence[Record]) -> str:
    """The comparison as a page."""
    verdicts = [f"- {cell(s.name)}: {s.origin.get('verdict') or 'no verdict'}" for s in sides]
    table = [HEADER, ("---",) * len(HEADER), *(map(cell, cells(one)) for one in records)]
    first, *others = (cell(side.name) for side in sides)
    title = f"# {first} against {', '.join(others)}"
    lines = [title, "", *verdicts, "", NOTE, "", *(f"| {' | '.join(row)} |" for row in table)]
    return "\n".join(lines) + "\n"


def _draw(sides: Sequence[Side], part: str, measure: str, target: Path) -> None:
    """Every claim of a measure, side by side, each with the floors that it is set against."""
    dots, found = [], [side.by_key() for side in sides]
    keys = dict.fromkeys(k for s in sides for k in claims(s) if k[:2] == (part, measure))
    for key in keys:
        for side, known in zip(sides, found, strict=True):
            if one := known.get(key):
                dots.append(Dot(f"{side.name}: {key[2]}", one))
                if floor := known.get((part, measure, one["floor"] or "")):
                    dots.append(Dot(f"{side.name}: floor, {one['floor']}", floor, floor=True))
    unique = list({dot.name: dot for dot in dots}.values())
    draw_dots(f"{part}: {measure}", unique, target)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def write_trajectory(run: Path, out: Path) -> dict[str, Any]:
    """Held-out measures over the steps of a run's trainings: trajectory.png and trajectory.json,
    with the best step by content. Raises DataError if the run holds no training that measured."""
    stages: dict[str, list[dict[str, Any]]] = {}
    measured = {key for keys in CURVES.values() for key in keys}
    for stage in ("ar", "av", "pair"):
        file = run / FOLDERS[stage] / "metrics.jsonl"
        if not file.exists():
            continue
        lines = (one for _, one in read_jsonl(file))
        if kept := [one for one in lines if measured & one.keys()]:
            stages[stage] = kept
    if not stages:
        raise DataError(
            f"no held-out measures in {run}",
            found="no metrics.jsonl with them",
            do="give a run whose training has measured (measure_every)",
        )
    best = {stage: best_step(records) for stage, records in stages.items()}
    report = {
        "run": run.resolve().name,
        "best": best,
        "note": "by content on the rows that training measures; one value a step, no interval",
        "stages": stages,
    }
    atomic_write(out / "trajectory.json", as_json(report, indent=1) + "\n")
    draw_trajectory(stages, best, out / "trajectory.png")
    return report
