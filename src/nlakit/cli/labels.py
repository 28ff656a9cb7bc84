"""Commands about labels: make, try, exchange and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nlakit.cli.options import Out, Sets, Target, guarded, resolve
from nlakit.errors import DataError
from nlakit.run import pipeline
from nlakit.run.folder import RunDir

console = Console(highlight=False)
MaxCost = Annotated[float | None, typer.Option(help="US dollars this run may spend in all")]
MaxRequests = Annotated[int | None, typer.Option(help="requests this run may send in all")]
MaxRows = Annotated[int | None, typer.Option(help="rows to label before stopping")]
Try = Annotated[
    int | None,
    typer.Option(
        "--try", min=1, metavar="N", help="label N rows and train a small AR on them, no more"
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN")]


def labels(
    target: Target,
    sets: Sets = None,
    out: Out = None,
    redo: bool = False,
    try_rows: Try = None,
    max_cost: MaxCost = None,
    max_requests: MaxRequests = None,
    max_rows: MaxRows = None,
) -> None:
    """Describe every row in words. Ends with exit code 4 at a limit; what is done is kept."""
    limits = {"max_cost": max_cost, "max_requests": max_requests, "max_rows": max_rows}
    given = [f"requests.{name}={value}" for name, value in limits.items() if value is not None]
    config, path = resolve(target, out, [*(sets or []), *given])
    if try_rows is None:
        guarded(config, path, ["labels"] if redo else [], ("labels",))
        return
    guarded(config, path, [], ("corpus", "activations", "split"))
    from nlakit.studies.trial import table_of
    from nlakit.studies.try_labels import run_trial

    report, said = run_trial(config, RunDir(path), try_rows)
    for line in said:
        console.print(line, markup=False, soft_wrap=True)
    console.print(table_of(report))


def export_labels(
    run: RunPath, file: Annotated[Path, typer.Argument(metavar="FILE", help=".parquet or .jsonl")]
) -> None:
    """Write a run's labels with their texts and provenance, and a data card beside them."""
    from nlakit.data.labels.export import export_labels as export

    rows = export(RunDir(run), file)
    console.print(f"{rows} rows in {file}; the card is {file.parent / 'README.md'}", markup=False)


def agree(first: RunPath, second: RunPath) -> None:
    """Say how far the labels of two runs agree, row by row, beside chance."""
    from nlakit.data.labels.quality import agreement, agreement_line
    from nlakit.files.parquet import read_table

    tables = [read_table(RunDir(run).need("labels")) for run in (first, second)]
    rows = read_table(RunDir(first).need("activations"), ["row_id", "doc_id"])
    documents = dict(zip(rows["row_id"].to_pylist(), rows["doc_id"].to_pylist(), strict=True))
    if not set(documents) & set(tables[1]["row_id"].to_pylist()):
        raise DataError("the two runs have no row in common", do="use runs over the same rows")
    found = agreement(tables[0], tables[1], documents)
    console.print(agreement_line(found), markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    assert "labels" in pipeline.STAGES
    app.command("labels")(labels)
    app.command("label", hidden=True)(labels)
    app.command("export-labels")(export_labels)
    app.command("agree")(agree)
