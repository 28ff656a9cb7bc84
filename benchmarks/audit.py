"""Seconds and peak memory of `nlakit audit` on a table of texts and scores.

python benchmarks/audit.py [--rows 100000] [--format jsonl] [--json OUT]

The table is drawn with a seed: explanations of some 60 words, sources of some 150, labels,
documents of five rows, a family, a cosine and an FVE. The audit runs in a child process, so that
its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from nlakit.run.folder import git_commit

COMMAND = [sys.executable, "-m", "nlakit", "audit"]


def sentences(count: int, words: int, seed: int) -> list[str]:
    """Texts of `words` drawn words in sentences of ten, with frequencies as in a language."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwyp"))
    lexicon = ["".join(rng.choice(letters, size=rng.integers(2, 10))) for _ in range(20000)]
    drawn = np.minimum(rng.zipf(1.2, size=(count, words)), len(lexicon)) - 1
    return [
        " ".join(lexicon[w] + ("." if k % 10 == 9 else "") for k, w in enumerate(row))
        for row in drawn.tolist()
    ]


def make_table(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    cosine = np.clip(rng.normal(0.6, 0.1, rows), -1, 1)
    return pa.table(
        {
            "row_id": [f"row-{i:07d}" for i in range(rows)],
            "doc_id": [f"document-{i // 5:07d}" for i in range(rows)],
            "source_family": [f"family-{i // 5 % 9}" for i in range(rows)],
            "explanation": sentences(rows, 60, seed + 1),
            "source_text": sentences(rows, 150, seed + 2),
            "label": sentences(rows, 60, seed + 3),
            "cosine": cosine,
            "fve": 1 - 2 * (1 - cosine) / 0.8,
        }
    )


def write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pc.write_csv(table, path)
    else:
        with path.open("w", encoding="utf-8") as file:
            for batch in table.to_batches(max_chunksize=10000):
                file.writelines(json.dumps(record) + "\n" for record in batch.to_pylist())


def measure(path: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak resident GiB (Linux) of the command on a file, in a child."""
    start = time.monotonic()
    save = ["--save", str(path.parent / "out.json")]
    subprocess.run([*COMMAND, str(path), *save], check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": time.monotonic() - start,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_GiB": used.ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--format", choices=("jsonl", "csv", "parquet"), default="jsonl")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nlakit-audit-") as scratch:
        path = Path(scratch) / f"rows.{given.format}"
        write(make_table(given.rows), path)
        size = path.stat().st_size / 2**20
        figures = measure(path)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    print(f"{given.rows} rows, {size:.0f} MiB of {given.format}: {shown}")
    if given.json:
        record = {"rows": given.rows, "format": given.format, "MiB": size, **figures}
        record["git_commit"] = git_commit()
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
