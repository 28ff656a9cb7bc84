"""Make a card's findings, results, figures and text again from its stored values a row.

python scripts/refresh_card.py docs/results/box

For a card whose evaluation is older than a way of computing or writing. Warnings, notes and details
stay as the evaluation wrote them, and so do the values; the card says what has been refreshed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow as pa

from nlakit import __version__
from nlakit.evaluate.findings import SCHEMA
from nlakit.files.parquet import write_table
from nlakit.files.text import as_json
from nlakit.publish.card.model_card import CARD, RESULTS, draw_figures, render
from nlakit.publish.card.parts import CORRECTIONS
from nlakit.publish.card.verify import findings_again, results_again, verify
from nlakit.publish.evaluation import read_evaluation
from nlakit.publish.hub.archive import write_manifest
from nlakit.run.folder import atomic_write, git_commit


def refresh(card: Path) -> None:
    results, commit = card / RESULTS, git_commit() or "unknown"  # before files are changed
    for place in [results, *sorted((results / CORRECTIONS).glob("*"))]:
        old = read_evaluation(place)
        found = pa.Table.from_pylist(findings_again(old), schema=SCHEMA)
        again = old.results | results_again(old)
        write_table(place / "findings.parquet", found)
        atomic_write(place / "results.json", as_json(again, indent=1) + "\n")
    about = json.loads((results / "card.json").read_text(encoding="utf-8"))
    about["refreshed"] = f"{__version__}, commit {commit}"
    atomic_write(results / "card.json", as_json(about, indent=1) + "\n")
    draw_figures(read_evaluation(results), results / "figures")
    write_manifest(results)
    atomic_write(card / CARD, render(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("card", type=Path)
    card = parser.parse_args().card
    refresh(card)
    if problem := verify(card).problem:
        raise SystemExit(problem)


if __name__ == "__main__":
    main()
