"""Chunks of Parquet files: every row once, whatever row groups the files have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlakit.errors import DataError
from nlakit.files.parquet import VECTOR, vector_array
from nlakit.files.shards import Chunk, chunks_of, read_chunks, rows_of


def numbered(path: Path, rows: int, group: int) -> Path:
    table = pa.table({"row": list(range(rows)), "name": [f"{path.stem} {i}" for i in range(rows)]})
    pq.write_table(table, path, row_group_size=group)
    return path


@pytest.mark.parametrize("group", [1, 3, 4, 7, 100])
@pytest.mark.parametrize("size", [1, 4, 5, 23, 40])
def test_chunks_are_the_rows_in_order(tmp_path: Path, group: int, size: int) -> None:
    file = numbered(tmp_path / "a.parquet", 23, group)
    chunks = chunks_of([file], size)
    assert [c.rows for c in chunks[:-1]] == [size] * (len(chunks) - 1)
    read = list(read_chunks(chunks))
    assert [chunk for chunk, _ in read] == chunks
    assert [table.num_rows for _, table in read] == [chunk.rows for chunk in chunks]
    assert [row for _, table in read for row in table["row"].to_pylist()] == list(range(23))


@pytest.mark.parametrize("group", [2, 6, 50])
def test_what_is_not_wanted_is_left_out(tmp_path: Path, group: int) -> None:
    chunks = chunks_of([numbered(tmp_path / "a.parquet", 20, group)], 4)
    read = [(c.index, t["row"].to_pylist()) for c, t in read_chunks([chunks[1], chunks[4]])]
    assert read == [(1, [4, 5, 6, 7]), (4, [16, 17, 18, 19])]


def test_no_chunk_holds_rows_of_two_files(tmp_path: Path) -> None:
    files = [numbered(tmp_path / f"{name}.parquet", rows, 4) for name, rows in (("a", 5), ("b", 3))]
    empty = numbered(tmp_path / "c.parquet", 0, 4)
    assert chunks_of([files[0], empty, files[1]], 4) == [
        Chunk(0, files[0], 0, 4), Chunk(1, files[0], 4, 1), Chunk(2, files[1], 0, 3)
    ]  # fmt: skip


def test_a_row_group_is_not_held_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pa.table({VECTOR: vector_array(rng.standard_normal((20_000, 256)))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20_000)
    whole = table.nbytes
    del table
    before, most = pa.total_allocated_bytes(), 0
    for _, rows in read_chunks(chunks_of([tmp_path / "a.parquet"], 500)):
        most = max(most, pa.total_allocated_bytes() - before)
        assert rows.num_rows == 500
    assert most < whole / 4


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    file = numbered(tmp_path / "a.parquet", 50, 10)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert rows_of(file) is None
    with pytest.raises(DataError, match=r"cannot read .*a\.parquet"):
        chunks_of([file], 10)
    file.write_bytes(whole)
    chunks = chunks_of([file], 10)
    file.write_bytes(b"\0" * 300 + whole[300:])
    with pytest.raises(DataError, match=r"cannot read .*a\.parquet"):
        list(read_chunks(chunks))
