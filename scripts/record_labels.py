"""Write docs/results/labels.md from the files that the measurements left.

    NLAKIT_RECORD=DIR NLAKIT_LABEL_ROWS=5000 NLAKIT_LABEL_KILLS=20 NLAKIT_QUOTA_SECONDS=60 \\
        python -m pytest tests/data/labels/services/test_killed.py
    python benchmarks/labelling.py --json DIR/labelling.json
    nlakit corpus|activations|labels examples/labels-local.yaml --out DIR/run
    python scripts/record_labels.py DIR
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from nlakit.core.text.lint import lint
from nlakit.data.labels.labeler import SCHEMA
from nlakit.files.parquet import read_table
from nlakit.run.folder import RunDir, git_commit


def real_rows(folder: Path) -> dict[str, Any]:
    """The finished labels of the local server."""
    rundir = RunDir(folder / "run")
    table = read_table(rundir.need("labels")).to_pylist()
    rows = read_table(rundir.need("activations"), ["row_id", "detokenized_text_truncated"])
    sources = dict(zip(*rows.to_pydict().values(), strict=True))
    labelled = [row for row in table if row["api_explanation"]]
    complete = [
        row
        for row in labelled
        if all(row[name] is not None for name in SCHEMA.names if name not in ("reason", "cost"))
    ]
    faults = [
        fault for row in labelled for fault in lint(row["api_explanation"], sources[row["row_id"]])
    ]
    base = sqlite3.connect(folder / "answers.sqlite")
    outcomes = dict(base.execute("select outcome, count(*) from requests group by 1"))
    spans = base.execute("select min(sent_at), max(answered_at) from requests").fetchone()
    base.close()
    return {
        "rows": len(table),
        "labelled": len(labelled),
        "with complete provenance": len(complete),
        "reasons of the others": dict(Counter(row["reason"] for row in table if row["reason"])),
        "verdicts": dict(Counter(str(row["verdict"]) for row in labelled)),
        "requests by outcome": outcomes,
        "suspicions of the linter": dict(Counter(faults)),
        "first request, last answer": " – ".join(spans),
        "examples": [row["api_explanation"] for row in labelled[:3]],
    }


def lines(title: str, command: str, facts: dict[str, Any]) -> list[str]:
    made = ["", f"## {title}", "", f"`{command}`", ""]
    for name, value in facts.items():
        if isinstance(value, list):
            made += [f"- {name}:", *(f"  - {item}" for item in value)]
        else:
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
            made.append(f"- {name}: {shown}")
    return made


def main() -> None:
    folder = Path(sys.argv[1])
    killed, quota, speed = (
        json.loads((folder / f"{name}.json").read_text())
        for name in ("killed", "quota", "labelling")
    )
    memory = psutil.virtual_memory().total / 2**30
    text = [
        "# Labels by services",
        "",
        f"- {datetime.now(UTC):%Y-%m-%d}; {os.cpu_count()} CPU cores ({platform.machine()}), "
        f"{memory:.0f} GiB, no GPU; loopback only",
        f"- commit of this record: {git_commit()}; of the benchmark: {speed['commit']}",
        "- written by `python scripts/record_labels.py`, whose docstring has all commands",
    ]
    text += lines(
        "A real model behind a real server",
        "nlakit labels examples/labels-local.yaml",
        real_rows(folder),
    )
    text += [
        "",
        "The model is a tiny base model: this shows the protocol, not labels worth training on.",
    ]
    killed["faults"] = dict(sorted(killed["faults"].items()))
    bound = killed.pop("bound")
    text += lines(
        "Killed and faulted",
        f"NLAKIT_LABEL_ROWS={killed['rows']} NLAKIT_LABEL_KILLS={killed['kills']} "
        "python -m pytest tests/data/labels/services/test_killed.py",
        {
            **killed,
            "bound (distinct prompts + faults + kills × 32)": bound,
            "equal to an undisturbed run": "all columns but labelled_at, cost, attempts",
        },
    )
    asleep = [line for line in quota["log"].splitlines() if "asleep" in line]
    text += lines(
        "A daily quota, killed while asleep",
        "NLAKIT_QUOTA_SECONDS=60 "
        "python -m pytest tests/data/labels/services/test_killed.py -k asleep",
        {
            "rows": quota["rows"],
            "seconds from the end of the quota to the last row": round(quota["slept"], 1),
            "requests before the kill": quota["before"]["requests"],
            "requests in all": quota["requests"],
            "paid twice": quota["answered"] - quota["answered_prompts"],
            "said": asleep,
        },
    )
    speed.pop("commit")
    text += lines("Throughput and memory", "python benchmarks/labelling.py", speed)
    target = Path("docs/results/labels.md")
    target.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
