"""Write docs/results/rl.md from finished trainings of joint RL and evaluations before and after.

python scripts/record_rl.py runs/rl-0 runs/rl-1 --command "nlakit run ... --set seed=1" \\
    --before EVAL --live EVAL --frozen EVAL

A run is a folder with `08_pair/rl`, or that folder's parent itself. `--live` is the evaluation of
the pair after RL, `--frozen` of its AV with the AR from before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from record_result import machine

from nlakit.core.shown import span
from nlakit.evaluate.compare import Key, Side, compare, difference, is_headline
from nlakit.publish.evaluation import read_side
from nlakit.run.folder import git_commit
from nlakit.train.rl.brakes import WINDOW
from nlakit.train.rl.instruments import RETENTION, change, summary

HELD_OUT = (
    "fve", "frozen_fve", "centred", "frozen_centred", "shuffle_kept", "paraphrase_kept",
    "within_family", "claim_precision", "unique", "repeated", "words",
)  # fmt: skip
EXTRA: tuple[Key, ...] = (
    ("retrieval", "within_family_top1", "tfidf:explanation"),
    ("functional", "kl", "real"),
    ("functional", "top1_kept", "real"),
    ("functional", "kl_removed", "real"),
)
DRAWN = ("reward_sum", "reward_spread", "entropy", "kl", "tokens", "truncated")


def place(run: Path) -> Path:
    """The folder of RL's log."""
    return next(
        one for one in (run / "08_pair/rl", run / "rl", run) if (one / "kept.json").exists()
    )


def curves(folder: Path) -> list[str]:
    """A line a measurement: held-out measures, and what was drawn in the steps before it."""
    start = json.loads((folder / "start.json").read_text(encoding="utf-8"))
    first = summary({name: np.array(v, dtype=np.float64) for name, v in start.items()})
    log = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records: list[dict[str, Any]] = [json.loads(line) for line in log]
    heads = ("step", *HELD_OUT, *DRAWN)
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    cells = [f"{first[name]:.3f}" for name in HELD_OUT]
    lines.append(f"| 0 | {' | '.join([*cells, *[''] * len(DRAWN)])} |")
    for at, record in enumerate(records):
        if "frozen_fve" not in record:
            continue
        cells = [f"{record[name]:.3f}" if name in record else "" for name in HELD_OUT]
        before = records[max(at - WINDOW + 1, 0) : at + 1]
        cells += [f"{np.mean([one[name] for one in before]):.3f}" for name in DRAWN]
        lines.append(f"| {record['step']} | {' | '.join(cells)} |")
    return [*lines, "", ended(folder, records)]


def ended(folder: Path, records: list[dict[str, Any]]) -> str:
    """What became of a training."""
    best = json.loads((folder / "kept.json").read_text(encoding="utf-8"))
    kept = ", ".join(f"{rule}: step {one['step']}" for rule, one in best.items())
    skipped = sum(one["skipped"] for one in records)
    said = f"Best so far: {kept}. Steps without a finite gradient: {skipped} of {len(records)}."
    file = folder / "training.json"
    if not file.exists():
        return f"{said} It was ended by hand before its last step."
    stopped = json.loads(file.read_text(encoding="utf-8"))["stopped"]
    return f"{said} " + (f"{stopped['says']} ({stopped['evidence']})." if stopped else "No brake.")


def retained(first: Side, other: Side) -> list[str]:
    """What the centred cosine retains under changes by rule, and other content, before and after:
    the same ratio and interval as in RL's own log."""
    lines = []
    for name, condition in (
        ("shuffle_kept", "sentence_shuffle"),
        ("paraphrase_kept", "paraphrase"),
    ):
        rows, documents = [], []
        for side in (first, other):
            read = {
                key[2]: v
                for key, v in side.values.items()
                if key[:2] == ("ar_reading", "centred_cosine")
            }
            if condition not in read:
                return lines
            same = [row for row in read[condition] if row in read["real"]]
            documents = [side.documents[row] for row in same]
            rows.append(
                {
                    "centred": np.array([read["real"][row] for row in same]),
                    RETENTION[name]: np.array([read[condition][row] for row in same]),
                }
            )
        if (found := change(name, rows[0], rows[1], documents)) is not None:
            lines.append(line(name, found.start, found.now, vars(found), ""))
    for key in EXTRA:
        one = difference(first, other, key, 10_000, 0)
        step = {"mean": one["difference"], "low": one["low"], "high": one["high"]}
        lines.append(
            line(" ".join(key), one["first_mean"], one["other_mean"], step, f"{one['p']:.4f} †")
        )
    return lines


def line(name: str, before: float, after: float, step: dict[str, Any], p: str) -> str:
    return f"| {name} | {before:.3f} | {after:.3f} | {span(step)} | {p} |"


def differences(before: Path, after: Path, what: str) -> list[str]:
    """The headline measures before and after, paired by row."""
    sides = [read_side(before), read_side(after)]
    lines = [
        "",
        f"{what}:",
        "",
        "| measure | before | after | difference ±95% | p (Holm; † by itself) |",
    ]
    lines.append("|---|---|---|---|---|")
    for one in compare(sides):
        if is_headline(one):
            step = {"mean": one["difference"], "low": one["low"], "high": one["high"]}
            name = f"{one['part']} {one['measure']} {one['condition']}"
            p = f"{one['p_holm']:.4f}"
            lines.append(line(name, one["first_mean"], one["other_mean"], step, p))
    return [*lines, *retained(*sides)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--command", required=True)
    parser.add_argument("--note", default="", help="what a reader must know of how it ran")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--live", type=Path)
    parser.add_argument("--frozen", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/rl.md"))
    given = parser.parse_args()
    lines = ["# Joint RL", "", f"- command: `{given.command}`", f"- {machine()}"]
    lines += [f"- recorded at commit {git_commit()}", *([f"- {given.note}"] if given.note else [])]
    lines += ["", "What each column is: `docs/rl.md`. "]
    lines[-1] += f"Drawn texts (from `{DRAWN[0]}` on): mean of the {WINDOW} steps before."
    for nth, run in enumerate(given.runs):
        lines += ["", f"## Run {nth + 1}: {run.name}", "", *curves(place(run))]
    for what, after in (
        ("The pair after RL", given.live),
        ("Its AV, read by the AR from before RL", given.frozen),
    ):
        if given.before and after:
            lines += differences(given.before, after, what)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
