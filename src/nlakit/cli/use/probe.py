"""The command that asks what a probe can still read in the words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nlakit.cli.use.pair import ArBos, BaseModel, Chat, Device, Injection, Precision
from nlakit.errors import DataError, first_line

if TYPE_CHECKING:
    from rich.table import Table

console = Console(highlight=False)
SHOWN = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "auc_retained": "AUC retained"}


def probe(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help=".csv, .jsonl or .parquet: a text, its label")
    ],
    pair: Annotated[
        str, typer.Option(metavar="PAIR", help="pair, half or run folder; hub id; demo")
    ] = "demo",
    text: Annotated[str, typer.Option(help="column of the texts")] = "text",
    label: Annotated[str, typer.Option(help="column of the labels")] = "label",
    doc_id: Annotated[
        str | None, typer.Option(help="column of the documents; doc_id if there, else the row")
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="sentence embedding: folder or hub id; MiniLM if installed")
    ] = None,
    base_model: BaseModel = None,
    precision: Precision = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
    device: Device = "auto",
    seed: int = 0,
    save: Annotated[Path | None, typer.Option(help="write findings and values (.json)")] = None,
) -> None:
    """Measure how much of what a probe reads in activations is kept in the words for them: AUC
    and accuracy from activations, reconstructions and explanations, on unseen documents."""
    from nlakit.evaluate.findings import findings
    from nlakit.evaluate.parts.probe import check, run
    from nlakit.files.places import check_file
    from nlakit.models.nla import NLA

    if save is not None:
        check_file(save, [".json"])
    texts, labels, documents = read_labelled(table, text, label, doc_id)
    check(texts, labels, documents)
    nla = NLA.load(
        pair, base_model=base_model, precision=precision, injection=injection, chat=chat,
        ar_bos=ar_bos, device=device,
    )  # fmt: skip
    part = run(nla, texts, labels, documents, embedding=embedding, seed=seed)
    records = findings([part], documents)
    console.print(table_of(records))
    classes = ", ".join(f"{name} {count}" for name, count in part.detail["classes"].items())
    console.print(
        f"{len(texts)} rows ({classes}) of {part.detail['documents']} documents", markup=False
    )
    for note in part.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if save is not None:
        _write(save, nla, {"table": table, "pair": pair, "seed": seed}, records, part)


def read_labelled(
    path: Path, text: str, label: str, doc_id: str | None
) -> tuple[list[str], list[str], list[str]]:
    """Texts, labels and documents from a table, one of each a row. Without `doc_id`, a column of
    that name is taken if there is one; else each row is a document.

    Raises DataError for a file that cannot be read, a column it lacks, or a row without a value.
    """
    import pyarrow as pa

    from nlakit.data.labels.file import LABEL_READERS
    from nlakit.files.text import ending

    reader = LABEL_READERS.get(ending(path))
    if reader is None or not path.is_file():
        raise DataError(
            f"no table at {path}",
            found=f"ending {path.suffix or '(none)'}" if path.exists() else "no such file",
            do=f"give a file: {', '.join(LABEL_READERS)}",
        )
    needed = [text, label, *([doc_id] if doc_id else [])]
    wanted = list(dict.fromkeys([text, label, doc_id or "doc_id"]))

    def choose(names: Sequence[str]) -> dict[str, str]:
        if missing := [name for name in needed if name not in names]:
            raise DataError(
                f"{path} has no column {missing[0]!r}",
                found=", ".join(names),
                do="name the columns by --text, --label and --doc-id",
            )
        return {name: name for name in wanted if name in names}

    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    try:
        for chosen, batch in reader(path, choose):
            for name, values in columns.items():
                values += batch[name].to_pylist() if name in chosen else [None] * batch.num_rows
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(
            f"{path} cannot be read", found=first_line(error), do="mend the file"
        ) from error
    if doc_id is None and not any(name is not None for name in columns["doc_id"]):
        columns["doc_id"] = [f"row {row}" for row in range(len(columns[text]))]
    for name, values in columns.items():
        if None in values:
            raise DataError(
                f"{path} has rows without a value in {name!r}",
                found=f"{values.count(None)} of {len(values)} rows, first {values.index(None)}",
                do="fill them in, or delete these rows",
            )
    made = [list(map(str, columns[name])) for name in (text, label, doc_id or "doc_id")]
    return made[0], made[1], made[2]


def table_of(records: list[dict[str, Any]]) -> Table:
    """What was probed, by measure, each with its interval; floors stand last."""
    from nlakit.core.shown import cut, plain_table, shorter

    table = plain_table(("probe of", *(f"{name} ±95%" for name in SHOWN.values())))
    by_place = {(record["condition"], record["measure"]): record for record in records}
    conditions = list(dict.fromkeys(record["condition"] for record in records))
    floors = [name for name in conditions if by_place[name, "auc"]["floor"] is None]
    for condition in [name for name in conditions if name not in floors] + floors:
        cells = [by_place.get((condition, measure)) for measure in SHOWN]
        shown = [shorter(found) if found else "" for found in cells]
        table.add_row(cut(condition.replace("_", " "), 22), *shown)
    return table


def _write(
    path: Path, nla: Any, given: dict[str, Any], records: list[dict[str, Any]], part: Any
) -> None:
    """Findings, values and texts, with what they were made of."""
    import json

    from nlakit import __version__
    from nlakit.files.text import as_json
    from nlakit.run.folder import atomic_write, file_sha256

    provenance = {
        **{name: str(value) for name, value in given.items()},
        "table_sha256": file_sha256(given["table"]),
        "base_model": nla.contract.extraction.base_model,
        "layer": nla.contract.layer,
        "nlakit": __version__,
    }
    made = {"provenance": provenance, "findings": records, "part": json.loads(part.dump())}
    atomic_write(path, as_json(made, indent=1) + "\n")


def register(app: typer.Typer) -> None:
    app.command("probe")(probe)
