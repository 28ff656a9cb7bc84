"""Write docs/results/NAME.md from a finished run: every figure comes from its files.

python scripts/record_result.py runs/demo --command "nlakit run examples/demo.yaml"
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import psutil

from nlakit.core.shown import span
from nlakit.publish.report.parts import NAMES, ROLE_OF
from nlakit.run.folder import FOLDERS, Manifest, RunDir


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} CPU cores ({platform.machine()}), {memory:.0f} GiB, no GPU"


def lines_of(run: Path, command: str, results: dict[str, Any]) -> list[str]:
    rundir = RunDir(run)
    manifests: dict[str, Manifest] = {}
    for stage in FOLDERS:
        manifest = rundir.manifest(stage)
        assert manifest is not None, f"stage {stage} is not finished"
        manifests[stage] = manifest
    pair, evaluated = manifests["pair"], manifests["eval"]
    verdict, texts = results["verdict"], results["texts"]
    gap, top = results["av_loss"]["gap"], results["scores"]["real"]["retrieval"]
    lines = [
        f"# {run.name}",
        "",
        f"- command: `{command}`",
        f"- finished: {evaluated.finished}; machine: {machine()}",
        f"- commit: {evaluated.git_commit} (AR {manifests['ar'].git_commit},"
        f" AV {manifests['av'].git_commit})",
        f"- pair: `{pair.identity()}`; tables: `{manifests['tables'].identity()}`",
        f"- {', '.join(f'{name} {version}' for name, version in evaluated.versions.items())}",
        f"- seconds a stage: {', '.join(f'{n} {m.seconds:.0f}' for n, m in manifests.items())}",
        "",
        f"**Verdict: {verdict['word']}** — {'; '.join(verdict['reasons'])}",
        "",
        f"{results['rows']['attempted']} held-out rows of {results['rows']['documents']} documents,"
        " 95% intervals over documents.",
        "",
        "| the AR is fed | FVE | centred cosine | cosine |",
        "|---|---|---|---|",
    ]
    for name, label in NAMES.items():
        found = results["scores"].get(name)
        if found:
            cells = [span(found["fve"]), span(found["centred_cosine"]), span(found["cosine"])]
            lines.append(f"| {ROLE_OF[name]}: {label} | {' | '.join(cells)} |")
    lines += [
        "",
        f"- content gain (centred cosine): {span(results['gains']['centred_cosine'])} over"
        f" {results['gains']['centred_cosine']['best_floor']}; (FVE):"
        f" {span(results['gains']['fve'])} over {results['gains']['fve']['best_floor']}",
        f"- retrieval of the right vector: top-1 {top['top1']:.3f}"
        f" [{top['top1_low']:.3f}, {top['top1_high']:.3f}], top-5 {top['top5']:.3f}"
        f" of {top['candidates']}",
        f"- AV gap on held-out rows: {span(gap)} nats a token",
        f"- texts: {texts['unique']['full']:.1%} unique, {texts['empty_share']:.1%} empty,"
        f" {texts['loop_share']:.1%} with a loop,"
        f" commonest opening {texts['top_opening_share']:.1%}",
        f"- FVE baseline: {results['provenance']['baseline']:.4f} on these rows,"
        f" {results['provenance']['training_baseline']:.4f} on the training rows",
        "",
        "## Configuration",
        "",
        "```yaml",
        (run / "config.yaml").read_text(encoding="utf-8").rstrip(),
        "```",
        "",
        "## First examples, in the tables' random order",
        "",
    ]
    for item in results["examples"][:6]:
        source = " ".join(item["source"][-160:].split()).replace("`", "'")
        lines += [
            f"- source: `…{source}`",
            f"  - label: {item['label']}",
            f"  - AV (centred cosine {item['centred_cosine']:.2f}): {item['explanation']}",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--command", required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    results = RunDir(arguments.run).need("eval") / "results.json"
    lines = lines_of(
        arguments.run, arguments.command, json.loads(results.read_text(encoding="utf-8"))
    )
    target = arguments.out / f"{arguments.run.name}.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
