"""Join activations, parts and labels into the tables that training reads, with their sidecars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from safetensors.numpy import save_file

from nlakit.config.load import config_hash
from nlakit.config.sections import RunConfig
from nlakit.core.contract import Contract, Extraction, Provenance, Templates, Tokens, table_sidecar
from nlakit.core.metrics import baseline, mean_unit
from nlakit.core.prompts import find_marker, holds_marker, marker_neighbours, suffix_ids
from nlakit.data import imported
from nlakit.data.split import read_split
from nlakit.errors import DataError
from nlakit.files.parquet import matrix, read_table, write_table
from nlakit.models.subject import Subject, load_subject, subject_sha256
from nlakit.run.folder import Rows, RunDir, file_sha256, git_commit, library_versions
from nlakit.run.inputs import Reads, subject_files
from nlakit.run.stage import stage

PARTS = ("av", "ar", "rl", "test")
MEAN_FILE = "mean_unit.safetensors"


def files_read(config: RunConfig) -> Reads:
    """The subject, and imported tables with their sidecars."""
    source = config.tables.source
    tables = [*Path(source).glob("*.parquet"), *Path(source).glob("*.yaml")] if source else []
    return {**subject_files(config), **({source: tables} if source and tables else {})}


@stage(
    "tables",
    parents=("activations", "split", "labels"),
    sections=("tables", "subject", "seed"),
    outside=files_read,
    alone=lambda config: config.tables.source is not None,
)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write {av,ar,rl,test}.parquet with sidecars, mean_unit.safetensors and norms.json.

    Rows of a part are in an order keyed on the seed, so that the first n are a fair sample. Rows
    whose label holds the marker are dropped: the AV would take it for the place of a vector.
    """
    source = Path(config.tables.source) if config.tables.source else None
    labelled = imported.read(source, config) if source else join(rundir)
    subject = load_subject(config.subject)
    if source:
        marker = imported.marker_of(source)
    else:
        documents = read_table(rundir.need("corpus") / "corpus.parquet", ["text"])
        texts = [*documents["text"].to_pylist(), *labelled["api_explanation"].to_pylist()]
        marker = chosen_marker(config, subject, texts)
    joined = without_marker(labelled, subject, marker)
    made: dict[str, pa.Table] = {}
    for part in PARTS:
        rows = joined.filter(pc.field("part") == part)
        order = np.random.default_rng([config.seed, PARTS.index(part)]).permutation(rows.num_rows)
        made[part] = rows.take(order)
    train = np.concatenate([matrix(made[part]) for part in PARTS[:3]])
    in_label = labelled.num_rows - joined.num_rows
    if not len(train):
        raise DataError(
            "no rows are left to train on",
            found=f"{labelled.num_rows} labels, {in_label} with the marker {marker!r}",
            do="use more documents, or leave tables.marker unset to search for one",
        )
    mean = mean_unit(train)
    norms = measured_norms(train, subject)
    contract = base_contract(config, subject, mean, train, norms, marker)
    if source:
        imported.take_prompts(contract, source, subject)
    for part, table in made.items():
        shaped = shape(table, part, contract)
        write_table(folder / f"{part}.parquet", shaped)
        contract.nlakit.data_sha256 = file_sha256(folder / f"{part}.parquet")
        contract.write(table_sidecar(folder / f"{part}.parquet"))
    save_file({"mean_unit": mean.astype(np.float32)}, folder / MEAN_FILE)
    (folder / "norms.json").write_text(json.dumps(norms, indent=1) + "\n", encoding="utf-8")
    activations = rundir.manifest("activations")
    total = labelled.num_rows if source or activations is None else activations.rows.kept
    dropped = {"no_label": total - labelled.num_rows, "marker_in_label": in_label}
    return Rows(entered=total, kept=joined.num_rows, dropped=dropped)


def chosen_marker(config: RunConfig, subject: Subject, texts: Sequence[str]) -> str:
    """The marker that is set, or one that occurs in none of `texts`, where there is one."""
    settings = config.tables
    return settings.marker or find_marker(subject.tokenizer, settings.av_template, texts)


