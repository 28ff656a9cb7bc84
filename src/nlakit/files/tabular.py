"""Texts and vectors from files; records to a table, JSON lines or a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nlakit.errors import ConfigError, DataError

console = Console(highlight=False)


def span(found: Mapping[str, Any], sign: str = "") -> str:
    """A mean with its interval."""
    return f"{found['mean']:{sign}.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def read_lines(path: Path) -> list[str]:
    """Lines of a text file; DataError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}", found=str(error)) from error


def read_vectors(path: Path) -> Any:
    """Raw vectors `(n, d)` from a .npy file or the activation_vector column of a Parquet file."""
    import numpy as np

    from nlakit.files.parquet import matrix, read_table

    if path.suffix == ".npy":
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}", found=str(error)) from error
        if found.ndim not in (1, 2) or not found.size or found.dtype.kind not in "fiu":
            raise DataError(
                f"{path} holds no vectors: they are numbers (n, d)",
                found=f"shape {found.shape} of {found.dtype}",
            )
        return np.atleast_2d(found)
    return matrix(read_table(path))


TABLE_COLUMNS = ("position", "token", "centred_cosine", "floor", "fve", "explanation")


def emit(records: list[dict[str, Any]], format: str, save: Path | None) -> None:
    """Print records as a table or JSON lines, or write them to a file."""
    if save is not None and save.suffix == ".parquet":
        import pyarrow as pa

        from nlakit.files.parquet import write_table

        write_table(save, pa.Table.from_pylist(records))
        return
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if save is not None:
        from nlakit.run.folder import atomic_write

        atomic_write(save, lines)
        return
    if format == "jsonl":
        typer.echo(lines, nl=False)
        return
    if format != "table":
        raise ConfigError("unknown --format", found=format, do="table or jsonl")
    table = Table()
    shown = [name for name in TABLE_COLUMNS if name in records[0]]
    for name in shown:
        wide = name == "explanation"
        table.add_column(name, overflow="fold", ratio=1 if wide else None, no_wrap=not wide)
    for record in records:
        table.add_row(*(escape(_cell(record[name])) for name in shown))
    console.print(table)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
