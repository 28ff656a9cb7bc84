"""Peak resident memory of a run by stage: the process and its children, sampled from outside.

python benchmarks/memory.py [CONFIG] [--out DIR] [--set a.b=c] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from nlakit.run.folder import FOLDERS

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
COMMAND = [sys.executable, "-m", "nlakit", "run"]
INTERVAL = 0.05


def active_stage(out: Path) -> str:
    """The stage that has begun and has no manifest; `between` if there is none."""
    for stage, folder in FOLDERS.items():
        place = out / folder
        if (place / "begin.json").exists() and not (place / "manifest.json").exists():
            return stage
    return "between"


def resident(process: psutil.Process) -> int:
    """Bytes resident in a process and its children; what two of them share counts twice."""
    total = 0
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    for member in tree:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total


def watch(child: subprocess.Popen[bytes], out: Path) -> dict[str, dict[str, float]]:
    """Peak bytes and seconds of each stage until the child ends."""
    process = psutil.Process(child.pid)
    found: dict[str, dict[str, float]] = {}
    last = time.monotonic()
    while child.poll() is None:
        time.sleep(INTERVAL)
        stage, size, now = active_stage(out), resident(process), time.monotonic()
        entry = found.setdefault(stage, {"peak_bytes": 0, "seconds": 0.0, "samples": 0})
        entry["peak_bytes"] = max(entry["peak_bytes"], size)
        entry["seconds"] += now - last
        entry["samples"] += 1
        last = now
    return found


def measure(config: Path, out: Path, sets: list[str]) -> dict[str, Any]:
    """Run a configuration in a child; stages that were finished before are not seen."""
    options = [part for setting in sets for part in ("--set", setting)]
    child = subprocess.Popen([*COMMAND, str(config), "--out", str(out), *options])
    try:
        stages = watch(child, out)
    except BaseException:
        child.terminate()
        child.wait()
        raise
    return {"config": str(config), "set": sets, "exit": child.returncode, "stages": stages}


def show(results: dict[str, Any]) -> None:
    table = Table(title=f"peak resident memory, {results['config']}")
    for column in ("stage", "peak GiB", "seconds"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    stages = results["stages"]
    for stage in (*FOLDERS, "between"):
        if stage in stages:
            peak = f"{stages[stage]['peak_bytes'] / 2**30:.2f}"
            table.add_row(stage, peak, f"{stages[stage]['seconds']:.1f}")
    Console(highlight=False).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--out", type=Path, help="run folder; a temporary one unless given")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="sets")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nlakit-memory-") as scratch:
        results = measure(given.config, given.out or Path(scratch) / "run", given.sets)
    show(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(results["exit"])


if __name__ == "__main__":
    main()
