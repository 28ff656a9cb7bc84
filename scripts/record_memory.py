"""Predicted and measured peak memory of every stage, each run in a process of its own.

python scripts/record_memory.py examples/demo.yaml --run runs/memory --out docs/results/memory.md

Measured is what each stage writes into its manifest: on a CPU the resident memory of its process.
Finished stages of the run folder are kept. `--set` shortens a run: peaks appear in the first steps,
but for the longest batch, which may come late.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from pathlib import Path

import psutil

from nlakit.config.load import load_config
from nlakit.config.sections import RunConfig
from nlakit.run.folder import FOLDERS, Manifest, RunDir
from nlakit.studies.planning.plan import predict

COMMAND = [sys.executable, "-m", "nlakit"]
WITH_MODEL = ("activations", "tables", "ar", "av", "pair", "eval")


def run_stages(config: Path, run: Path, sets: list[str]) -> None:
    """Every stage up to the evaluation in its own process; the first that fails ends this."""
    options = [part for setting in sets for part in ("--set", setting)]
    for stage in FOLDERS:
        if stage != "report":
            command = [*COMMAND, stage, str(config), "--out", str(run), *options]
            subprocess.run(command, check=True)


def peak_of(manifest: Manifest | None) -> float:
    """Bytes of a stage: of tensors on a CUDA device, or resident."""
    found = manifest.peak_bytes if manifest else {}
    return found.get("allocated") or found.get("resident", 0)


def lines_of(config: RunConfig, run: Path, predicted: dict[str, float], call: str) -> list[str]:
    rundir = RunDir(run)
    manifests = {stage: rundir.manifest(stage) for stage in WITH_MODEL}
    one = next(manifest for manifest in manifests.values() if manifest)
    versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
    size = psutil.virtual_memory().total / 2**30
    lines = [
        f"# Peak memory of {config.name}: predicted and measured",
        "",
        f"- command: `{call}`",
        f"- {psutil.cpu_count()} CPU cores ({platform.machine()}), {size:.0f} GiB; {one.device}",
        f"- {versions}; commit {one.git_commit}",
        "",
        "Each stage ran in a process of its own. Predicted is the memory column of `nlakit plan`."
        " Measured is the peak in the stage's manifest, sampled every 10 ms.",
        "",
        "| stage | predicted GiB | measured GiB | predicted / measured |",
        "|---|---|---|---|",
    ]
    for stage, manifest in manifests.items():
        found, guess = peak_of(manifest), predicted[stage]
        cells = f"{guess / 2**30:.2f} | {found / 2**30:.2f} | {guess / found:.2f}"
        lines.append(f"| {stage} | {cells} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="run folder")
    parser.add_argument("--out", type=Path, help="Markdown file")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="sets")
    given = parser.parse_args()
    config = load_config(given.config, given.sets)
    # Before the run: a plan reads the sources themselves, as a user's would.
    plan = predict(config, RunDir(given.run))
    predicted = {stage.stage: stage.memory for stage in plan.stages}
    run_stages(given.config, given.run, given.sets)
    sets = "".join(f" --set '{setting}'" for setting in given.sets)
    call = f"python scripts/record_memory.py {given.config}{sets}"
    text = "\n".join(lines_of(config, given.run, predicted, call)) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
