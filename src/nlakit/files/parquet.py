"""Chunked Parquet: a stage's unit of resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nlakit.errors import DataError
from nlakit.run.folder import atomic_path

VECTOR = "activation_vector"


def vector_array(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """`(n, d)` float32 to a fixed-size list column, without Python lists."""
    flat = np.ascontiguousarray(vectors, dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def matrix(table: pa.Table, column: str = VECTOR) -> NDArray[np.float32]:
    """A fixed-size (or equal-length) list column as `(n, d)` float32.

    Raises DataError if the column is missing, has rows of different width, or nulls.
    """
    if column not in table.column_names:
        raise DataError(
            f"no column {column}", found=table.column_names, do="a list of d floats a row"
        )
    values = table[column].combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else values.chunk(0)
    if values.null_count:
        raise DataError(f"column {column} has empty rows", found=f"{values.null_count} rows")
    if pa.types.is_fixed_size_list(values.type):
        flat, width = values.flatten(), values.type.list_size
    elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        lengths = set(np.diff(np.asarray(values.offsets)).tolist())
        if len(lengths) != 1:
            raise DataError(f"column {column} has rows of different width", found=sorted(lengths))
        flat, width = values.flatten(), lengths.pop()
    else:
        raise DataError(f"column {column} holds no vectors", found=values.type)
    # A copy: Arrow hands out read-only memory, which torch cannot share.
    return np.array(flat, dtype=np.float32).reshape(-1, width)


def write_table(path: Path, table: pa.Table | Mapping[str, Any]) -> None:
    """Write a table so that a reader sees nothing or all of it."""
    made = table if isinstance(table, pa.Table) else pa.table(dict(table))
    with atomic_path(path) as temporary:
        pq.write_table(made, temporary, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or all `*.parquet` of a folder in the order of their names.

    Raises DataError if it is missing, empty, truncated or no Parquet.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise DataError(f"no Parquet file at {path}", do="check the path")
    try:
        return pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"cannot read {path}",
            found=str(error).splitlines()[0],
            do="the file is truncated or no Parquet; make it again",
        ) from error