def without_marker(table: pa.Table, subject: Subject, marker: str) -> pa.Table:
    """The rows whose label does not hold the marker."""
    texts = table["api_explanation"].to_pylist()
    free = [not holds_marker(subject.tokenizer, marker, text) for text in texts]
    return table.filter(pa.array(free, pa.bool_()))


def join(rundir: RunDir) -> pa.Table:
    """Activations with their part and label; rows without a label stay out.

    Raises DataError if a document, or a group of near-duplicates, is in two parts.
    """
    split = read_split(rundir.need("split"))
    part_of = dict(zip(split["doc_id"].to_pylist(), split["part"].to_pylist(), strict=True))
    labels = read_table(rundir.need("labels"))
    label_of = dict(
        zip(
            labels["row_id"].to_pylist(),
            zip(
                labels["api_explanation"].to_pylist(),
                labels["labeler_model"].to_pylist(),
                strict=True,
            ),
            strict=True,
        )
    )
    table = read_table(rundir.need("activations"))
    found = [label_of[row] for row in table["row_id"].to_pylist()]
    columns = {
        "part": [part_of[doc] for doc in table["doc_id"].to_pylist()],
        "api_explanation": [text for text, _ in found],
        "labeler_model": [name for _, name in found],
    }
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.string()))
    return table.filter(pc.field("api_explanation").is_valid())


def measured_norms(vectors: NDArray[Any], subject: Subject) -> dict[str, float]:
    """Norms of the training activations and of the subject's token embeddings."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return {
        "activation_mean": float(lengths.mean()),
        "activation_sd": float(lengths.std()),
        "activation_p75": float(np.quantile(lengths, 0.75)),
        "activation_max": float(lengths.max()),
        "embedding_mean": subject.embedding_norm(),
    }


def base_contract(
    config: RunConfig,
    subject: Subject,
    mean: NDArray[Any],
    train: NDArray[Any],
    norms: dict[str, float],
    marker: str | None = None,
) -> Contract:
    """The contract every table and checkpoint of the run starts from. An AR does without a marker:
    any will do where no AV is trained."""
    settings = config.tables
    marker = marker or chosen_marker(config, subject, ())
    left, token, right = marker_neighbours(subject.tokenizer, settings.av_template, marker)
    return Contract(
        kind="nla_dataset",
        d_model=subject.d_model,
        extraction=Extraction(
            base_model=config.subject.model,
            layer_index=config.subject.layer,
            injection_scale=norms["embedding_mean"],
        ),
        tokens=Tokens(
            injection_char=marker,
            injection_token_id=token,
            injection_left_neighbor_id=left,
            injection_right_neighbor_id=right,
            critic_suffix_ids=suffix_ids(subject.tokenizer, settings.ar_template),
        ),
        prompt_templates=Templates(av=settings.av_template, ar=settings.ar_template),
        ar={"num_hidden_layers": config.subject.layer},
        nlakit=Provenance(
            versions=library_versions(),
            git_commit=git_commit(),
            config_hash=config_hash(config, ("subject", "tables", "activations", "seed")),
            subject_sha256=subject_sha256(subject),
            subject_precision=subject.config.precision,
            ple_on_cpu=config.subject.ple_on_cpu,
            revision=config.subject.revision,
            special_tokens=(
                "parse" if config.corpus.holds_conversations else config.corpus.special_tokens
            ),
            chat_template=config.corpus.chat_template,
            bos="add" if subject.config.bos == "add" else "tokenizer",
            av_close=settings.av_close,
            embedding_norm=norms["embedding_mean"],
            activation_norm=norms["activation_mean"],
            mean_unit_file=MEAN_FILE,
            baseline=baseline(train, mean),
            baseline_source=f"{len(train)} rows of the parts av, ar and rl",
        ),
    )


def shape(table: pa.Table, part: str, contract: Contract) -> pa.Table:
    """Rows in the reference's column names; prompt and response are what the half is trained on."""
    texts = table["api_explanation"].to_pylist()
    if part == "ar":
        prompts, responses = [contract.ar_prompt(text) for text in texts], [""] * len(texts)
    else:
        prompts = [contract.av_prompt()] * len(texts)
        responses = [text + contract.nlakit.av_close for text in texts]
    table = table.drop_columns(["part"])
    table = table.append_column("prompt", pa.array(prompts, pa.string()))
    return table.append_column("response", pa.array(responses, pa.string()))
