"""Labels of a finished run as one file, with its data card."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa

from nlakit.config.load import load_config
from nlakit.config.sections import RunConfig
from nlakit.data.labels.file import BATCH_ROWS, EXPLANATION, TEXT
from nlakit.data.labels.labeler import SCHEMA
from nlakit.errors import ConfigError, RunError
from nlakit.files.markdown import environment
from nlakit.files.parquet import read_table, write_table
from nlakit.files.places import check_file
from nlakit.files.text import as_json
from nlakit.run.folder import RunDir, atomic_path, atomic_write, file_sha256

# Written into every card, so that nobody's own README is replaced.
MARK = "<!-- written by nlakit: this card is replaced by the next export -->"
FROM_ACTIVATIONS = (TEXT, "doc_id", "source_family", "position")
MEANING = {
    "row_id": "document and position: `doc_id:position`",
    "text_sha256": "SHA-256 of the text in UTF-8; labels of different files are joined by it",
    EXPLANATION: "the explanation; null if the row has none",
    "reason": "why a row has no explanation",
    "labeler_model": "who wrote the explanation",
    "auditor_model": "who checked it; null if nobody did",
    "verdict": "the auditor's word",
    "audit_score": "the auditor's score",
    "labeler_prompt": "hash of the labeler's prompt",
    "auditor_prompt": "hash of the auditor's prompt",
    "labelled_at": "ISO 8601, UTC",
    "tokens_in": "tokens read to make the label",
    "tokens_out": "tokens written to make the label",
    "cost": "US dollars",
    "attempts": "requests sent for the row, failed ones too",
    "repaired": "answers of the row that were not of the form asked for, and plainly meant one",
    TEXT: "the text up to and including the position that is described",
    "doc_id": "the document",
    "source_family": "the family of documents it belongs to",
    "position": "0-based token of the document, special tokens counted",
}
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def export_labels(rundir: RunDir, target: Path) -> int:
    """Write a finished run's labels with their texts, and a data card `README.md` beside them.

    Rows without an explanation are written too, with their reason. Returns the number of rows.
    Raises ConfigError for an ending other than .parquet and .jsonl, a place that cannot be written
    to, or a README.md that nlakit
    did not write; RunError if the labels are not finished, or of other activations.
    """
    check_file(target, (".parquet", ".jsonl"))
    card = target.with_name("README.md")
    if card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"{card} was not written by nlakit",
            found="the data card has the same name",
            do="export into another folder, or move that file",
        )
    table = _joined(rundir)
    if target.suffix.lower() == ".parquet":
        write_table(target, table)
    else:
        with atomic_path(target) as path, path.open("w", encoding="utf-8", newline="\n") as lines:
            for batch in table.to_batches(max_chunksize=BATCH_ROWS):
                for row in batch.to_pylist():
                    lines.write(as_json(row) + "\n")
    atomic_write(card, data_card(rundir, target, table))
    return table.num_rows


def _joined(rundir: RunDir) -> pa.Table:
    """Labels, in their order, with the texts and documents they belong to."""
    labels = read_table(rundir.need("labels"), SCHEMA.names)
    rows = read_table(rundir.need("activations"), ["row_id", *FROM_ACTIVATIONS])
    index_of = {row_id: index for index, row_id in enumerate(rows["row_id"].to_pylist())}
    order = [index_of.get(row_id) for row_id in labels["row_id"].to_pylist()]
    if None in order:
        raise RunError(
            f"the labels in {rundir.path} are of other activations",
            found=f"{order.count(None)} of {len(order)} rows are not among them",
            do="redo them with --redo labels",
        )
    found = rows.take(order)
    for name in FROM_ACTIVATIONS:
        labels = labels.append_column(name, found[name])
    return labels


def data_card(rundir: RunDir, file: Path, table: pa.Table) -> str:
    """The card of an exported label file, as Hugging Face reads it (Markdown, YAML ahead)."""
    config, manifest = load_config(rundir.path / "config.yaml"), rundir.manifest("labels")
    assert manifest is not None
    return (
        environment(Path(__file__).parent)
        .get_template("datacard.md.j2")
        .render(
            mark=MARK,
            config=config,
            manifest=manifest,
            file=file,
            sha256=file_sha256(file),
            subject=_public(config.subject.model),
            sources=_sources(config),
            rows=table.num_rows,
            size=next((name for bound, name in SIZES if table.num_rows < bound), "n>10M"),
            labelled=table.num_rows - table[EXPLANATION].null_count,
            counts=[(what, _counts(table, name)) for name, what in COUNTED.items()],
            families=_families(table),
            spent=[(what, *_total(table[name])) for name, what in SPENT.items()],
            columns=[(name, table[name].type, MEANING[name]) for name in table.column_names],
        )
    )


COUNTED = {
    "labeler_model": "labeler",
    "auditor_model": "auditor",
    "labeler_prompt": "hash of the labeler's prompt",
    "auditor_prompt": "hash of the auditor's prompt",
    "verdict": "auditor's verdict",
    "reason": "why a row has no explanation",
}
SPENT = {
    "cost": "cost, US dollars",
    "tokens_in": "tokens read",
    "tokens_out": "tokens written",
    "attempts": "requests",
}


def _public(name: str) -> str:
    """A name without the local folders it lies in: a card is read by others."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name


def _sources(config: RunConfig) -> list[str]:
    named = []
    for source in config.corpus.sources:
        parts = [source.dataset or _public(source.path), source.subset, source.family]
        split = source.dataset_split if source.dataset else None
        named.append(", ".join(part for part in (*parts, split) if part))
    return named


def _counts(table: pa.Table, name: str) -> list[tuple[str, int]]:
    return Counter(table[name].drop_null().to_pylist()).most_common()


def _families(table: pa.Table) -> list[tuple[str, int, int]]:
    """Family, its rows, and how many of them have an explanation."""
    labelled = table.filter(table[EXPLANATION].is_valid())
    with_text = dict(_counts(labelled, "source_family"))
    counted = _counts(table, "source_family")
    return [(family, count, with_text.get(family, 0)) for family, count in counted]


def _total(column: pa.ChunkedArray) -> tuple[str, int]:
    """The sum of what is known, in words, and for how many rows it is known."""
    known = column.drop_null().to_pylist()
    return (f"{round(sum(known), 4):,}" if known else "unknown"), len(known)
