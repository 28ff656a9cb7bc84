"""Tables of many Parquet files, a chunk of rows at a time: memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nlakit.errors import DataError
from nlakit.files.parquet import unreadable

# Pages are read through a buffer of so many bytes, and not a row group's column at once.
BUFFER = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Rows `start` to `start + rows` of a file; `index` counts over all files."""

    index: int
    file: Path
    start: int
    rows: int


def schema_of(file: Path) -> pa.Schema:
    """The columns of a Parquet file. Raises DataError if it cannot be read."""
    try:
        with pq.ParquetFile(file) as opened:
            return opened.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def chunks_of(files: Sequence[Path], size: int) -> list[Chunk]:
    """All rows of the files, up to `size` at once; none holds rows of two files.

    Raises DataError for a file that cannot be read.
    """
    chunks: list[Chunk] = []
    for file in files:
        rows = rows_of(file)
        if rows is None:
            raise DataError(
                f"cannot read {file}", found="no end of a Parquet file", do="make it again"
            )
        for start in range(0, rows, size):
            chunks.append(Chunk(len(chunks), file, start, min(size, rows - start)))
    return chunks


def rows_of(file: Path) -> int | None:
    """How many rows a Parquet file says it has; None if it is not there or not whole."""
    try:
        return pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError):
        return None


def read_chunks(wanted: Sequence[Chunk]) -> Iterator[tuple[Chunk, pa.Table]]:
    """Chunks of one file, in their order, each with its rows. What lies before the first one's row
    group is not read.

    Raises DataError if the file cannot be read.
    """
    file = wanted[0].file
    try:
        # Both settings keep Arrow from holding more of the file than what is asked for.
        with pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as opened:
            first, at = _group_of(opened.metadata, wanted[0].start)
            groups = range(first, opened.metadata.num_row_groups)
            batches = opened.iter_batches(wanted[0].rows, row_groups=groups, use_threads=False)
            yield from _cut(batches, at, wanted)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error


def _group_of(metadata: pq.FileMetaData, row: int) -> tuple[int, int]:
    """The row group that a row lies in, and that group's first row."""
    at = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < at + rows:
            return group, at
        at += rows
    raise AssertionError("chunks are made of the rows of their file")


def _cut(
    batches: Iterator[pa.RecordBatch], at: int, wanted: Sequence[Chunk]
) -> Iterator[tuple[Chunk, pa.Table]]:
    """The wanted rows of batches that follow each other; `at` is the first row of the first."""
    todo, pieces = list(reversed(wanted)), []
    for batch in batches:
        end = at + batch.num_rows
        while todo and todo[-1].start < end:
            chunk = todo[-1]
            low, high = max(chunk.start, at), min(chunk.start + chunk.rows, end)
            pieces.append(batch.slice(low - at, high - low))
            if chunk.start + chunk.rows > end:
                break
            yield todo.pop(), pa.Table.from_batches(pieces)
            pieces = []
        if not todo:
            return
        at = end
