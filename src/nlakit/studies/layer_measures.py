"""What is measured of one layer: its geometry, what can be read of it, and what a small AR learns.

Everything is fitted on training documents and scored on held-out ones. Every layer sees the same
rows, labels, seeds and steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.config.sections import RunConfig
from nlakit.core import geometry
from nlakit.core.metrics import baseline, mean_unit, unit
from nlakit.core.statistics import estimate, estimate_share
from nlakit.data.positions import document_tokens
from nlakit.data.split import read_split
from nlakit.data.tables import base_contract, measured_norms
from nlakit.errors import DataError
from nlakit.evaluate.conditions import gibberish
from nlakit.evaluate.scoring import Scores, gains, row_scores, summarise
from nlakit.files.parquet import read_table
from nlakit.files.rows import TableRows
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject
from nlakit.run.folder import RunDir
from nlakit.studies.trial import HELD_OUT_DOCUMENTS, inputs_of, trial_settings
from nlakit.train.ar import ARTask, prepared_contract
from nlakit.train.loop import Trainer

APART = 32  # tokens between a query and its target: neighbours share their words
PROBE_SHUFFLES = 5
GIBBERISH_TEXTS = 16  # as a floor they need no text a row
FLOORS = ("mean", "empty", "gibberish", "other_row")
COLUMNS = ["row_id", "doc_id", "source_family", "position", "token", "detokenized_text_truncated"]
Floats = NDArray[Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Shared:
    """What n rows have in common in all layers.

    rows: without vectors, `(n, 0)`; a text is "" where there is no label. held_out `(n,)`.
    token_ids, next_ids `(n,)`: the token read and the one after it. left_out: rows without a
    next token.
    """

    rows: TableRows
    held_out: NDArray[np.bool_]
    token_ids: NDArray[np.int64]
    next_ids: NDArray[np.int64]
    kept: NDArray[np.int64]
    left_out: int

    def part(self, vectors: Floats, held_out: bool) -> TableRows:
        """Rows of the held-out or the training documents with their vectors, of `(n, d)`."""
        rows = dataclasses.replace(self.rows, vectors=vectors)
        return rows.take(np.flatnonzero(self.held_out == held_out).tolist())


def read_shared(rundir: RunDir, tokenizer: Any, labelled: bool, config: RunConfig) -> Shared:
    """The rows of the finished activations with labels (if `labelled`), parts and next tokens.

    Raises DataError if fewer than 6 documents are held out: no interval could be told from none.
    """
    table = read_table(rundir.need("activations"), COLUMNS)
    split = read_split(rundir.need("split"))
    part_of = dict(zip(split["doc_id"].to_pylist(), split["part"].to_pylist(), strict=True))
    corpus = read_table(rundir.need("corpus") / "corpus.parquet")
    wanted = set(table["doc_id"].to_pylist())
    ids = {
        row["doc_id"]: document_tokens(tokenizer, row, config).ids
        for row in corpus.to_pylist()
        if row["doc_id"] in wanted
    }
    kept = [
        row
        for row, (doc, position) in enumerate(
            zip(table["doc_id"].to_pylist(), table["position"].to_pylist(), strict=True)
        )
        if position + 1 < len(ids[doc])
    ]
    left_out, table = table.num_rows - len(kept), table.take(kept)
    label_of: Mapping[str, str | None] = {}
    if labelled:
        found = read_table(rundir.need("labels"), ["row_id", "api_explanation"])
        label_of = dict(zip(*found.to_pydict().values(), strict=True))
    columns = {name: table[name].to_pylist() for name in COLUMNS}
    docs, positions = columns["doc_id"], columns["position"]
    rows = TableRows(
        columns["row_id"],
        docs,
        [label_of.get(row) or "" for row in columns["row_id"]],
        columns["detokenized_text_truncated"],
        columns["source_family"],
        columns["token"],
        positions,
        np.zeros((len(docs), 0), dtype=np.float32),
    )
    held_out = np.array([part_of[doc] == "test" for doc in docs], dtype=bool)
    _check_documents(docs, held_out)
    places = list(zip(docs, positions, strict=True))
    return Shared(
        rows,
        held_out,
        np.array([ids[doc][at] for doc, at in places]),
        np.array([ids[doc][at + 1] for doc, at in places]),
        np.array(kept),
        left_out,
    )


def _check_documents(docs: Sequence[str], held_out: NDArray[np.bool_]) -> None:
    unseen = {doc for doc, held in zip(docs, held_out, strict=True) if held}
    if len(unseen) < HELD_OUT_DOCUMENTS or len(set(docs) - unseen) < HELD_OUT_DOCUMENTS:
        raise DataError(
            "too few documents to compare layers",
            found=f"{len(set(docs) - unseen)} to fit on and {len(unseen)} held out, of those that "
            "are long enough",
            do=f"use more or longer documents: {HELD_OUT_DOCUMENTS} of each are the least, "
            "100 of each show smaller differences",
        )


def _estimated(
    values: Floats, documents: Sequence[str], share: bool = False, **floors: float
) -> Record:
    found = (estimate_share if share else estimate)(values, documents).as_dict()
    return {**found, "floors": {name: float(value) for name, value in floors.items()}}


def measure_geometry(
    shared: Shared, vectors: Floats, subject: Subject, seed: int
) -> tuple[Record, dict[str, Record]]:
    """The record of one layer's vectors `(n, d)` without an AR, and by measure the values a row
    that layers are compared by."""
    seen, unseen = shared.part(vectors, False), shared.part(vectors, True)
    mean, docs = mean_unit(seen.vectors), unseen.doc_ids
    share, cosine = geometry.mean_direction_rows(unseen.vectors, mean)
    norms = np.linalg.norm(unseen.vectors.astype(np.float64), axis=1)
    record: Record = {
        "mean_share": _estimated(share, docs, isotropic=0.0),
        "mean_cosine": _estimated(cosine, docs, isotropic=0.0),
        "norm": {**_estimated(norms, docs), "sd": float(norms.std())},
        "norm_to_embedding": float(norms.mean()) / subject.embedding_norm(),
        "effective_rank": {
            "value": geometry.effective_rank(vectors),
            "bound": min(len(vectors) - 1, vectors.shape[1]),
            "rows": len(vectors),
        },
    }
    record["document_retrieval"], compared = _retrieval(unseen, mean, seed)
    inputs, held = unit(seen.vectors) - mean, unit(unseen.vectors) - mean
    ridge = geometry.Ridge(inputs, seen.doc_ids, seed)
    record["family_probe"] = _family_probe(ridge, held, seen, unseen, seed)
    weight = subject.model.get_output_embeddings().weight
    for name, ids in (("next_token", shared.next_ids), ("own_token", shared.token_ids)):
        directions = _head_directions(weight, ids)
        record[name] = _token_probe(ridge, held, directions, ids, shared.held_out, docs, seed)
    return record, {"document retrieval": compared} if compared else {}


def _retrieval(rows: TableRows, mean: Floats, seed: int) -> tuple[Record, Record | None]:
    partners = geometry.far_partners(rows.doc_ids, rows.positions, APART)
    if not (partners >= 0).any():
        reason = f"no held-out document has two positions {APART} tokens apart"
        return {"not_measured": reason}, None
    queries, found, shuffled, chance = geometry.document_hits(
        rows.vectors, mean, rows.doc_ids, partners, seed
    )
    docs = [rows.doc_ids[row] for row in queries]
    record = _estimated(found, docs, share=True, shuffled=shuffled.mean(), chance=chance.mean())
    record["candidates"] = round(float(np.mean(1 / chance)))
    return record, {"documents": docs, "values": found.tolist(), "floor": float(chance.mean())}


def _family_probe(
    ridge: geometry.Ridge, held: Floats, seen: TableRows, unseen: TableRows, seed: int
) -> Record:
    """Balanced accuracy of the family, one class against the rest; floors: a guess, and the same
    probe fitted on families that are shuffled over documents."""
    classes = sorted(set(seen.families) & set(unseen.families))
    if len(classes) < 2:
        families = sorted({*seen.families, *unseen.families})
        return {"not_measured": f"needs two families on both sides, found {', '.join(families)}"}
    known = np.flatnonzero(np.isin(unseen.families, classes))
    real = [unseen.families[row] for row in known]

    def right(labels: Sequence[str]) -> Floats:
        made = held[known] @ ridge.fit(geometry.one_hot(labels, classes))
        return geometry.balanced_rows(real, [classes[best] for best in made.argmax(axis=1)])

    family_of = dict(zip(seen.doc_ids, seen.families, strict=True))
    rng, floor = np.random.default_rng([seed, 21]), []
    for _ in range(PROBE_SHUFFLES):
        dealt = dict(
            zip(family_of, rng.permutation(list(family_of.values())).tolist(), strict=True)
        )
        floor.append(right([dealt[doc] for doc in seen.doc_ids]).mean())
    docs = [unseen.doc_ids[row] for row in known]
    floors = {"guess": 1 / len(classes), "shuffled": float(np.mean(floor))}
    record = _estimated(right(seen.families), docs, share=True, **floors)
    return {**record, "classes": len(classes)}


def _head_directions(weight: torch.Tensor, ids: NDArray[np.int64]) -> Floats:
    """Unit rows `(n, d)` of the vocabulary head for token ids `(n,)`."""
    return unit(weight[torch.as_tensor(ids, device=weight.device)].detach().float().cpu().numpy())


def _token_probe(
    ridge: geometry.Ridge,
    held: Floats,
    directions: Floats,
    ids: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    docs: Sequence[str],
    seed: int,
) -> Record:
    """Mean reciprocal rank of the actual token among the distinct ones of the held-out rows, by
    the cosine of the probe's output with the head's rows; floor: the probe fitted on shuffled
    rows, which knows how common tokens are."""
    targets = directions[~held_out]
    centre = targets.mean(axis=0)
    _, first, own = np.unique(ids[held_out], return_index=True, return_inverse=True)
    candidates = directions[held_out][first] - centre

    def ranks(order: Any) -> Floats:
        return geometry.reciprocal_ranks(held @ ridge.fit(targets[order] - centre), candidates, own)

    rng = np.random.default_rng([seed, 22])
    shuffled = [ranks(rng.permutation(len(targets))).mean() for _ in range(PROBE_SHUFFLES)]
    found = ranks(slice(None))
    record = _estimated(found, docs, share=True, shuffled=float(np.mean(shuffled)))
    return {**record, "top1": float((found == 1).mean()), "candidates": len(candidates)}


class QuickTask(ARTask):
    """An AR that is scored once, after its training and beside all floors."""

    def measure(self) -> dict[str, float]:
        return {}


def quick_ar(
    shared: Shared,
    vectors: Floats,
    subject: Subject,
    config: RunConfig,
    folder: Path,
    steps: int,
    rows: int,
) -> tuple[Record, Record]:
    """Train an AR of K + 1 blocks for a few steps on labelled training rows; score it on `rows`
    labelled rows of held-out documents. K is `config.subject.layer`; vectors `(n, d)` are that
    layer's.

    Returns the record, and the content gain in centred cosine a row. Raises DataError if there are
    fewer labelled rows than a batch.
    """
    settings, seed = trial_settings(config.ar, steps), config.seed
    seen, unseen = (_labelled(shared.part(vectors, held)) for held in (False, True))
    if len(seen) < settings.batch_rows or len(set(unseen.doc_ids)) < HELD_OUT_DOCUMENTS:
        raise DataError(
            "too few labelled rows to train an AR",
            found=f"{len(seen)} to train on, {len(unseen)} held out",
            do="use more documents or positions, or --steps 0 to leave the AR out",
        )
    order = np.random.default_rng([seed, 23]).permutation(len(unseen))[:rows]
    unseen, mean = unseen.take(order.tolist()), mean_unit(seen.vectors)
    norms = measured_norms(seen.vectors, subject)
    contract = prepared_contract(base_contract(config, subject, mean, seen.vectors, norms), config)
    module = Reconstructor(subject, contract, settings.lora, seed)
    task = QuickTask(module, seen.texts, seen.vectors, unseen, mean, settings)
    summary = Trainer(task, settings, folder, seed).run(f"AR of layer {config.subject.layer}")
    scores = _score(module, unseen, mean, seed)
    gain = gains(scores, unseen, FLOORS)
    centred = scores.of("centred_cosine")
    values = centred["real"] - centred[gain["centred_cosine"]["best_floor"]]
    kept = {
        condition: {measure: found[measure] for measure in ("fve", "centred_cosine")}
        for condition, found in summarise(scores, unseen).items()
    }
    record = {"scores": kept, "gain": gain, "training_rows": len(seen)}
    record |= {"skipped_steps": summary["skipped_steps"], "loss": summary["trend"]}
    return record, {"documents": unseen.doc_ids, "values": values.tolist(), "floor": 0.0}


def _labelled(rows: TableRows) -> TableRows:
    return rows.take([row for row, text in enumerate(rows.texts) if text.strip()])


def _score(module: Reconstructor, rows: TableRows, mean: Floats, seed: int) -> Scores:
    """Scores of the floors and the labels; each distinct text is read once."""
    some = gibberish(GIBBERISH_TEXTS, seed)
    inputs = inputs_of(rows, seed)
    inputs["gibberish"] = [some[row % len(some)] for row in range(len(rows))]
    distinct = list(dict.fromkeys(text for texts in inputs.values() for text in texts))
    made = dict(zip(distinct, module.reconstruct(distinct), strict=True))
    base = baseline(rows.vectors, mean)
    values = {"mean": row_scores(rows.vectors, np.tile(mean, (len(rows), 1)), mean, base)}
    values["mean"]["centred_cosine"][:] = 0.0  # by definition: ū/‖ū‖ − ū tells nothing of a row
    for condition, texts in inputs.items():
        values[condition] = row_scores(
            rows.vectors, np.stack([made[text] for text in texts]), mean, base
        )
    return Scores(values, {name: list(texts) for name, texts in inputs.items()}, base)
