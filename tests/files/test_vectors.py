"""Vectors that a command is given: what is no vector is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlakit.cli.tables import emit
from nlakit.errors import DataError
from nlakit.files.vectors import read_texts, read_vectors

ROWS = np.array([[1.0, 2.0], [3.0, 4.5]], np.float32)


def put_parquet(path: Path, column: Any) -> Path:
    pq.write_table(pa.table({"activation_vector": column, "n": pa.nulls(len(column))}), path)
    return path


def test_every_kind_of_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS.astype(np.float16))
    np.save(tmp_path / "one.npy", np.array([1, 2]))
    np.savez(tmp_path / "a.npz", ROWS)
    np.savez_compressed(tmp_path / "b.npz", activation_vector=ROWS, ids=np.arange(2))
    put_parquet(tmp_path / "a.parquet", pa.array(ROWS.tolist()))
    for name in ("a.npy", "a.npz", "b.npz", "a.parquet"):
        assert read_vectors(tmp_path / name).tolist() == ROWS.tolist()
    assert read_vectors(tmp_path / "one.npy").tolist() == [[1.0, 2.0]]
    np.savez(tmp_path / "c.npz", x=ROWS, y=ROWS)
    with pytest.raises(DataError, match="which array holds the vectors; found: x, y"):
        read_vectors(tmp_path / "c.npz")


def test_shards_of_two_writers(tmp_path: Path) -> None:
    """Only the vectors must agree."""
    put_parquet(tmp_path / "0.parquet", pa.array(ROWS.tolist(), pa.list_(pa.float32(), 2)))
    table = pa.table({"n": ["x", "y"], "activation_vector": pa.array(ROWS.tolist())})
    pq.write_table(table, tmp_path / "1.parquet")
    assert read_vectors(tmp_path).tolist() == [*ROWS.tolist(), *ROWS.tolist()]


def test_damaged_files_of_numpy(tmp_path: Path) -> None:
    for name, save in (("a.npy", np.save), ("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        save(tmp_path / name, np.random.default_rng(0).normal(size=(99, 4)))
        whole = (tmp_path / name).read_bytes()
        for broken in (whole[:-200], whole[:200]):
            (tmp_path / name).write_bytes(broken)
            with pytest.raises(DataError, match=f"{name} is damaged"):
                read_vectors(tmp_path / name)
    hole = bytearray(whole)
    hole[len(whole) // 2] ^= 255
    (tmp_path / "b.npz").write_bytes(hole)
    with pytest.raises(DataError, match=r"b\.npz is damaged"):
        read_vectors(tmp_path / "b.npz")
    for content in (b"", b"no array"):
        (tmp_path / "a.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npy is no \.npy file; found: it begins with"):
            read_vectors(tmp_path / "a.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match="holds Python objects"):
        read_vectors(tmp_path / "o.npy")
    with pytest.raises(DataError, match="cannot read .*none.npy.*No such file"):
        read_vectors(tmp_path / "none.npy")


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
def test_infinities_of_half_precision_have_their_own_line(tmp_path: Path, kind: Any) -> None:
    half = kind == pa.float16()
    with np.errstate(over="ignore"):
        large = np.array([[1.0, 2.0], [7e4, 1.0]]).astype(np.float16)
    np.save(tmp_path / "a.npy", large if half else large.astype(np.float32))
    column = pa.array(large.tolist(), pa.list_(kind))
    said = "half precision cut off to infinity" if half else "NaN, infinite or empty"
    for path in (tmp_path / "a.npy", put_parquet(tmp_path / "a.parquet", column)):
        with pytest.raises(DataError, match=f"{said}.*1 of 2 rows, first 1"):
            read_vectors(path)


def test_empty_numbers(tmp_path: Path) -> None:
    path = put_parquet(tmp_path / "a.parquet", pa.array([[1.0, None], [1.0, 2.0]]))
    with pytest.raises(DataError, match="empty numbers; found: 1 of 2 rows, first 0"):
        read_vectors(path)
    huge = pa.array([[1e300], [1.0]], pa.list_(pa.float64()))
    with pytest.raises(DataError, match="infinite.*first 0"):
        read_vectors(put_parquet(path, huge))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_no_rows(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(DataError, match=r"a\.parquet has no vectors; found: 0 rows"):
        read_vectors(put_parquet(tmp_path / "a.parquet", pa.array([], kind)))
    np.save(tmp_path / "a.npy", np.empty((0, 4), np.float32))
    with pytest.raises(DataError, match=r"holds no vectors.*shape \(0, 4\)"):
        read_vectors(tmp_path / "a.npy")


def test_strings_are_no_vectors(tmp_path: Path) -> None:
    for rows in ([["1", "2"]], [["x", "2"]]):
        with pytest.raises(DataError, match="holds no vectors; found: list<.*: string>"):
            read_vectors(put_parquet(tmp_path / "a.parquet", pa.array(rows)))
        np.save(tmp_path / "a.npy", np.array(rows))
        with pytest.raises(DataError, match="holds no vectors.*of <U1"):
            read_vectors(tmp_path / "a.npy")


def test_texts_end_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa\u2028b\u2029c\r\n\x0cd\x85e\rf\n\nlast".encode())
    assert read_texts(path) == ["a\u2028b\u2029c", "\x0cd\x85e\rf", "", "last"]
    path.write_bytes(b"a\n")
    assert read_texts(path) == ["a"]
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match="not UTF-8.*line 2"):
        read_texts(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_texts(tmp_path / "none.txt")


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.parquet"])
def test_what_save_wrote_is_read_back(tmp_path: Path, name: str) -> None:
    texts = ["a\u2028b", "", '"x"\n{}']
    records = [{"explanation": text, "fve": float("nan"), "token": None} for text in texts]
    emit(records, "table", tmp_path / name)
    assert read_texts(tmp_path / name) == texts


def test_records_without_a_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"explanation": "a"}\n{"text": "b", "n": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2 has no text in 'explanation'.*keys are text, n"):
        read_texts(path)
    path.write_text('{"explanation": 1}', encoding="utf-8")
    with pytest.raises(DataError, match="line 1 has no text in 'explanation'; found: int"):
        read_texts(path)
    with pytest.raises(DataError, match="texts are not read from .*a.csv"):
        read_texts(tmp_path / "a.csv")
