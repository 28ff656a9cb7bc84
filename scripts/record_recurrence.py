"""Write docs/results/recurrence.md from finished evaluations that have the part `recurrence`.

python scripts/record_recurrence.py EVAL --name box --command "nlakit eval demo" --box
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from record_result import machine

from nlakit.core.shown import span
from nlakit.files.text import as_json

BOX = Path("src/nlakit/box/results.json")
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


def read(folder: Path, command: str) -> dict[str, Any]:
    """What an evaluation found of the part, and where it comes from."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    begin = json.loads((folder / "begin.json").read_text(encoding="utf-8"))
    found, part = results["provenance"], results["parts"]["recurrence"]
    return {
        "command": command, "machine": machine(), "begun": begin.get("started", ""),
        "commit": found["git_commit"], "pair_commit": found["pair_commit"],
        "subject": found["base_model"], "layer": found["layer"], "notes": part["notes"],
        "apart": part["detail"].get("apart"), "figure": part["detail"].get("figure"),
    }  # fmt: skip


def lines_of(pair: str, one: dict[str, Any]) -> list[str]:
    lines = [
        f"## {pair}",
        "",
        f"- command: `{one['command']}`; {one['machine']}",
        f"- commit: {one['commit']}; pair of commit {one['pair_commit']}; begun {one['begun']}",
        f"- {one['subject']}, layer {one['layer']}",
        *(f"- {note}" for note in one["notes"]),
    ]
    found = one["figure"]
    if found is None:
        return [*lines, ""]
    rows, apart = found["auc"]["samples"], one["apart"]
    lines += [
        f"- {found['words']} different content words of {rows['rows']} rows of {rows['documents']} "
        f"held-out documents; {found['samples']} samples at temperature {found['temperature']:g}, "
        f"{found['neighbours']} neighbours",
        f"- left out: {apart['next']} words predicted to come next, {apart['frame']} of the pair's "
        "habit",
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
        "What is measured: `docs/evaluation.md`, part `recurrence`; 95% intervals over documents.",
        "",
    ]
    for pair, one in kept.items():
        lines += lines_of(pair, one)
    (out / "recurrence.json").write_text(as_json(kept, indent=1) + "\n", encoding="utf-8")
    (out / "recurrence.md").write_text("\n".join(lines), encoding="utf-8")


def keep_in_box(figure: dict[str, Any]) -> None:
    """The pair in the box brings its figure, as whoever shows its marks looks for it."""
    results = json.loads(BOX.read_text(encoding="utf-8"))
    results["parts"] = {"recurrence": {"detail": {"figure": figure}}}
    BOX.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluation", type=Path, metavar="EVAL")
    parser.add_argument("--name", required=True, help="what the record calls the pair")
    parser.add_argument("--command", required=True)
    parser.add_argument("--box", action="store_true", help="this is the pair in the box")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    given = parser.parse_args()
    one = read(given.evaluation, given.command)
    file = given.out / "recurrence.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    write(given.out, kept | {given.name: one})
    if given.box:
        keep_in_box(one["figure"])


if __name__ == "__main__":
    main()
