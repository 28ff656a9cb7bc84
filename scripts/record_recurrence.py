"""The evaluation part `recurrence` alone, on a finished pair: its section of
docs/results/recurrence.md, and its values beside that. For the pair in the box also the figure that
comes with it.

python scripts/record_recurrence.py demo --name box --rows 96 --samples 8
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from record_result import machine

from nlakit.config.sections import EvalConfig
from nlakit.core.shown import span
from nlakit.evaluate.bench import Bench, Part
from nlakit.evaluate.conditions import pick_rows
from nlakit.evaluate.parts.recurrence import measure
from nlakit.files.rows import rows_of_file, tables_at
from nlakit.files.text import as_json
from nlakit.models.nla import NLA
from nlakit.run.folder import git_commit
from nlakit.studies.evaluation import av_texts

BATCH = 256
SIGNALS = {
    "samples": "recurrence over samples",
    "neighbours": "recurrence over neighbours",
    "both": "recurrence over both",
    "deletion": "deletion under the AR",
    "other_row": "floor: the word's share of another document's texts",
}
WORDS = {
    "explanation": "all words",
    "repeated": "repeated by at least half of the texts",
    "unrepeated": "repeated by fewer than a quarter",
    "other_row": "floor: all words, in another document's source",
}


def measured(pair: str, rows: int, samples: int, seed: int) -> tuple[Part, dict[str, Any]]:
    """The part, and what was measured on: rows, documents, seconds."""
    settings = EvalConfig(
        rows=rows, control_rows=-(-rows // 2), samples=samples, generate_batch=BATCH
    )
    own = pair == "demo" and not Path(pair).exists()
    data = Path(str(files("nlakit"))) / "box" / "rows" if own else Path(pair)
    start, nla = time.monotonic(), NLA.load(pair)
    assert nla.av is not None and nla.mean is not None, "a pair of nlakit"
    test = pick_rows(rows_of_file(tables_at(data)["test"]), settings.rows, per_document=1)
    with tempfile.TemporaryDirectory() as folder:
        texts = av_texts(nla.av, test, settings.generate_batch, Path(folder))
        bench = Bench(test, texts, nla.mean, settings, seed, Path(folder), av=nla.av, ar=nla.ar)
        part = measure(bench)
    about = {"rows": len(test), "documents": len(set(test.doc_ids)), "layer": nla.contract.layer}
    about |= {"subject": nla.contract.extraction.base_model, "own": own}
    return part, about | {"seconds": round(time.monotonic() - start)}


def lines_of(pair: str, part: Part, about: dict[str, Any]) -> list[str]:
    lines = [
        f"## {pair}",
        "",
        f"- command: `{about['command']}`; {about['machine']}",
        f"- commit: {about['commit']}; {about['date']}; {about['seconds']} s, with loading and"
        " explaining, other work beside it",
        f"- {about['subject']}, layer {about['layer']}",
    ]
    found = part.detail.get("figure")
    if found is None:
        return [*lines, *(f"- {note}" for note in part.notes), ""]
    rows, apart = found["auc"]["samples"], part.detail["apart"]
    lines += [
        f"- {found['words']} different content words of {rows['rows']} rows of {rows['documents']} "
        f"held-out documents; {found['samples']} samples at temperature {found['temperature']:g}, "
        f"{found['neighbours']} neighbours",
        f"- left out: {apart['next']} words predicted to come next, {apart['frame']} of the pair's "
        "habit",
        *(f"- {note}" for note in part.notes),
        "",
        "| score of a word | AUROC for standing in the source | over deletion |",
        "|---|---|---|",
    ]
    over = found["auc_over_deletion"]
    lines += [
        f"| {title} | {span(found['auc'][name])} |"
        f" {span(over[name], '+') if name in over else ''} |"
        for name, title in SIGNALS.items()
        if name in found["auc"]
    ]
    lines += ["| chance | 0.500 | |", "", "| words | share that the source has |", "|---|---|"]
    lines += [
        f"| {title} | {span(found['supported'][name])} |"
        for name, title in WORDS.items()
        if name in found["supported"]
    ]
    return [*lines, ""]


def write(out: Path, kept: dict[str, Any]) -> None:
    """Both files, of all pairs that have been recorded."""
    lines = [
        "# Which words to believe",
        "",
        "What is measured: `docs/evaluation.md`, part `recurrence`; 95% intervals over documents. "
        "Each pair's values, and the texts that were compared, lie in `recurrence.json`.",
        "",
    ]
    for pair, one in kept.items():
        lines += lines_of(pair, Part.parse(json.dumps(one["part"])), one["about"])
    (out / "recurrence.json").write_text(as_json(kept) + "\n", encoding="utf-8")
    (out / "recurrence.md").write_text("\n".join(lines), encoding="utf-8")


def keep_in_box(part: dict[str, Any]) -> None:
    """The pair in the box brings its figure, as whoever shows its marks looks for it."""
    file = Path(str(files("nlakit"))) / "box" / "results.json"
    results = json.loads(file.read_text(encoding="utf-8"))
    results["parts"] = {"recurrence": {"detail": {"figure": part["detail"]["figure"]}}}
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pair", help="demo, which is the pair in the box, or a run folder")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="what the record calls it")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    part, about = measured(given.pair, given.rows, given.samples, given.seed)
    about |= {
        "command": f"python {' '.join(sys.argv)}", "machine": machine(),
        "commit": git_commit(), "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }  # fmt: skip
    file = given.out / "recurrence.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    one = {"about": about, "part": json.loads(part.dump())}
    write(given.out, kept | {given.name or Path(given.pair).name: one})
    if about["own"]:
        keep_in_box(one["part"])


if __name__ == "__main__":
    main()
