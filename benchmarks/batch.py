"""A table of vectors explained in batch by a process that is killed twice: is every row there once,
and does memory stay level?

python benchmarks/batch.py [--rows 100000] [--out docs/results/batch.md]

The pair is a toy of random weights: what is measured is the way from Parquet to Parquet, not texts.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from nlakit.files.parquet import VECTOR, read_table, vector_array
from nlakit.run.folder import git_commit, library_versions
from nlakit.studies.batch import ROWS

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.conftest import D
from tests.pairs import save_pair
from tests.toyplace import toy_model

FILES = 8
INTERVAL = 0.05
KILLS = (0.3, 0.65)  # share of the parts that are there when the process is killed
BATCH = 250
COMMAND = [sys.executable, "-m", "nlakit", "explain"]
console = Console(highlight=False)


@dataclass
class Sitting:
    """One process: how it ended, and its resident memory by the number of parts there."""

    ended: str = ""
    seconds: float = 0.0
    parts: int = 0
    resident: list[tuple[int, int]] = field(default_factory=list)

    def level(self) -> tuple[float, float, float]:
        """Median MiB over the first and last fifth of what it made, and its peak."""
        made = sorted({parts for parts, _ in self.resident})[1:]  # before the first: loading
        fifth = max(len(made) // 5, 1)
        ends = (made[:fifth], made[-fifth:])
        medians = [np.median([size for parts, size in self.resident if parts in end] or [0])
                   for end in ends]  # fmt: skip
        peak = max(size for _, size in self.resident)
        return medians[0] / 2**20, medians[1] / 2**20, peak / 2**20


def write_vectors(folder: Path, rows: int) -> None:
    """Eight files with ids, each a single row group, which is the harder case for memory."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, ids in enumerate(np.array_split(np.arange(rows), FILES)):
        vectors = ((rng.standard_normal((len(ids), D)) + 1.5) * 20).astype(np.float32)
        table = pa.table({"id": ids, VECTOR: vector_array(vectors)})
        pq.write_table(table, folder / f"{number}.parquet", row_group_size=len(ids))


def parts_of(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def sit(command: list[str], out: Path, until: float) -> Sitting:
    """Run the command until so many parts are there, then kill it, or until it ends."""
    found, started = Sitting(), time.monotonic()
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        watch(child, out, until, found)
    finally:
        if child.poll() is None:
            child.kill()
            found.ended = "SIGKILL"
        child.wait()
    found.ended = found.ended or f"exit code {child.returncode}"
    found.seconds, found.parts = time.monotonic() - started, parts_of(out)
    return found


def watch(child: subprocess.Popen[bytes], out: Path, until: float, found: Sitting) -> None:
    process = psutil.Process(child.pid)
    while child.poll() is None:
        parts = parts_of(out)
        try:
            found.resident.append((parts, process.memory_info().rss))
        except psutil.Error:
            return
        if parts >= until:
            return
        time.sleep(INTERVAL)


def measure(rows: int, scratch: Path) -> dict[str, Any]:
    pair = save_pair(toy_model(scratch / "model", 4), scratch / "pair")
    write_vectors(scratch / "in", rows)
    out = scratch / "out"
    words = [str(pair), "--vectors", str(scratch / "in"), "--batch", str(BATCH)]
    parts = sum(-(-len(ids) // ROWS) for ids in np.array_split(np.arange(rows), FILES))
    command = [*COMMAND, *words, "--device", "cpu", "--out"]
    sittings = [sit([*command, str(out)], out, until=share * parts) for share in KILLS]
    sittings.append(sit([*command, str(out)], out, until=np.inf))
    table = read_table(out, ["id", "explanation", "problem"])
    return {
        "rows": rows,
        "sittings": sittings,
        "written": table.num_rows,
        "distinct": len(table["id"].unique()),
        "explained": table.num_rows - table["explanation"].null_count,
        "input": sum(file.stat().st_size for file in (scratch / "in").iterdir()),
    }


def lines_of(found: dict[str, Any], command: str) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    yield from (
        f"# {found['rows']:,} vectors explained in batch, killed twice",
        "",
        f"- command: `{command}`",
        f"- {datetime.now(UTC):%Y-%m-%d}; {psutil.cpu_count()} CPU cores ({platform.machine()})",
        f"- {versions}; commit {git_commit()}",
        "",
        f"A toy pair of random weights (d = {D}, 4 blocks, up to 8 tokens a text), with scores and "
        f"floors, {BATCH} vectors at once. The input is {FILES} Parquet files of one row group "
        f"each, {found['input'] / 2**20:.1f} MiB. Speed is the toy's, on a machine that did other "
        "work meanwhile.",
        "",
        "| process | ended by | parts | seconds | MiB in the first fifth | in the last | peak |",
        "|---|---|---|---|---|---|---|",
    )
    for number, one in enumerate(found["sittings"], 1):
        first, last, peak = one.level()
        yield (
            f"| {number} | {one.ended} | {one.parts} | {one.seconds:.0f} "
            f"| {first:.0f} | {last:.0f} | {peak:.0f} |"
        )
    yield from (
        "",
        f"{found['written']:,} rows were written, {found['distinct']:,} different ids, "
        f"{found['explained']:,} with an explanation. MiB are resident memory, its median over the "
        "first and the last fifth of the parts that the process made.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="Markdown file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nlakit-batch-") as scratch:
        found = measure(given.rows, Path(scratch))
    command = f"python benchmarks/batch.py --rows {given.rows}"
    lines = list(lines_of(found, command))
    console.print("\n".join(lines), markup=False, soft_wrap=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not found["written"] == found["distinct"] == found["explained"] == given.rows:
        sys.exit("rows are missing or there twice")


if __name__ == "__main__":
    main()
