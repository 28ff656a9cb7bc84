"""Write docs/results/NAME.md from the folder of an evaluation: every figure comes from its files.

python scripts/record_evaluation.py runs/eval-demo --name box --command "nlakit eval demo" \\
    --took "2 minutes"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from record_result import machine

from nlakit.core.shown import span
from nlakit.files.parquet import read_table

SHOWN = ("fve", "centred_cosine", "gap", "top1", "percentile", "within_family_percentile")
SHOWN += ("family_top1", "quote_precision", "word_precision", "fabricated", "unique", "self_bleu")
SHOWN += ("agreement", "same_tail_gain", "over_scale_1", "share_top5", "delta_fve_top_word")
SHOWN += ("claim_precision", "quality", "fve_own_mean", "fve_mean_direction", "auc", "supported")

GAIN = {"mean": "gain", "low": "gain_low", "high": "gain_high"}


def shown(one: dict[str, Any]) -> str:
    """A line of the table: mean, floor's name and gain with intervals, p."""
    gain = {"mean": one["gain"], "low": one["gain_low"], "high": one["gain_high"]}
    over = f"{span(gain)} over {one['floor']}" if one["gain"] is not None else ""
    p = f"{one['p']:.3f}" if one["p"] is not None else ""
    names = " | ".join(f"{one[key]}" for key in ("part", "measure", "condition"))
    return f"| {names} | {span(one)} | {one['rows']} | {over} | {p} |"


def layer_table(records: list[dict[str, Any]]) -> list[str]:
    """A line a layer: scores against its own vectors and against those of the pair's layer."""
    own = next(record["layer"] for record in records if record["own"])
    heads = ("layer", "centred cosine", "floor", "gain", "FVE", "top-1")
    heads += (f"centred cosine with layer {own}", "floor", "alike", "unique", "reads")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for record in records:
        cells = [f"**{record['layer']}**" if record["own"] else str(record["layer"])]
        for name in ("centred_cosine", "fve", "top1", "centred_cosine_k", "alike", "unique"):
            found = record[name]
            cells.append(span(found))
            if name.startswith("centred_cosine"):
                cells.append(f"{found['floor_mean']:.3f} ({found['floor'].split('_', 2)[2]})")
            if name == "centred_cosine":
                cells.append(span({key: found[at] for key, at in GAIN.items()}))
        lines.append(f"| {' | '.join([*cells, 'yes' if record['reads'] else 'no'])} |")
    return lines


def lines_of(folder: Path, name: str, command: str, took: str) -> list[str]:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    begin = json.loads((folder / "begin.json").read_text(encoding="utf-8"))
    found, verdict = results["provenance"], results["verdict"]
    rows = results["rows"]
    lines = [
        f"# {name}",
        "",
        f"- command: `{command}`",
        f"- begun: {begin.get('started', 'see the manifest')}; took {took}; machine: {machine()}",
        f"- commit: {found['git_commit']}; pair of commit {found['pair_commit']}",
        f"- data, SHA-256: {found['data_sha256']}",
        f"- {', '.join(f'{key} {version}' for key, version in found['versions'].items())}",
        f"- {rows['attempted']} rows of {rows['documents']} held-out documents,"
        f" {rows['empty']} empty; profile {results['profile']}; 95% intervals over documents",
        f"- FVE baseline {found['baseline']:.4f} ({found['baseline_source']})",
        "",
        f"**Verdict: {verdict['word']}**: {'; '.join(verdict['reasons'])}",
        "",
    ]
    lines += [f"- warning `{one['code']}`: {one['message']}" for one in results["warnings"]]
    if results.get("layers"):
        lines += ["", *layer_table(results["layers"])]
    lines += ["", "| part | measure | condition | mean | rows | gain | p |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for one in read_table(folder / "findings.parquet").to_pylist():
        if one["group"] == "all" and one["measure"] in SHOWN and one["rows"]:
            lines.append(shown(one))
    notes = [(part, note) for part, said in results["parts"].items() for note in said["notes"]]
    return [*lines, "", *(f"- {part}: {note}" for part, note in notes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--took", required=True, help="wall time, as measured")
    given = parser.parse_args()
    lines = lines_of(given.folder, given.name, given.command, given.took)
    target = Path("docs/results") / f"{given.name}.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
