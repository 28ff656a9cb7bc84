"""Evaluate a pair on held-out documents: every part, findings with floors, warnings, verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from nlakit.core.statistics import estimate
from nlakit.core.text.stats import collapse_summary
from nlakit.errors import DataError
from nlakit.evaluate.bench import Bench, Part
from nlakit.evaluate.conditions import FLOORS
from nlakit.evaluate.data_checks import check_data
from nlakit.evaluate.findings import ROWS, SCHEMA, findings, value_table
from nlakit.evaluate.parts import layers, roundtrip
from nlakit.evaluate.scoring import MEASURES, Scores, gains, score_table, summarise
from nlakit.evaluate.verdict import judge
from nlakit.evaluate.warnings import warnings_of
from nlakit.files.parquet import write_table
from nlakit.files.rows import TableRows
from nlakit.files.text import as_json
from nlakit.run.folder import atomic_write
from nlakit.run.progress import say

Measure = Callable[[Bench], Part]
# In order: what the AV writes comes before what the AR reads of it.
QUICK = (
    "av_reading", "roundtrip", "ar_reading", "functional", "baselines", "retrieval", "truth",
    "collapse",
)  # fmt: skip
FULL = (*QUICK, "attribution", "av_sweep", "recurrence")
# Parts that ask a language model, with their modules.
JUDGED = {
    "rewrites": "judged.rewrites",
    "judged_claims": "judged.claims",
    "judged_quality": "judged.quality",
}


def write_evaluation(bench: Bench, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Run every part of the profile and write into the bench's folder: rows.parquet (source,
    label, explanation), values.parquet (a value a row), texts.parquet (every text that was read,
    whole), findings.parquet (means with intervals, floors, gains), results.json and eval.yaml.

    Raises DataError with fewer than two documents: floors and intervals need others beside each.
    """
    rows = bench.rows
    if len(set(rows.doc_ids)) < 2:
        raise DataError(
            "too few held-out documents: floors and intervals need others beside each",
            found=f"{len(set(rows.doc_ids))} in the test part",
            do="use more documents, or a larger split.test",
        )
    parts = [run_part(name, bench) for name in wanted(bench)]
    found = findings(parts, rows.doc_ids, roundtrip.groups_of(rows))
    results = assemble(bench, parts) | {"provenance": dict(provenance)}
    results["provenance"] |= {
        "baseline": bench.base,
        "baseline_source": "the evaluated rows, with the mean unit vector "
        + provenance.get("mean_source", "of av, ar and rl"),
    }
    results["warnings"] = warnings_of(bench, parts, found) + check_data(bench)
    folder = bench.folder
    roundtrip_part = next(part for part in parts if part.name == "roundtrip")
    scores = score_table(scores_of(roundtrip_part, bench.base), rows)
    write_table(folder / "scores.parquet", scores)
    write_table(folder / "rows.parquet", row_table(bench))
    write_table(folder / "values.parquet", value_table(parts, rows.row_ids, rows.doc_ids))
    write_table(folder / "texts.parquet", text_table(parts, rows))
    write_table(folder / "findings.parquet", pa.Table.from_pylist(found, schema=SCHEMA))
    atomic_write(folder / "results.json", as_json(results, indent=1) + "\n")
    atomic_write(folder / "eval.yaml", sidecar(results))
    return results


def wanted(bench: Bench) -> list[str]:
    """The parts of the profile; other layers where they are asked for, and those that need a judge
    only where there is one."""
    names = FULL if bench.settings.profile == "full" else QUICK
    asked = ("layers",) if bench.settings.layers else ()
    return [*names, *asked, *(JUDGED if bench.judge else ())]


def run_part(name: str, bench: Bench) -> Part:
    """A part's values, kept as soon as they exist, so that a restart does not take them again."""
    file = bench.folder / "parts" / f"{name}.json"
    if file.exists() and (kept := _kept(file, len(bench.rows))):
        return kept
    say(f"evaluation: {name}")
    # What lies in the cache decides which texts share a batch, and so the last bits: a part begins
    # anew, so that it gives the same values after a restart.
    bench.forget()
    module = JUDGED.get(name, f"parts.{name}")
    measure: Measure = import_module(f"nlakit.evaluate.{module}").measure
    part = measure(bench)
    file.parent.mkdir(exist_ok=True)
    atomic_write(file, part.dump())
    return part


def _kept(file: Path, rows: int) -> Part | None:
    """A part that was measured before; None, so that it is measured again, if it is damaged."""
    try:
        part = Part.parse(file.read_text(encoding="utf-8"))
        whole = all(one.values.shape == (rows,) for one in part.measured)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return part if whole else None


def assemble(bench: Bench, parts: list[Part]) -> dict[str, Any]:
    """Everything that is said, as one JSON-able mapping."""
    rows, texts, settings, seed = bench.rows, bench.texts, bench.settings, bench.seed
    named = {part.name: part for part in parts}
    written = np.array([bool(text.strip()) for text in texts])
    results: dict[str, Any] = {
        "profile": settings.profile,
        "settings": {**settings.model_dump(mode="json", exclude={"judge"}), "seed": seed},
        "rows": {
            "attempted": len(rows),
            "documents": len(set(rows.doc_ids)),
            "empty": int((~written).sum()),
        },
        "texts": collapse_summary(texts),
        "label_texts": collapse_summary(rows.texts),
        "parts": {part.name: {"notes": part.notes, "detail": part.detail} for part in parts},
    }
    results |= scored(bench, scores_of(named["roundtrip"], bench.base))
    results["card"] = named["roundtrip"].detail["card"]
    nonempty = named["roundtrip"].of("centred_cosine", "real")[written]
    results["rows"]["centred_cosine_without_empty"] = (
        float(nonempty.mean()) if len(nonempty) else None
    )
    if "av_reading" in named:
        results |= read_by_av(named["av_reading"], bench)
    if "layers" in named:
        results["layers"] = layers.summary(named["layers"], rows.doc_ids)
    return results


