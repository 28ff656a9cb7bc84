"""Try a labeler on a few rows before paying for all of them: what an AR learns from its labels,
beside what the same AR learns from another labeler's labels of the same vectors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from rich.markup import escape
from rich.table import Table

from nlakit.config.load import config_hash
from nlakit.config.sections import ARConfig, RunConfig
from nlakit.core.metrics import mean_unit
from nlakit.core.shown import cut, plain_table, shorter, span
from nlakit.core.statistics import derangement, paired_difference
from nlakit.core.text.stats import longest_copied_run, words
from nlakit.data.corpus import order_key
from nlakit.data.tables import base_contract, measured_norms
from nlakit.errors import DataError
from nlakit.evaluate.scoring import Scores, gains, score_all, summarise
from nlakit.files.parquet import matrix
from nlakit.files.rows import TableRows
from nlakit.files.text import as_json
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.run.folder import atomic_write
from nlakit.train.ar import ARTask, enable_checkpointing, prepared_contract
from nlakit.train.loop import Trainer

HELD_OUT_SHARE = 0.25
HELD_OUT_DOCUMENTS = 6  # with fewer, even one sign in all of them has a two-sided p above 0.05
FLOORS = ("mean", "empty", "other_row")
SECTIONS = ("subject", "activations", "labels", "tables", "ar", "seed")
CONDITIONS = (
    ("real", "its label"),
    ("mean", "floor: mean vector"),
    ("empty", "floor: empty text"),
    ("other_row", "floor: another's"),
)
CAVEAT = """\
{training} rows of {seen} documents trained on for {steps} steps of {batch}; {held_out} rows of \
{unseen} documents held out; {used} of {attempted} rows have both labels.
One training each: the intervals are over held-out documents alone. Copied source words teach \
an AR too: compare the longest copied runs."""
Word = Literal["more", "less", "no difference", "nothing"]
Labels = Mapping[str, Mapping[str, str | None]]


@dataclass(frozen=True)
class TrialReport:
    """What a trial found of two labelers, in the order they were given.

    word: whether the first's labels teach `more` or `less` than the second's; `nothing` if no
    labels teach more than a floor. verdict: the same as a sentence.
    rows: attempted, used (labelled by both), training, held_out. documents: training, held_out.
    labels: labeler → rows labelled; of those used, mean words and the mean longest run of words
    copied from the source. scores: labeler → condition → measure → estimate. gains: labeler →
    measure → real − best floor. difference: measure → first − second, paired by row.
    """

    labelers: tuple[str, ...]
    word: Word
    verdict: str
    rows: dict[str, int]
    documents: dict[str, int]
    steps: int
    batch_rows: int
    labels: dict[str, dict[str, float]]
    scores: dict[str, dict[str, Any]]
    gains: dict[str, dict[str, Any]]
    difference: dict[str, dict[str, Any]]
    config_hash: str

    def as_dict(self) -> dict[str, Any]:
        """As it goes into trial.json."""
        return {**asdict(self), "labelers": list(self.labelers)}


def compare(
    config: RunConfig, table: pa.Table, labels: Labels, folder: Path, steps: int = 80
) -> TrialReport:
    """Train an AR on each labeler's labels of the same rows; score both on held-out documents.

    table: rows as `pick_rows` gives them. labels: two labelers' names → row id → label, None where
    there is none. Rows that both labelled are used; a quarter of their documents, keyed on the
    seed, is held out. Both ARs start from the same fresh weights (never from `start.ar`: what was
    trained on one labeler's labels favours them) and see the same rows in the same steps.
    Writes `trial.json`, and each training's losses, into `folder`.

    Raises DataError if there are not two labelers, or too few rows or documents to compare them.
    """
    if len(labels) != 2:
        raise DataError(
            "a trial compares two labelers",
            found=", ".join(labels) or "none",
            do="configure a labeler other than the offline one",
        )
    rows = labelled_by_both(table, labels)
    train, held_out = hold_out(rows[next(iter(rows))].doc_ids, config)
    seen = {name: found.take(train) for name, found in rows.items()}
    unseen = {name: found.take(held_out) for name, found in rows.items()}
    scores = train_and_score(config, seen, unseen, folder, trial_settings(config.ar, steps))
    report = _report(config, table["row_id"].to_pylist(), labels, seen, unseen, scores, steps)
    text = as_json(report.as_dict(), indent=1)
    atomic_write(folder / "trial.json", text + "\n")
    return report


def labelled_by_both(table: pa.Table, labels: Labels) -> dict[str, TableRows]:
    """Labeler → the rows that every labeler labelled, with its labels; a blank label is none."""
    known = [
        all(_has_label(found, row) for found in labels.values())
        for row in table["row_id"].to_pylist()
    ]
    table = table.filter(pa.array(known, pa.bool_()))
    row_ids, vectors = table["row_id"].to_pylist(), matrix(table)
    return {
        name: TableRows(
            row_ids,
            table["doc_id"].to_pylist(),
            [found[row] or "" for row in row_ids],
            table["detokenized_text_truncated"].to_pylist(),
            table["source_family"].to_pylist(),
            table["token"].to_pylist(),
            table["position"].to_pylist(),
            vectors,
        )
        for name, found in labels.items()
    }


def _has_label(found: Mapping[str, str | None], row_id: str) -> bool:
    return bool((found.get(row_id) or "").strip())


def hold_out(doc_ids: Sequence[str], config: RunConfig) -> tuple[list[int], list[int]]:
    """Indices of the rows to train on, and of those held out: a quarter of the documents, keyed on
    the seed and their ids. Raises DataError if too few documents or rows remain."""
    documents = sorted(set(doc_ids), key=lambda doc: order_key(config.seed, "held out", doc))
    chosen = set(documents[: round(len(documents) * HELD_OUT_SHARE)])
    train = [row for row, doc in enumerate(doc_ids) if doc not in chosen]
    held_out = [row for row, doc in enumerate(doc_ids) if doc in chosen]
    batch = config.ar.batch_rows
    if len(chosen) < HELD_OUT_DOCUMENTS or len(train) < batch:
        least = math.ceil(HELD_OUT_DOCUMENTS / HELD_OUT_SHARE)
        raise DataError(
            "too few labelled rows to compare two labelers",
            found=f"both labelled {len(doc_ids)} rows of {len(documents)} documents: {len(train)} "
            f"rows to train on, {len(chosen)} documents held out",
            do=f"try more rows: {math.ceil(batch / (1 - HELD_OUT_SHARE))} that both label, of "
            f"{least} documents, are the least; some hundreds show smaller differences",
        )
    return train, held_out


def trial_settings(config: ARConfig, steps: int) -> ARConfig:
    """The AR's settings with one short phase at its first learning rate, measured at its end.

    Nothing is tracked, and no checkpoint is left that another trial could go on from.
    """
    first = config.phases[0]
    phase = first.model_copy(update={"steps": steps, "warmup": None})
    once = {"checkpoint_every": steps, "measure_every": steps, "trackers": ()}
    return config.model_copy(update={"phases": (phase,), **once})


def train_and_score(
    config: RunConfig,
    seen: Mapping[str, TableRows],
    unseen: Mapping[str, TableRows],
    folder: Path,
    settings: ARConfig,
) -> dict[str, Scores]:
    """Labeler → scores on `unseen` rows of an AR trained on `seen` ones.

    ū, the baseline and the contract come from the vectors of `seen`, which all labelers share.
    """
    vectors = next(iter(seen.values())).vectors
    subject, mean = load_subject(config.subject), mean_unit(vectors)
    norms = measured_norms(vectors, subject)
    contract = prepared_contract(base_contract(config, subject, mean, vectors, norms), config)
    scores: dict[str, Scores] = {}
    for name, rows in seen.items():
        module = Reconstructor(subject, contract, settings.lora, config.seed)
        if settings.gradient_checkpointing:
            enable_checkpointing(module.decoder)
        held_out = unseen[name]
        measured = held_out.head(settings.measure_rows)
        task = ARTask(module, rows.texts, vectors, measured, mean, settings)
        where = folder / (re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "labeler")
        Trainer(task, settings, where, config.seed).run(f"AR on {name}")
        scores[name] = score_all(module, held_out, inputs_of(held_out, config.seed), mean)
    return scores


def inputs_of(rows: TableRows, seed: int) -> dict[str, list[str]]:
    """Condition → text a row; another row's label is that of a row of another document."""
    other = [rows.texts[partner] for partner in derangement(rows.doc_ids, seed)]
    return {"real": rows.texts, "empty": [""] * len(rows), "other_row": other}


def _report(
    config: RunConfig,
    attempted: Sequence[str],
    labels: Labels,
    seen: Mapping[str, TableRows],
    unseen: Mapping[str, TableRows],
    scores: Mapping[str, Scores],
    steps: int,
) -> TrialReport:
    first, second = labels
    documents = unseen[first].doc_ids
    found = {name: scores[name].values["real"] for name in labels}
    difference = {
        measure: paired_difference(
            found[first][measure], found[second][measure], documents
        ).as_dict()
        for measure in ("centred_cosine", "fve")
    }
    gained = {name: gains(scores[name], unseen[name], FLOORS) for name in labels}
    word, verdict = judge(first, second, difference["centred_cosine"], gained)
    training, held_out = len(seen[first]), len(documents)
    return TrialReport(
        labelers=(first, second),
        word=word,
        verdict=verdict,
        rows={
            "attempted": len(attempted),
            "used": training + held_out,
            "training": training,
            "held_out": held_out,
        },
        documents={"training": len(set(seen[first].doc_ids)), "held_out": len(set(documents))},
        steps=steps,
        batch_rows=config.ar.batch_rows * config.ar.accumulation,
        labels={
            name: {
                "labelled": sum(_has_label(labels[name], row) for row in attempted),
                **_about(seen[name].join(unseen[name])),
            }
            for name in labels
        },
        scores={name: summarise(scores[name], unseen[name]) for name in labels},
        gains=gained,
        difference=difference,
        config_hash=config_hash(config, SECTIONS),
    )


def _about(rows: TableRows) -> dict[str, float]:
    copied = map(longest_copied_run, rows.texts, rows.sources)
    return {
        "mean_words": float(np.mean([len(words(text)) for text in rows.texts])),
        "mean_copied_run": float(np.mean(list(copied))),
    }


def judge(
    first: str,
    second: str,
    difference: Mapping[str, Any],
    gained: Mapping[str, Mapping[str, Any]],
) -> tuple[Word, str]:
    """The word and its sentence.

    difference: first − second in centred cosine, as an estimate's dict. gained: labeler → measure
    → gain over the best floor: an AR that reads no label says nothing of labelers.
    """
    rows, documents = difference["rows"], difference["documents"]
    size = f"{rows} held-out rows of {documents} documents"
    if all(gain["centred_cosine"]["low"] <= 0 for gain in gained.values()):
        return "nothing", (
            f"neither {first}'s nor {second}'s labels teach more than a floor on {size}: "
            "try more rows or steps"
        )
    shown = f"centred cosine {span(difference, sign='+')}"
    if difference["low"] <= 0 <= difference["high"]:
        return "no difference", (
            f"no difference can be seen between {first}'s and {second}'s labels with this many "
            f"rows: {shown} touches 0 on {size}"
        )
    word: Word = "more" if difference["mean"] > 0 else "less"
    return word, f"{first}'s labels teach {word} than {second}'s: {shown} on {size}"


def table_of(report: TrialReport) -> Table:
    """Each labeler's scores beside their floors, the difference, and the verdict below."""
    rows, documents = report.rows, report.documents
    caveat = CAVEAT.format(
        **rows,
        seen=documents["training"],
        unseen=documents["held_out"],
        steps=report.steps,
        batch=report.batch_rows,
    )
    columns = ("labels", "the AR is fed", "FVE ±95%", "cent. cosine ±95%", "top-1")
    table = plain_table(columns, left=2, caption=escape(f"{report.verdict}\n{caveat}"))
    for labeler in report.labelers:
        about = report.labels[labeler]
        notes = [
            labeler,
            f"{about['labelled']:.0f} rows labelled",
            f"{about['mean_words']:.0f} words",
            f"{about['mean_copied_run']:.1f} copied in a row",
        ]
        for note, (condition, fed) in zip(notes, CONDITIONS, strict=True):
            found = report.scores[labeler][condition]
            top = found.get("retrieval")
            table.add_row(
                escape(cut(note, 19)),
                fed,
                shorter(found["fve"]),
                shorter(found["centred_cosine"]),
                f"{top['top1']:.2f}" if top else "",
            )
        table.add_section()
    differences = (report.difference["fve"], report.difference["centred_cosine"])
    table.add_row("difference", "their labels", *(shorter(found, "+") for found in differences), "")
    return table
