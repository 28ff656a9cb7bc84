"""Check a card against its results: hashes, findings computed again, and every printed number."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard

import numpy as np
from pydantic import ValidationError

from nlakit.errors import DataError
from nlakit.evaluate.bench import Bench, Measured, Part
from nlakit.evaluate.findings import KEYS, findings, parts_of
from nlakit.files.text import as_json
from nlakit.publish.card.model_card import CARD, CHANGED, RESULTS, render
from nlakit.publish.card.parts import CORRECTIONS
from nlakit.publish.evaluation import Evaluation, read_evaluation
from nlakit.publish.hub.archive import MANIFEST, read_manifest, wrong_file
from nlakit.run.folder import FOLDERS, read_exact

NUMBER = re.compile(r"[−-]?\d+(?:[.,]\d+)*%?")
# Sums in another order differ in the last bits; a changed digit differs by far more.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


@dataclass(frozen=True)
class Checked:
    """How much was compared, and the first thing that differs."""

    files: int
    findings: int = 0
    numbers: int = 0
    problem: str | None = None


def verify(target: Path) -> Checked:
    """Check a card's folder (or its README.md), or an archive of a run.

    Stops at the first difference. Raises DataError if there is nothing that can be checked.
    """
    folder = target.parent if target.name == CARD else target
    card = (folder / CARD).exists() and (folder / RESULTS).is_dir()
    results = folder / RESULTS if card else folder
    if not (results / MANIFEST).exists():
        raise DataError(
            f"nothing to verify in {folder}",
            found=f"no {results.relative_to(folder) / MANIFEST}",
            do="give what `nlakit card` or `nlakit archive` wrote",
        )
    files = len(read_manifest(results)["files"])
    if problem := wrong_file(results):
        return Checked(files, problem=problem)
    evaluated = [results, *sorted((results / CORRECTIONS).glob("*"))]
    if not card:
        kept = folder / FOLDERS["eval"]
        evaluated = [kept] if (kept / "values.parquet").exists() else []
    count = 0
    for place in evaluated:
        evaluation = read_evaluation(place)
        count += len(evaluation.findings)
        if problem := wrong_finding(evaluation) or wrong_result(evaluation):
            return Checked(files, count, problem=f"{place.relative_to(folder)}: {problem}")
    if not card:
        return Checked(files, count)
    expected = render(results)
    problem = wrong_line(read_exact(folder / CARD), expected)
    return Checked(files, count, len(NUMBER.findall(expected)), problem)


def measured(evaluation: Evaluation) -> list[Part]:
    """The parts again, with what no row has a value of: the table of values leaves it out."""
    rows = evaluation.rows.row_ids
    parts = {part.name: part for part in parts_of(evaluation.values, rows)}
    for one in evaluation.findings:
        if one["group"] == "all" and not one["rows"]:
            part = parts.setdefault(one["part"], Part(one["part"]))
            none = np.full(len(rows), np.nan)
            key = one["measure"], one["condition"]
            part.measured.append(Measured(*key, none, one["floor"], one["p"]))
    return list(parts.values())


def findings_again(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The findings, from the values a row."""
    from nlakit.evaluate.parts.roundtrip import groups_of

    rows = evaluation.rows
    return findings(measured(evaluation), rows.doc_ids, groups_of(rows))


def wrong_finding(evaluation: Evaluation) -> str | None:
    """The first of the findings that the values a row do not give."""
    known = {tuple(one[name] for name in KEYS): one for one in findings_again(evaluation)}
    for stored in evaluation.findings:
        key = tuple(stored[name] for name in KEYS)
        if key not in known:
            return f"finding {', '.join(key)} has no values a row"
        if found := first_difference(dict(stored), known.pop(key), ", ".join(key)):
            return f"finding {found}"
    left = next(iter(known), None)
    return f"finding {', '.join(left)} is missing" if left else None


