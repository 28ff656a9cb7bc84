"""The draft card of what is pushed: what it is, what was measured, how to use it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlakit.core.contract import FILE, Contract, Provenance
from nlakit.errors import DataError
from nlakit.files.markdown import cell, code, environment
from nlakit.files.text import as_json, read_record
from nlakit.models.gguf import NAMES as EMBEDDED
from nlakit.publish.hub.parcel import STAGES, Parcel
from nlakit.publish.report.numbers import interval, num, percent

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
SECTIONS = ("verdict", "rows", "scores", "gains", "provenance")  # of an evaluation
BEFORE = "before RL:"  # of a contract's parent
TAGS = ["natural-language-autoencoder", "interpretability"]


def write_card(parcel: Parcel, name: str, origin: str | None, license: str | None) -> str:
    """The card as Markdown with YAML ahead, as Hugging Face reads it.

    origin: what `nlakit pull` gets it from, None for a folder of this machine. The same parcel
    gives the same bytes. Without an evaluation the card says so and gives no score. Raises
    DataError if results.json is no evaluation, or of another subject or layer than the contract's.
    """
    from nlakit.publish.report.report import MEASURES, NAMES, checks, condition_groups

    contracts = parcel.contracts
    contract = contracts.get(f"av/{FILE}") or next(iter(contracts.values()))
    results = parcel.results if parcel.what in ("pair", "av", "ar") else None
    if results:
        _check_evaluation(results)
        check_same(results, [contract])
    tables = [(file, _rows(path)) for file, path in parcel.files.items() if _is_table(file)]
    templates = environment(Path(__file__).parent)
    templates.filters |= {"num": num, "spanned": spanned, "top": top}
    return templates.get_template("card.md.j2").render(
        what=parcel.what,
        name=name,
        origin=origin,
        license=license,
        front=front_matter(parcel.what, contract.extraction.base_model, license, tables),
        facts=facts_of(
            parcel.what,
            parcel.contracts,
            results["provenance"].get("git_commit") if results else None,
        ),
        tables=tables,
        stages=_stages(parcel),
        results=results,
        checks=checks(results["verdict"]["evidence"]) if results else [],
        groups=condition_groups(results["scores"]) if results else [],
        limits=limitations(results) if results else [],
        measures=MEASURES,
        names=NAMES,
    )


def _check_evaluation(results: Any) -> None:
    keys = list(results) if isinstance(results, dict) else []
    if not all(key in keys and isinstance(results[key], dict) for key in SECTIONS):
        raise DataError(
            "results.json is no evaluation of nlakit",
            found=", ".join(keys) or type(results).__name__,
            do="evaluate this pair, or take results.json away",
        )


def check_same(results: Mapping[str, Any], contracts: Iterable[Contract]) -> None:
    """Raise DataError if the evaluation read another subject or layer than a contract names."""
    evaluated = tuple(results["provenance"].get(key) for key in ("base_model", "layer"))
    for contract in contracts:
        recorded = contract.extraction.base_model, contract.layer
        if evaluated != recorded:
            raise DataError(
                "the evaluation is of other activations than the contract",
                found=f"{evaluated} and {recorded}, subject and layer",
                do="give the pair that was evaluated, or evaluate this one",
            )


def front_matter(
    what: str, base: str, license: str | None, tables: Sequence[tuple[str, int]] = ()
) -> dict[str, Any]:
    """What Hugging Face reads ahead of a card; `base` is named as the hub names it, or left out."""
    base = EMBEDDED[1] if base in EMBEDDED else base
    front: dict[str, Any] = {"license": license} if license else {}
    if what == "tables":
        files = [{"split": name.split(".")[0], "path": name} for name, _ in tables]
        return front | {"tags": TAGS, "configs": [{"config_name": "default", "data_files": files}]}
    front |= {"base_model": base} if HUB_NAME.fullmatch(base) else {}
    front |= {"library_name": "nlakit", "tags": TAGS}
    if what == "trajectory":
        return front
    return front | {"pipeline_tag": "feature-extraction" if what == "ar" else "text-generation"}


def facts_of(
    what: str, contracts: Mapping[str, Contract], evaluated: str | None
) -> list[tuple[str, str]]:
    """What must be known to use or judge the files, in Markdown. contracts: by file name, at least
    one; evaluated: commit of the evaluation, where the contracts name none."""
    contract = contracts.get(f"av/{FILE}") or next(iter(contracts.values()))
    nla, layer = contract.nlakit, contract.layer
    versions = ", ".join(f"{k} {v}" for k, v in nla.versions.items())
    records = [found.nlakit for found in contracts.values()]
    trained_on = {record.role: record.data_sha256 for record in records if record.role != "table"}
    found: list[tuple[str, Any]] = [
        ("subject", f"{code(contract.extraction.base_model)}, in {cell(nla.subject_precision)}"),
        ("SHA-256 of the subject", _known(nla.subject_sha256)),
        ("layer", f"{layer}, 0-based: the output of that block, `hidden_states[{layer + 1}]`"),
        ("width", contract.d_model),
        ("centring of what is injected", _known(nla.centring)),
        (
            "FVE baseline",
            f"{nla.baseline:.4f}, {cell(nla.baseline_source)}" if nla.baseline else None,
        ),
        ("blocks of the AR", contract.ar_blocks if what in ("pair", "ar") else None),
        *(
            (f"SHA-256 of the {role.upper()}'s data", _known(sha256))
            for role, sha256 in trained_on.items()
        ),
        *_rl_facts(nla),
        ("hash of the settings", _known(nla.config_hash)),
        ("commit of nlakit", cell(nla.git_commit or evaluated or "unknown")),
        ("versions", cell(versions or "unknown")),
    ]
    return [(key, str(value)) for key, value in found if value is not None]


def _rl_facts(record: Provenance) -> list[tuple[str, str]]:
    """What a half that went through joint RL says of it."""
    said = record.scores.get("rl")
    if not isinstance(said, Mapping):
        return []
    steps, step, rule = (said.get(key, "unknown") for key in ("steps", "step", "keep"))
    told = f"{steps} steps; the pair of step {step} is kept, by the rule {rule}"
    told += f"; stopped by a brake: {said['stopped']}" if said.get("stopped") else ""
    settings = said.get("settings")
    return [
        ("joint RL", cell(told)),
        ("settings of joint RL", code(as_json(settings)) if settings else "the defaults"),
        ("weights before joint RL", cell((record.parent or "unknown").removeprefix(BEFORE))),
    ]


def _known(value: object) -> str | None:
    return None if value is None else cell(value)


def limitations(results: Mapping[str, Any]) -> list[str]:
    """What the evaluation found wanting, with its numbers."""
    scores, rows = results["scores"], results["rows"]
    own = num(scores["real"]["centred_cosine"]["mean"])
    compared = {
        "label": "The teacher's labels, which bound what such texts can say, reach",
        "same_document": "The explanation of another position of the same document reaches",
        "last_10_tokens": "The last 10 tokens of the source, pasted as they are, reach",
        "last_token": "The last token of the source alone reaches",
    }
    found = [
        f"{words} a centred cosine of {spanned(scores[key]['centred_cosine'])};"
        f" the AV's texts {own}."
        for key, words in compared.items()
        if key in scores
    ]
    found.append(f"Empty texts: {rows['empty']} of {rows['attempted']}.")
    if texts := results.get("texts"):
        unique, loops = texts["unique"]["full"], texts["loop_share"]
        found.append(f"Different texts: {percent(unique)}; with a loop: {percent(loops)}.")
    if gap := results.get("av_loss", {}).get("gap"):
        found.append(
            "Labels are less likely under another row's activation than under their own by"
            f" {spanned(gap)} nats a token."
        )
    for name, control in results.get("av_controls", {}).items():
        score = spanned(control["centred_cosine"])
        found.append(f"AV control, {name.replace('_', ' ')}: centred cosine {score}.")
    return found


def _is_table(name: str) -> bool:
    return name.endswith((".parquet", ".jsonl")) and "/" not in name


def _rows(file: Path) -> int:
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(file).metadata.num_rows
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def _stages(parcel: Parcel) -> list[tuple[str, Any, Any, str]]:
    """Stage, steps, skipped steps and checkpoints of a trajectory."""
    found = []
    for prefix in ("", "rl/", *(f"{stage}/" for stage in STAGES), "pair/rl/"):
        if f"{prefix}metrics.jsonl" not in parcel.files:
            continue
        summary = parcel.files.get(f"{prefix}training.json")
        record = read_record(summary) if summary else {}
        steps = [
            str(int(name[len(prefix) :].split("/")[0].removeprefix("step-")))
            for name in sorted(parcel.files)
            if name.startswith(f"{prefix}step-")
        ]
        counts = (record.get(key, "unfinished") for key in ("steps", "skipped_steps"))
        found.append((prefix.rstrip("/") or "this one", *counts, ", ".join(steps) or "none"))
    return found


def spanned(found: Mapping[str, Any]) -> str:
    return f"{num(found['mean'])} {interval(found)}"


def top(retrieval: Mapping[str, Any] | None) -> str:
    return f"{num(retrieval['top1'], 2)} of {retrieval['candidates']}" if retrieval else ""
