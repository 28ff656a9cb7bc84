"""Evaluate a pair on held-out documents: round trip, floors, controls, collapse, verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlakit.config import EvalConfig, RunConfig
from nlakit.core.contract import Contract, read_contract
from nlakit.core.statistics import derangement, estimate
from nlakit.core.textstats import collapse_summary
from nlakit.errors import DataError
from nlakit.evaluate.conditions import ar_inputs, pick_rows, random_directions
from nlakit.evaluate.scoring import gains, score_all, score_table, summarise
from nlakit.evaluate.verdict import FLOORS, judge
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.parquet import write_table
from nlakit.progress import ticker
from nlakit.rows import TableRows, read_mean, read_rows
from nlakit.rundir import Rows, RunDir, atomic_write
from nlakit.stage import stage


@stage("eval", parents=("tables", "pair"), sections=("eval", "subject", "seed"))
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write rows.parquet (a row's source, label and AV text), scores.parquet and results.json."""
    settings = config.eval
    rows = pick_rows(read_rows(rundir, "test")[0], settings.rows)
    if len(set(rows.doc_ids)) < 2:
        raise DataError(
            "too few held-out documents: floors and intervals need others beside each",
            found=f"{len(set(rows.doc_ids))} in the test part",
            do="use more documents, or a larger split.test",
        )
    pair = rundir.need("pair")
    mean = read_mean(pair / "ar")
    subject = load_subject(config.subject)
    contract = read_contract(pair / "av")
    av = Verbalizer.load(subject, contract, read_mean(pair / "av"), pair / "av")
    texts = av_texts(av, rows, settings, folder)
    controls = av_controls(av, rows, settings, config.seed)
    gap = label_gap(av, rows, settings, config.seed)
    ar = Reconstructor.load(subject, read_contract(pair / "ar"), pair / "ar")
    scores = score_all(ar, rows, ar_inputs(rows, texts, ar.tokenizer, config.seed), mean)
    results = assemble(rows, texts, scores, settings, config.seed)
    results |= {"av_loss": gap, "provenance": provenance(rundir, ar.contract, scores.base)}
    results["av_controls"] = summarise_controls(ar, rows, controls, mean, settings, config.seed)
    write_table(folder / "scores.parquet", score_table(scores, rows))
    atomic_write(folder / "results.json", json.dumps(results, indent=1) + "\n")
    return Rows(entered=len(rows), kept=len(rows))


def av_texts(av: Verbalizer, rows: TableRows, settings: EvalConfig, folder: Path) -> list[str]:
    """Greedy explanations of the rows, stored in full as soon as they exist."""
    file = folder / "av_texts.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))["texts"]
    with ticker("explanations", len(rows)) as progress:
        texts = av.explain(rows.vectors, batch=settings.generate_batch, on_batch=progress.advance)
    atomic_write(file, json.dumps({"row_ids": rows.row_ids, "texts": texts}, indent=1) + "\n")
    return texts


def av_controls(
    av: Verbalizer, rows: TableRows, settings: EvalConfig, seed: int
) -> dict[str, list[str]]:
    """Texts the AV writes for a random direction of the same norm, a zero vector, and without
    injection. The last two are one text whatever the row."""
    count = min(settings.control_rows, len(rows))
    real = av.scaled(rows.vectors[:count])
    scale = float(real.norm(dim=-1).mean())
    random = torch.as_tensor(
        random_directions((count, real.shape[1]), scale, seed), device=av.device
    )
    batch, decoding = settings.generate_batch, av.decoding()
    with ticker("AV controls", count + 2) as progress:
        drawn = av.write(random, count, batch, decoding, progress.advance)
        zero = av.write(torch.zeros_like(real[:1]), 1, batch, decoding, progress.advance)
        none = av.write(None, 1, batch, decoding, progress.advance)
    return {"random_direction": drawn, "zero": zero * count, "no_injection": none * count}


