"""Where should the vector enter the AV? The same tables and steps, one way in after the other.

python benchmarks/injection.py examples/demo.yaml --out runs/injection --seeds 0 1
python benchmarks/injection.py --out runs/injection --table    # the records as a table
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from nlakit.config.load import load_config
from nlakit.config.sections import RunConfig
from nlakit.core.contract import read_contract
from nlakit.core.statistics import derangement, estimate
from nlakit.evaluate.conditions import pick_rows
from nlakit.evaluate.scoring import score_all, summarise
from nlakit.files.rows import TableRows, read_mean, read_rows
from nlakit.files.text import as_json, read_jsonl
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.run import pipeline
from nlakit.run.folder import RunDir

BASE = pipeline.STAGES[: pipeline.STAGES.index("ar") + 1]
ALL = "all blocks"
# Way in: settings of `av`. K and the mean norm of the activations are filled in.
WAYS: dict[str, list[str]] = {
    "embedding": ["injection=reference", "centring=true"],
    "embedding, uncentred": ["injection=reference"],
    "embedding, at the activations' norm": [
        "injection=reference", "centring=true", "scale={norm}", "allow_any_scale=true"
    ],
    "block K": ["injection=blocks", "injection_blocks=[{k}]", "centring=true"],
    "blocks 0 to K": ["injection=blocks", "centring=true"],
    "blocks 0 to K, uncentred": ["injection=blocks"],
    ALL: ["injection=blocks", "injection_blocks={every}", "centring=true"],
    "added behind block 1": ["injection=add", "centring=true"],
    "added behind block 1, uncentred": ["injection=add"],
}  # fmt: skip
COLUMNS = {
    "gap": "gap, nats a token", "centred": "centred cosine", "other": "of another row",
    "top1": "top-1", "adapted": "centred cosine, adapted AR", "fve": "FVE, adapted AR",
    "unique": "unique texts",
}  # fmt: skip


def settings_of(way: str, config: RunConfig, base: RunDir, blocks: int) -> list[str]:
    norms = json.loads((base.need("tables") / "norms.json").read_text(encoding="utf-8"))
    filled = {"k": config.subject.layer, "norm": norms["activation_mean"]}
    every = str(list(range(blocks)))
    return [f"av.{one.format(**filled, every=every)}" for one in WAYS[way]]


def interval(values: Any, rows: TableRows) -> list[float]:
    found = estimate(np.asarray(values, dtype=np.float64), rows.doc_ids)
    return [round(number, 4) for number in (found.mean, found.low, found.high)]


def measured(rundir: RunDir, subject: Subject, count: int) -> dict[str, Any]:
    """Measures of a run that is finished up to its pair, on held-out rows, each with its interval:
    texts of the AV under the AR that saw labels alone, and under the adapted one."""
    rows = pick_rows(read_rows(rundir, "test")[0], count)
    source, pair = rundir.need("av"), rundir.need("pair")
    mean = read_mean(source)
    av = Verbalizer.load(subject, read_contract(pair / "av"), mean, source)
    texts = av.explain(rows.vectors, batch=len(rows))
    partners = derangement(rows.doc_ids)
    injected = av.scaled(rows.vectors)
    right = av.label_loss(injected, rows.texts)
    wrong = av.label_loss(injected[partners], rows.texts)
    inputs = {"real": texts, "other_row": [texts[partner] for partner in partners]}
    found: dict[str, Any] = {"gap": interval(wrong - right, rows)}
    for name, folder in (("labels", rundir.need("ar")), ("adapted", pair / "ar")):
        ar = Reconstructor.load(subject, read_contract(folder), folder)
        scores = score_all(ar, rows, inputs, mean)
        real, other = (summarise(scores, rows)[one] for one in inputs)
        parts = {
            "centred": real["centred_cosine"], "other": other["centred_cosine"], "fve": real["fve"]
        }  # fmt: skip
        chosen = parts if name == "labels" else {"adapted": parts["centred"], "fve": parts["fve"]}
        found |= {k: [round(v[x], 4) for x in ("mean", "low", "high")] for k, v in chosen.items()}
        if name == "labels":
            found["top1"] = interval(scores.values["real"]["rank"] == 0, rows)
    metrics = [one for _, one in read_jsonl(source / "metrics.jsonl")]
    found["gap_at"] = {m["step"]: round(m["gap_nats"], 3) for m in metrics if "gap_nats" in m}
    return found | {"unique": len(set(texts)) / len(texts), "rows": len(rows), "texts": texts[:8]}


def measure_way(
    way: str, seed: int, chosen: argparse.Namespace, base: RunDir, subject: Subject
) -> dict[str, Any]:
    folder = Path(chosen.out) / f"{way.replace(' ', '-').replace(',', '')}-{seed}"
    if not folder.exists():
        shutil.copytree(base.path, folder)
    config = load_config(chosen.config, [*chosen.sets, f"seed={seed}"])
    sets = settings_of(way, config, base, subject.blocks)
    config = load_config(chosen.config, [*chosen.sets, f"seed={seed}", *sets])
    stages = pipeline.STAGES[: pipeline.STAGES.index("pair") + 1]
    rundir = pipeline.run(config, folder, stages=stages)
    record = {
        "way": way, "seed": seed, "model": config.subject.model, "steps": config.av.steps,
        **measured(rundir, subject, chosen.rows),
    }  # fmt: skip
    (Path(chosen.out) / f"{folder.name}.json").write_text(as_json(record), encoding="utf-8")
    shutil.rmtree(folder)  # data stages again and again
    return record


def shown(value: Any) -> str:
    if not isinstance(value, list):
        return f"{value:.2f}"
    mean, low, high = value
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def table(folder: Path) -> str:
    """All records in a folder as a Markdown table, in the order of the ways."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    found.sort(key=lambda one: (one["model"], list(WAYS).index(one["way"]), one["seed"]))
    lines = ["| the vector enters | seed | " + " | ".join(COLUMNS.values()) + " |",
             "|---|---|" + "---|" * len(COLUMNS)]  # fmt: skip
    model = None
    for one in found:
        if one["model"] != model:
            model = one["model"]
            lines.append(f"| **{Path(model).name}**, {one['steps']} steps, {one['rows']} rows |"
                         + " |" * (1 + len(COLUMNS)))  # fmt: skip
        cells = " | ".join(shown(one[name]) for name in COLUMNS)
        lines.append(f"| {one['way']} | {one['seed']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default="examples/demo.yaml")
    parser.add_argument("--out", required=True)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rows", type=int, default=180)
    parser.add_argument("--base", action="store_true", help="only what all ways share")
    parser.add_argument("--table", action="store_true", help="print the records and stop")
    chosen = parser.parse_args()
    if chosen.table:
        print(table(Path(chosen.out)))
        return
    for seed in chosen.seeds:
        config = load_config(chosen.config, [*chosen.sets, f"seed={seed}"])
        base = pipeline.run(config, Path(chosen.out) / f"base-{seed}", stages=BASE)
        if chosen.base:
            continue
        subject = load_subject(config.subject)
        for way in chosen.ways:
            record = measure_way(way, seed, chosen, base, subject)
            print(way, seed, {name: record[name] for name in COLUMNS}, flush=True)


if __name__ == "__main__":
    main()
