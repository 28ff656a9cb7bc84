"""Rows of a finished table, as arrays and lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.contract import Contract, read_contract, table_sidecar
from nlakit.errors import DataError
from nlakit.files.parquet import VECTOR, column_names, finite_matrix, read_table
from nlakit.run.folder import RunDir

PARTS = ("test", "av", "ar")


@dataclass(frozen=True)
class TableRows:
    """n rows: texts are the labels; vectors raw `(n, d)` float32."""

    row_ids: list[str]
    doc_ids: list[str]
    texts: list[str]
    sources: list[str]
    families: list[str]
    tokens: list[str]
    positions: list[int]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def known_texts(self) -> list[str | None]:
        """Labels, None for a row that has none."""
        return [text or None for text in self.texts]

    @property
    def known_sources(self) -> list[str | None]:
        """Sources, None for a row that has none."""
        return [source or None for source in self.sources]

    def head(self, count: int) -> TableRows:
        """The first `count` rows (tables are in a random order, so a fair sample)."""
        return self.take(range(min(count, len(self))))

    def take(self, picked: Sequence[int]) -> TableRows:
        """The rows with these indices, in their order."""
        lists = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "vectors"}
        cut = {name: [values[i] for i in picked] for name, values in lists.items()}
        return TableRows(**cut, vectors=self.vectors[list(picked)])

    def join(self, other: TableRows) -> TableRows:
        """These rows, then those of `other`."""
        names = [f.name for f in fields(self) if f.name != "vectors"]
        both = {name: getattr(self, name) + getattr(other, name) for name in names}
        return TableRows(**both, vectors=np.concatenate([self.vectors, other.vectors]))


def read_rows(rundir: RunDir, part: str) -> tuple[TableRows, Contract]:
    """A part's rows and the contract beside them."""
    path = rundir.need("tables") / f"{part}.parquet"
    return rows_of_file(path), read_contract(table_sidecar(path))


def rows_of_file(path: Path) -> TableRows:
    """Rows of a training or evaluation table, ours or the reference's. Only the vectors must be
    there: a row without a label or source has an empty one, and without a document is its own.

    Raises DataError if the file is no Parquet, holds no vectors, or numbers that are not finite, or
    gives two rows one row_id.
    """
    table = read_table(path)
    count = table.num_rows

    def column(name: str, other: list[Any]) -> list[Any]:
        if name not in table.column_names:
            return other
        return [
            kept if v is None else v for v, kept in zip(table[name].to_pylist(), other, strict=True)
        ]

    ids = [str(row) for row in column("row_id", [f"row-{i}" for i in range(count)])]
    if twice := [row for row, times in Counter(ids).items() if times > 1]:
        raise DataError(
            f"{path} has rows of one row_id: values would be taken for each other's",
            found=f"{len(twice)} ids, first {twice[0]!r}",
            do="number the rows, or leave the column out",
        )
    return TableRows(
        ids,
        [str(doc) for doc in column("doc_id", ids)],
        column("api_explanation", [""] * count),
        column("detokenized_text_truncated", [""] * count),
        column("source_family", [""] * count),
        column("token", [""] * count),
        column("position", column("n_raw_tokens", [0] * count)),
        finite_matrix(table, path),
    )


def layer_vectors(
    path: Path, layer: int, row_ids: Sequence[str] | None = None
) -> NDArray[np.float32] | None:
    """Raw vectors `(n, d)` of an extra layer that a run's table holds beside those of its own, of
    all rows or of those with these ids; None where it holds none.

    Raises DataError for numbers that are not finite.
    """
    column = f"{VECTOR}_L{layer}"
    if not {column, "row_id"} <= set(column_names(path)):
        return None
    table = read_table(path, ["row_id", column])
    vectors = finite_matrix(table, path, column)
    if row_ids is None:
        return vectors
    place = {row: at for at, row in enumerate(table["row_id"].to_pylist())}
    return vectors[[place[row] for row in row_ids]]


def tables_at(path: Path) -> dict[str, Path]:
    """Part → table of a run, a folder of tables or one table, which is then the `test` part.

    Raises DataError if there is no part to evaluate on, RunError if a run's tables are damaged.
    """
    if path.is_file():
        return {"test": path}
    folder, run = path, RunDir(path)
    if run.folder("tables").is_dir():
        folder = run.folder("tables")
        run.refuse_damage("tables", run.damage("tables", contents=True))
    found = {p: file for p in PARTS if (file := folder / f"{p}.parquet").exists()}
    if "test" not in found:
        raise DataError(
            f"no rows to evaluate on in {path}",
            found=", ".join(found) or "no test.parquet",
            do="give a run whose tables are finished, a folder with test.parquet, or one table",
        )
    return found


def read_mean(folder: Path) -> NDArray[np.float32]:
    """ū `(d,)` from mean_unit.safetensors in a folder."""
    from nlakit.models.lora import read_tensors

    return read_tensors(folder / "mean_unit.safetensors")["mean_unit"].float().numpy()
