"""docs/results/layers.md and its plot from a finished `nlakit layers` run.

python scripts/record_layers.py runs/layers "nlakit layers gemma-3-270m demo"
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from nlakit.studies.layers import table_of

RESULTS = Path("docs/results")


def main(folder: Path, command: str) -> None:
    report = json.loads((folder / "layers.json").read_text(encoding="utf-8"))
    shown = Console(file=io.StringIO(), width=90)
    shown.print(table_of(report))
    assert isinstance(shown.file, io.StringIO)
    origin = report["provenance"]
    finished = datetime.fromtimestamp((folder / "layers.json").stat().st_mtime, UTC)
    lines = [
        "# Layers of the embedded model",
        "",
        f"- command: `{command}`; {os.cpu_count()} CPU cores, no GPU",
        f"- commit: {origin['git_commit']}; finished: {finished:%Y-%m-%d %H:%M} UTC",
        "- what is measured, and the rule behind the recommendation: `docs/layers.md`",
        "",
        "```",
        *(line.rstrip() for line in shown.file.getvalue().rstrip().splitlines()),
        "```",
        "",
        "![each measure over the layers, with its floors](layers.png)",
        "",
    ]
    (RESULTS / "layers.md").write_text("\n".join(lines), encoding="utf-8")
    shutil.copyfile(folder / "layers.png", RESULTS / "layers.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
