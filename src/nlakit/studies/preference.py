"""Which of two pairs writes the better explanations of the same rows, as a judge sees it blind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlakit.config.sections import RunConfig
from nlakit.data.labels.label import store_path
from nlakit.errors import ConfigError, DataError
from nlakit.evaluate.bench import Judge
from nlakit.evaluate.findings import findings
from nlakit.evaluate.judged.pairwise import compare
from nlakit.files.text import as_json
from nlakit.publish.evaluation import evaluation_folder, read_evaluation
from nlakit.run.folder import atomic_write
from nlakit.studies.evaluation import judging

FILE = "preference.json"


def write_preference(first: Path, second: Path, config: RunConfig, out: Path) -> dict[str, Any]:
    """Ask the judge of `eval.judge` about the first `eval.judge_rows` rows that both evaluations
    have; preference.json in `out`, with every text and the counts. Answers are kept in
    `requests.store`, else in `out`.

    Raises ConfigError without a judge; DataError if the evaluations share fewer than two documents
    with a source.
    """
    if config.eval.judge is None:
        raise ConfigError("no judge is configured", do="set eval.judge, as docs/evaluation.md does")
    out.mkdir(parents=True, exist_ok=True)
    store = store_path(config.requests, out)
    with judging(config.eval, config.requests, store, str(out.resolve())) as judge:
        assert judge is not None, "a judge is configured"
        found = preference(first, second, judge, config.eval.judge_rows)
    found["judge"] = config.eval.judge.model_dump(mode="json")
    atomic_write(out / FILE, as_json(found, indent=1) + "\n")
    return found


def preference(first: Path, second: Path, judge: Judge, rows: int) -> dict[str, Any]:
    """Findings of `pairwise.compare` over shared rows, with notes, counts and texts."""
    sides = [
        {row["row_id"]: row for row in read_evaluation(evaluation_folder(place)).table.to_pylist()}
        for place in (first, second)
    ]
    shared = [
        (one, other)
        for row_id, one in sides[0].items()
        if (other := sides[1].get(row_id)) and one["source"] == other["source"] != ""
    ][:rows]
    documents = [one["doc_id"] for one, _ in shared]
    if len(set(documents)) < 2:
        raise DataError(
            "the evaluations share too few rows: a judge compares two texts of one source",
            found=f"{len(shared)} rows of {len(set(documents))} documents",
            do="evaluate both pairs on the same rows: nlakit eval --av X --ar X --data ROWS",
        )
    part = compare(
        [one["source"] for one, _ in shared],
        [one["explanation"] for one, _ in shared],
        [other["explanation"] for _, other in shared],
        judge,
    )
    return {
        "first": str(first.name),
        "second": str(second.name),
        "findings": findings([part], documents),
        "notes": part.notes,
        "detail": part.detail,
        "row_ids": [one["row_id"] for one, _ in shared],
        "texts": part.texts,
    }
