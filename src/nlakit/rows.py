"""Rows of a finished table, as arrays and lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nlakit.core.contract import Contract, read_contract, table_sidecar
from nlakit.models.lora import read_tensors
from nlakit.parquet import matrix, read_table
from nlakit.rundir import RunDir


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
    table = read_table(path)
    rows = TableRows(
        table["row_id"].to_pylist(),
        table["doc_id"].to_pylist(),
        table["api_explanation"].to_pylist(),
        table["detokenized_text_truncated"].to_pylist(),
        table["source_family"].to_pylist(),
        table["token"].to_pylist(),
        table["position"].to_pylist(),
        matrix(table),
    )
    return rows, read_contract(table_sidecar(path))


def read_mean(folder: Path) -> NDArray[np.float32]:
    """ū `(d,)` from mean_unit.safetensors in a folder."""
    return read_tensors(folder / "mean_unit.safetensors")["mean_unit"].float().numpy()
