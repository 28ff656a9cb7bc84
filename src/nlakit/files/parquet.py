"""Parquet: tables of one or several files, and the vectors in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nlakit.errors import DataError, first_line
from nlakit.run.folder import atomic_path

VECTOR = "activation_vector"


def vector_array(vectors: NDArray[Any]) -> pa.FixedSizeListArray:
    """`(n, d)` float32 to a fixed-size list column, without Python lists."""
    flat = np.ascontiguousarray(vectors, dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def matrix(table: pa.Table, column: str = VECTOR) -> NDArray[np.float32]:
    """A column of lists of numbers, of equal length, or of tensors that are vectors, as `(n, d)`
    float32. A table without rows has a width only where the type of its column gives it.

    Raises DataError if the column is missing, holds no numbers, has rows of different width, or
    nulls.
    """
    if column not in table.column_names:
        raise DataError(
            f"no column {column}", found=table.column_names, do="a list of d floats a row"
        )
    found = _plain(table.select([column]))[column]
    kind = found.type
    width = vector_width(kind, column)
    if found.null_count:
        raise DataError(
            f"column {column} has empty rows",
            found=f"{found.null_count} rows",
            do="fill these rows, or leave them out",
        )
    if width is None:
        lengths = sorted(pc.call_function("list_value_length", [found]).unique().to_pylist())
        if not lengths:
            raise DataError(
                f"column {column} has no rows, and so no vectors",
                found="0 rows",
                do="give a table with rows",
            )
        if len(lengths) > 1:
            raise DataError(
                f"column {column} has rows of different width",
                found=f"{lengths[0]} to {lengths[-1]}",
                do="give vectors of one model and layer",
            )
        width = lengths[0]
    made = np.empty((len(found), width), dtype=np.float32)
    start = 0
    for chunk in found.chunks:
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite
            flat = chunk.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        made[start : start + len(chunk)] = flat.reshape(-1, width)
        start += len(chunk)
    return made


def vector_width(kind: pa.DataType, column: str = VECTOR) -> int | None:
    """How wide the vectors of a column of this type are; None where its rows say so.

    Raises DataError if the type holds no vectors.
    """
    if isinstance(kind, pa.FixedShapeTensorType) and max(kind.shape) == np.prod(kind.shape):
        kind = kind.storage_type
    lists = (pa.types.is_list_view, pa.types.is_large_list_view)
    if not (_is_list(kind) or any(one(kind) for one in lists)) or not _is_number(kind.value_type):
        raise DataError(
            f"column {column} holds no vectors", found=kind, do="a list of d floats a row"
        )
    return kind.list_size if pa.types.is_fixed_size_list(kind) else None


def finite_matrix(table: pa.Table, path: Path, column: str = VECTOR) -> NDArray[np.float32]:
    """As `matrix`, for what was read at `path`; DataError also for rows that are not finite."""
    found = matrix(table, column)
    check_finite(found, path, half="halffloat" in str(table.schema.field(column).type))
    return found


def check_finite(vectors: NDArray[np.float32], path: Path, half: bool) -> None:
    """Raise DataError if rows of `(n, d)` are not finite; half: whether they were stored in half
    precision, which has no number above 65504."""
    bad = np.asarray(~np.isfinite(vectors).all(axis=1))
    if not bad.any():
        return
    rows = f"{int(bad.sum())} of {len(bad)} rows, first {int(bad.argmax())}"
    if half and np.isinf(vectors).any():
        raise DataError(
            f"{path} holds vectors that half precision cut off to infinity",
            found=rows,
            do="store activations as float32: half precision ends at 65504",
        )
    raise DataError(
        f"{path} holds vectors with NaN, infinite or empty numbers",
        found=rows,
        do="leave these rows out",
    )


def _is_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(one(kind) for one in lists)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _plain(table: pa.Table) -> pa.Table:
    """The table in the types that others can be turned into: what a tensor, a dictionary or a
    view holds, without the way it is held."""
    for at, field in enumerate(table.schema):
        kind, values = field.type, table.column(at)
        if isinstance(kind, pa.FixedShapeTensorType) and max(kind.shape) == np.prod(kind.shape):
            chunks = [chunk.storage for chunk in values.chunks]
            values = pa.chunked_array(chunks, kind.storage_type)
        elif pa.types.is_dictionary(kind):
            values = values.cast(kind.value_type)
        elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
            values = values.cast(pa.large_list(kind.value_type))
        elif pa.types.is_string_view(kind):
            values = values.cast(pa.string())
        else:
            continue
        table = table.set_column(at, field.name, values)
    return table


def write_table(path: Path, table: pa.Table | Mapping[str, Any]) -> None:
    """Write a table so that a reader sees nothing or all of it."""
    made = table if isinstance(table, pa.Table) else pa.table(dict(table))
    with atomic_path(path) as temporary:
        pq.write_table(made, temporary, compression="zstd")


def parquet_files(path: Path) -> list[Path]:
    """A Parquet file, or all `*.parquet` of a folder in the order of their names, but hidden ones.

    Raises DataError if there is none.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.glob("*.parquet") if not file.name.startswith("."))
    if not files or not files[0].exists():
        raise DataError(f"no Parquet file at {path}", do="check the path")
    return files


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or all `*.parquet` of a folder in the order of their names; hidden
    ones are left out. Files of several writers are joined where their columns are of equal
    meaning; where one lacks a column that was not asked for, it is null.

    Raises DataError if a file is missing, empty, truncated or no Parquet, lacks a column that was
    asked for, or holds something else in a column than the file before.
    """
    files = parquet_files(path)
    tables = [_read_file(file, columns) for file in files]
    if any(table.schema != tables[0].schema for table in tables[1:]):
        tables = _of_one_schema(files, [_plain(table) for table in tables])
    return pa.concat_tables(tables)


def column_names(file: Path) -> list[str]:
    """Names of a file's columns, without reading them; DataError if it is no Parquet."""
    try:
        with pq.ParquetFile(file) as opened:
            return list(opened.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read {file}",
        found=first_line(error),
        do="the file is truncated or no Parquet; make it again",
    )


