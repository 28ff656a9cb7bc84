"""Rows of imported tables, in place of corpus, activations, split and labels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nlakit.config.sections import RunConfig
from nlakit.core.contract import Contract, read_contract, table_sidecar
from nlakit.errors import ContractError, DataError
from nlakit.files.parquet import read_table
from nlakit.models.subject import Subject

HELD_OUT = {"test": 0.12, "rl": 0.08}  # of the AR's documents, where a table of the part is missing


def read(source: Path, config: RunConfig) -> pa.Table:
    """The rows of a folder that `nlakit import` wrote, with their part. Parts that other projects
    do not have are taken from the AR's documents.

    Raises DataError without rows for either half, ContractError if they were made for another
    subject, layer or precision.
    """
    files = {part: source / f"{part}.parquet" for part in ("av", "ar", "rl", "test")}
    found = {part: read_table(file) for part, file in files.items() if file.exists()}
    if not {"av", "ar"} <= found.keys():
        raise DataError(
            f"{source} does not hold tables for both halves",
            found=", ".join(found) or "no Parquet file",
            do="import a folder with av_sft and ar_sft (nlakit import FOLDER TARGET)",
        )
    contract, subject = read_contract(table_sidecar(files["ar"])), config.subject
    recorded = contract.nlakit.subject_precision
    if subject.dtype == "auto":  # what they were read in does not bind what trains on them
        subject = subject.model_copy(update={"dtype": recorded.rpartition("+")[2]})
    for name, theirs, ours in (
        ("subject.model", contract.extraction.base_model, subject.model),
        ("subject.layer", contract.layer, subject.layer),
        ("precision", recorded, subject.precision),
    ):
        if theirs != ours:
            raise ContractError(
                f"the tables in {source} were made for another {name}",
                found=f"{theirs} instead of {ours}",
                do="set it to theirs, or import them again (--base-model, --precision)",
            )
    tables = [table.append_column("part", pa.array([part] * table.num_rows, pa.string()))
              for part, table in found.items()]  # fmt: skip
    joined = pa.concat_tables(tables, promote_options="default")
    parts = _with_held_out(joined, HELD_OUT.keys() - found.keys())
    joined = joined.set_column(joined.column_names.index("part"), "part", parts)
    left_out = {"prompt", "response"} & set(joined.column_names)
    return joined.drop_columns(sorted(left_out)).filter(pc.field("api_explanation").is_valid())


def _with_held_out(table: pa.Table, missing: set[str]) -> pa.Array:
    """Parts of the rows, keyed on the document, so that no document lies in two."""
    made = []
    for part, doc in zip(table["part"].to_pylist(), table["doc_id"].to_pylist(), strict=True):
        place = int(hashlib.sha256(str(doc).encode()).hexdigest()[:8], 16) / 16**8
        for other in sorted(missing) if part == "ar" else ():
            if 0 <= place < HELD_OUT[other]:
                part = other
                break
            place -= HELD_OUT[other]
        made.append(part)
    return pa.array(made, pa.string())


def marker_of(source: Path) -> str:
    """The marker that imported tables were made with."""
    return read_contract(table_sidecar(source / "ar.parquet")).tokens.injection_char


def take_prompts(contract: Contract, source: Path, subject: Subject) -> None:
    """Give a contract the templates and tags that the imported tables were made with."""
    theirs = read_contract(table_sidecar(source / "ar.parquet"))
    theirs.check_bos(subject.config.bos)
    contract.tokens, contract.prompt_templates = theirs.tokens, theirs.prompt_templates
    contract.nlakit.av_open = theirs.nlakit.av_open
    contract.nlakit.av_close = theirs.nlakit.av_close
    contract.check_tokenizer(subject.tokenizer)