def scores_of(part: Part, base: float) -> Scores:
    """The round trip's values by condition and measure."""
    values: dict[str, dict[str, Any]] = {}
    for one in part.measured:
        if one.measure in MEASURES:
            values.setdefault(one.condition, {})[one.measure] = one.values
        elif one.measure == "mrr":
            values[one.condition]["rank"] = 1 / one.values - 1
    return Scores(values, part.texts, base)


def scored(bench: Bench, scores: Scores) -> dict[str, Any]:
    """Verdict, scores and gains of the round trip, and every row as an example."""
    rows = bench.rows
    centred = scores.of("centred_cosine")
    floors = [name for name in FLOORS if name in scores.values]
    verdict = judge(
        bench.texts,
        centred,
        scores.of("fve")["real"],
        rows.doc_ids,
        permutations=bench.settings.permutations,
        seed=bench.seed,
    )
    return {
        "verdict": {"word": verdict.word, "reasons": verdict.reasons, "evidence": verdict.evidence},
        "scores": summarise(scores, rows),
        "gains": gains(scores, rows, floors),
        "floors": floors,
        "examples": [example(bench, scores, i) for i in range(len(rows))],
    }


def example(bench: Bench, scores: Scores, i: int) -> dict[str, Any]:
    """One row with its texts and scores."""
    rows, centred = bench.rows, scores.of("centred_cosine")
    known = {name: float(centred[name][i]) for name in ("label", "other_row") if name in centred}
    return {
        "row_id": rows.row_ids[i],
        "doc_id": rows.doc_ids[i],
        "source_family": rows.families[i],
        "source": rows.sources[i],
        "label": rows.texts[i],
        "explanation": bench.texts[i],
        "centred_cosine": float(centred["real"][i]),
        "cosine": float(scores.of("cosine")["real"][i]),
        "fve": float(scores.of("fve")["real"][i]),
        "label_centred_cosine": known.get("label"),
        "other_row_centred_cosine": known.get("other_row"),
    }


def read_by_av(part: Part, bench: Bench) -> dict[str, Any]:
    """The AV's losses and controls as the report and the card show them."""

    def spanned(measure: str, condition: str) -> dict[str, Any]:
        values = part.of(measure, condition)
        known = np.flatnonzero(~np.isnan(values))
        documents = [bench.documents[i] for i in known]
        return estimate(values[known], documents).as_dict()

    found: dict[str, Any] = {}
    if any(one.measure == "gap" for one in part.measured):
        places = {"right": "right_vector", "other": "other_vector"}
        found["av_loss"] = {name: spanned("nll", place) for name, place in places.items()}
        found["av_loss"]["gap"] = spanned("gap", "labels")
    controls = part.detail.get("controls", {})
    scored_too = {one.condition for one in part.measured if one.measure == "fve"}
    found["av_controls"] = {
        name: {**control, **{m: spanned(m, name) for m in ("fve", "centred_cosine")}}
        for name, control in controls.items()
        if name in scored_too
    }
    return found


def row_table(bench: Bench) -> pa.Table:
    """The evaluated rows without their vectors, in their order."""
    rows = bench.rows
    norms = np.linalg.norm(rows.vectors.astype(np.float64), axis=1)
    return pa.table(
        {
            "row_id": rows.row_ids,
            "doc_id": rows.doc_ids,
            "source_family": rows.families,
            "position": rows.positions,
            "norm": norms,
            "source": rows.sources,
            "label": rows.texts,
            "explanation": bench.texts,
        },
        schema=ROWS,
    )


def text_table(parts: list[Part], rows: TableRows) -> pa.Table:
    """Part, condition, row and whole text of everything that was read or written."""
    names = ("part", "condition", "row_id", "text")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for part in parts:
        for condition, texts in part.texts.items():
            for row_id, text in zip(rows.row_ids, texts, strict=False):
                if text is not None:
                    for name, value in zip(
                        names, (part.name, condition, row_id, text), strict=True
                    ):
                        columns[name].append(value)
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in names]))


def sidecar(results: Mapping[str, Any]) -> str:
    """eval.yaml: what a reader of the checkpoint must know in one short file."""
    scores, found = results["scores"]["real"], results["provenance"]
    headline = {
        name: {key: round(scores[name][key], 4) for key in ("mean", "low", "high")}
        for name in ("fve", "centred_cosine", "cosine")
    }
    gain = results["gains"]["centred_cosine"]
    headline["content_gain"] = {
        "over": gain["best_floor"],
        **{key: round(gain[key], 4) for key in ("mean", "low", "high")},
    }
    record = {
        "commit": found.get("git_commit"),
        "data_sha256": found.get("data_sha256"),
        "rows": results["rows"],
        "verdict": results["verdict"]["word"],
        "warnings": [one["code"] for one in results["warnings"]],
        "scores": headline,
        "card_block": results["card"],
    }
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