def _read_file(file: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if missing := [name for name in columns or () if name not in names]:
                raise DataError(
                    f"{file} has no column {missing[0]}",
                    found=", ".join(names),
                    do="name a column so, or give another file",
                )
            if twice := [name for name in names if names.count(name) > 1]:
                raise DataError(f"{file} has several columns {twice[0]}", do="rename all but one")
            return opened.read(None if columns is None else list(columns))
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise unreadable(file, error) from error


def _of_one_schema(files: Sequence[Path], tables: Sequence[pa.Table]) -> list[pa.Table]:
    """The tables with the columns of all, each in the type that holds what any of them has."""
    kinds: dict[str, pa.DataType] = {}
    first: dict[str, Path] = {}
    for file, table in zip(files, tables, strict=True):
        for field in table.schema:
            before = kinds.setdefault(field.name, field.type)
            kinds[field.name] = _common(field.name, before, field.type, first, file)
            first.setdefault(field.name, file)
    made = []
    for file, table in zip(files, tables, strict=True):
        columns = {}
        for name, kind in kinds.items():
            if name not in table.column_names:
                columns[name] = pa.nulls(table.num_rows, kind)
                continue
            try:
                columns[name] = table[name].cast(kind)
            except pa.ArrowException as error:
                raise DataError(
                    f"column {name!r} of {file} does not fit the other files",
                    found=f"{table[name].type} where the others have {kind}: {first_line(error)}",
                    do="write the column as one type, or move the file away",
                ) from error
        made.append(pa.table(columns))
    return made


def _common(
    name: str, before: pa.DataType, kind: pa.DataType, first: Mapping[str, Path], file: Path
) -> pa.DataType:
    """The type of a column in all files so far, and in one more."""
    schemas = [pa.schema([(name, one)]) for one in (before, kind)]
    try:
        found = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        # Arrow counts texts and bytes as one.
        if _is_bytes(found) and not all(_is_bytes(one) or pa.types.is_null(one)
                                        for one in (before, kind)):  # fmt: skip
            raise pa.ArrowTypeError
    except pa.ArrowException as error:
        raise DataError(
            f"files of one folder differ in their column {name!r}",
            found=f"{before} in {first[name]}, {kind} in {file}",
            do="write it as one type, or move one file away",
        ) from error
    return found


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