def wrong_result(evaluation: Evaluation) -> str | None:
    """The first number of results.json that rows and values do not give."""
    for name, expected in results_again(evaluation).items():
        if found := first_difference(evaluation.results.get(name), expected, name):
            return f"results.json, {found}"
    return None


def results_again(evaluation: Evaluation) -> dict[str, Any]:
    """What rows and values give of results.json: verdict with its evidence, scores, gains, counts,
    text statistics, and the scores of each example.

    Warnings, notes, the parts' details and provenance rest on the models and the training rows,
    which are not here. Raises DataError for settings of another version of nlakit.
    """
    from nlakit.config.sections import EvalConfig
    from nlakit.evaluate.battery import assemble
    from nlakit.evaluate.parts.roundtrip import card_block

    results, rows = evaluation.results, evaluation.rows
    settings = {key: value for key, value in results["settings"].items() if key != "seed"}
    try:
        config = EvalConfig.model_validate(settings)
    except ValidationError as error:
        raise DataError(
            "the evaluation was made by another version of nlakit",
            found=f"settings {', '.join(str(one['loc'][0]) for one in error.errors())}",
            do="evaluate again",
        ) from error
    kept = {part.name: part for part in measured(evaluation)}
    parts = []
    for name, said in results["parts"].items():
        part = kept.get(name, Part(name))
        parts.append(replace(part, notes=said["notes"], detail=said["detail"]))
    with TemporaryDirectory(prefix="nlakit-verify-") as scratch:
        bench = Bench(
            rows,
            evaluation.texts,
            np.zeros(1),
            config,
            results["settings"]["seed"],
            Path(scratch),
        )
        again = json.loads(as_json(assemble(bench, parts)))
    if "roundtrip" in kept:  # else it is only what the part's details say
        again["card"] = card_block(kept["roundtrip"].of("cosine", "real"), evaluation.texts)
    return again


def first_difference(found: Any, expected: Any, where: str) -> str | None:
    """Where two JSON-like values differ first, and how; None if they agree up to rounding of the
    last bits."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        if found.keys() != expected.keys():
            odd = sorted(map(str, found.keys() ^ expected.keys()))
            return f"{where}: {', '.join(odd)} on one side only"
        pairs = ((found[key], expected[key], f"{where}, {key}") for key in expected)
        return next((odd for pair in pairs if (odd := first_difference(*pair))), None)
    if isinstance(found, list | tuple) and isinstance(expected, list | tuple):
        if len(found) != len(expected):
            return f"{where}: found {len(found)} entries, expected {len(expected)}"
        pairs = zip(found, expected, (f"{where}, {i}" for i in range(len(found))), strict=True)
        return next((odd for pair in pairs if (odd := first_difference(*pair))), None)
    same = found == expected
    if _number(found) and _number(expected):
        same = math.isclose(found, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return None if same else f"{where}: found {found}, expected {expected}"


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def wrong_line(found: str, expected: str) -> str | None:
    """The first number of a card that is not the expected one, with its line; or the first line
    whose words are not."""
    if found != expected and found.replace("\r\n", "\n") == expected.replace("\r\n", "\n"):
        return f"{CARD}: line ends differ"
    lines = zip_longest(found.split("\n"), expected.split("\n"))
    for place, (mine, theirs) in enumerate(lines, 1):
        if mine == theirs:
            continue
        if mine is None or theirs is None:
            return f"{CARD} line {place}: found {mine!r}, expected {theirs!r}"
        for left, right in _numbers(mine, theirs):
            if left != right:
                return f"{CARD} line {place}: found {left or 'none'}, expected {right or 'none'}"
        return f"{CARD} line {place}: found {mine!r}, expected {theirs!r} ({CHANGED})"
    return None


def _numbers(left: str, right: str) -> Iterator[tuple[str | None, str | None]]:
    return zip_longest(NUMBER.findall(left), NUMBER.findall(right))