def summarise_controls(
    ar: Reconstructor,
    rows: TableRows,
    controls: dict[str, list[str]],
    mean: Any,
    settings: EvalConfig,
    seed: int,
) -> dict[str, Any]:
    """Scores of control texts against the rows' own vectors, with one whole text as example."""
    summary = {}
    for name, texts in controls.items():
        some = rows.take(range(len(texts)))
        scores = score_all(ar, some, {"real": texts}, mean)
        found = summarise(scores, some, settings.bootstrap, seed)["real"]
        summary[name] = {**found, "texts": len(set(texts)), "example": texts[0]}
    return summary


def label_gap(av: Verbalizer, rows: TableRows, settings: EvalConfig, seed: int) -> dict[str, Any]:
    """Loss of the labels with the right vector and with another document's, nats a token."""
    partners = derangement(rows.doc_ids, seed)
    usable = np.flatnonzero(partners >= 0)
    texts = [rows.texts[i] for i in usable]
    injected = av.scaled(rows.vectors)
    right = av.label_loss(injected[usable], texts)
    wrong = av.label_loss(injected[partners[usable]], texts)
    documents = [rows.doc_ids[i] for i in usable]
    draws = settings.bootstrap
    return {
        "right": estimate(right, documents, draws, seed).as_dict(),
        "other": estimate(wrong, documents, draws, seed).as_dict(),
        "gap": estimate(wrong - right, documents, draws, seed).as_dict(),
    }


def assemble(
    rows: TableRows, texts: list[str], scores: Any, settings: EvalConfig, seed: int
) -> dict[str, Any]:
    """Everything that is said about the round trip, as one JSON-able mapping."""
    draws = settings.bootstrap
    floors = [name for name in FLOORS if name in scores.values]
    verdict = judge(
        texts,
        scores.of("centred_cosine"),
        scores.of("fve")["real"],
        rows.doc_ids,
        draws=draws,
        permutations=settings.permutations,
        seed=seed,
    )
    written = np.array([bool(text.strip()) for text in texts])
    nonempty = scores.of("centred_cosine")["real"][written]
    return {
        "verdict": {
            "word": verdict.word,
            "reasons": verdict.reasons,
            "evidence": verdict.evidence,
        },
        "rows": {
            "attempted": len(rows),
            "documents": len(set(rows.doc_ids)),
            "empty": int((~written).sum()),
            "centred_cosine_without_empty": float(nonempty.mean()) if len(nonempty) else None,
        },
        "scores": summarise(scores, rows, draws, seed),
        "gains": gains(scores, rows, floors, draws, seed),
        "floors": floors,
        "texts": collapse_summary(texts),
        "label_texts": collapse_summary(rows.texts),
        "examples": [
            {
                "row_id": rows.row_ids[i],
                "source_family": rows.families[i],
                "source": rows.sources[i],
                "label": rows.texts[i],
                "explanation": texts[i],
                "centred_cosine": float(scores.of("centred_cosine")["real"][i]),
                "cosine": float(scores.of("cosine")["real"][i]),
                "fve": float(scores.of("fve")["real"][i]),
                "label_centred_cosine": float(scores.of("centred_cosine")["label"][i]),
                "other_row_centred_cosine": float(scores.of("centred_cosine")["other_row"][i]),
            }
            for i in range(len(rows))
        ],
    }


def provenance(rundir: RunDir, contract: Contract, base: float) -> dict[str, Any]:
    """Where the figures come from."""
    pair = rundir.manifest("pair")
    return {
        "pair": pair.identity() if pair else None,
        "git_commit": pair.git_commit if pair else None,
        "versions": pair.versions if pair else {},
        "base_model": contract.extraction.base_model,
        "layer": contract.layer,
        "subject_precision": contract.nlakit.subject_precision,
        "baseline": base,
        "baseline_source": "the evaluated rows, with the mean unit vector of av, ar and rl",
        "training_baseline": contract.nlakit.baseline,
    }
