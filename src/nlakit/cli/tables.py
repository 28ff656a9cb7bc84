"""Records as a table, as JSON lines, or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nlakit.cli.use.marks import legend, marked
from nlakit.errors import ConfigError
from nlakit.files.places import check_file
from nlakit.files.text import as_json

console = Console(highlight=False)
TABLE_COLUMNS = (
    "conversation", "direction", "position", "role", "token", "entropy", "surprise", "change",
    "spread", "score", "centred_cosine", "floor", "other", "fve", "explanation",
)  # fmt: skip
OFTEN_ABSENT = ("conversation", "role")  # columns that only some records have a value for
SAVED = (".jsonl", ".ndjson", ".parquet")
Format = Annotated[str, typer.Option("--format", help="table or jsonl")]
Save = Annotated[Path | None, typer.Option("--save", help="write to this file (.jsonl, .parquet)")]


def check_output(format: str, save: Path | None) -> None:
    """Raise ConfigError, before the work, for what `emit` could not do after it."""
    if format not in ("table", "jsonl"):
        raise ConfigError("unknown --format", found=format, do="table or jsonl")
    if save is not None:
        check_file(save, SAVED)


def write_data(text: str) -> None:
    """Write what a program will read to standard output: as UTF-8, whatever the terminal has."""
    typer.echo(text.encode(errors="replace"), nl=False)


def emit(records: list[dict[str, Any]], format: str, save: Path | None) -> None:
    """Print records as a table or JSON lines, or write them to a file. Words of explanations are
    marked where recurrence was asked for."""
    if save is not None and save.suffix.lower() == ".parquet":
        import pyarrow as pa

        from nlakit.files.parquet import write_table

        write_table(save, pa.Table.from_pylist(records))
        return
    lines = "".join(as_json(record) + "\n" for record in records)
    if save is not None:
        from nlakit.run.folder import atomic_write

        atomic_write(save, lines)
        return
    if format == "jsonl":
        write_data(lines)
        return
    styled = console.color_system is not None and not console.no_color
    console.print(table_of(records, styled))
    if recurred := next(filter(None, (record.get("recurrence") for record in records)), None):
        console.print(legend(recurred, styled))


def table_of(records: list[dict[str, Any]], styled: bool = False) -> Table:
    """The columns that fit in 80 characters, with the most room for the explanation."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = [name for name in TABLE_COLUMNS if name in records[0]]
    shown = [
        name
        for name in shown
        if name not in OFTEN_ABSENT or any(record[name] is not None for record in records)
    ]
    for name in shown:
        wide = name == "explanation"
        head = name.replace("_", "\n")
        table.add_column(head, overflow="fold", ratio=1 if wide else None, no_wrap=not wide)
    for record in records:
        cells: list[Any] = [escape(_cell(record[name])) for name in shown]
        if record.get("recurrence"):
            cells[shown.index("explanation")] = marked(record, styled)
        table.add_row(*cells)
    return table


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
