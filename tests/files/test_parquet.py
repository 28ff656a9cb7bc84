"""Tables of several writers, and vectors in every type that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlakit.errors import DataError
from nlakit.files.parquet import matrix, read_table

ROWS = [[1.0, 2.0], [3.0, 4.5]]
LIST, FIXED = pa.list_(pa.float32()), pa.list_(pa.float64(), 2)


def put(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def tensors(shape: tuple[int, ...]) -> pa.Array:
    flat = np.arange(2 * np.prod(shape), dtype=np.float32)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(flat.reshape(2, *shape))


VECTORS = {
    "list": pa.array(ROWS, LIST),
    "large list": pa.array(ROWS, pa.large_list(pa.float64())),
    "fixed list": pa.array(ROWS, FIXED),
    "list view": pa.array(ROWS, pa.list_view(pa.float32())),
    "half precision": pa.array(np.array(ROWS, np.float16).tolist(), pa.list_(pa.float16())),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [2]), pa.array(ROWS, pa.list_(pa.float32(), 2))
    ),
    "tensor of one row": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [1, 2]), pa.array(ROWS, pa.list_(pa.float32(), 2))
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_every_type(tmp_path: Path, name: str) -> None:
    table = read_table(put(tmp_path / "a.parquet", activation_vector=VECTORS[name]))
    assert matrix(table).tolist() == ROWS
    assert matrix(table).dtype == np.float32
    assert matrix(table.slice(1)).tolist() == ROWS[1:]
    assert matrix(pa.concat_tables([table.slice(1), table])).tolist() == [ROWS[1], *ROWS]


@pytest.mark.parametrize("first", VECTORS)
def test_shards_of_two_writers_are_one_table(tmp_path: Path, first: str) -> None:
    put(
        tmp_path / "0.parquet",
        note=pa.nulls(2),
        activation_vector=VECTORS[first],
        doc_id=pa.array(["a", "b"], pa.string()),
        place=pa.array([1, 2], pa.int32()),
    )
    for number, (name, vectors) in enumerate(VECTORS.items(), 1):
        put(
            tmp_path / f"{number}.parquet",
            doc_id=pa.array([f"{name} c", "d"], pa.large_string()).dictionary_encode()
            if number % 2
            else pa.array([f"{name} c", "d"], pa.large_string()),
            place=pa.array([3, 4], pa.int64()),
            index=pa.array([0, 1]),
            activation_vector=vectors,
            note=pa.array(["x", None], pa.string_view() if number % 3 else pa.string()),
        )
    put(tmp_path / "._0.parquet", other=[1])
    table = read_table(tmp_path)
    assert matrix(table).tolist() == ROWS * (1 + len(VECTORS))
    assert table["doc_id"].to_pylist()[:4] == ["a", "b", "list c", "d"]
    assert table["note"].to_pylist()[:4] == [None, None, "x", None]
    assert table["place"].to_pylist()[:4] == [1, 2, 3, 4]
    assert table["index"].to_pylist()[:4] == [None, None, 0, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array(["1"]), pa.array([1])),
        (pa.array([b"a"]), pa.array(["a"])),
        (VECTORS["list"], pa.array([[["a"]]])),
        (VECTORS["list"], pa.array([1.0])),
        (tensors((2, 2)), VECTORS["list"]),
    ],
)
def test_columns_of_other_meaning_are_named(tmp_path: Path, one: Any, other: Any) -> None:
    put(tmp_path / "0.parquet", k=one, same=pa.array([1] * len(one)))
    put(tmp_path / "1.parquet", k=other, same=pa.array([2.5] * len(other)))
    with pytest.raises(DataError, match="differ in their column 'k'") as found:
        read_table(tmp_path)
    said = str(found.value)
    kinds = [pq.read_schema(tmp_path / f"{n}.parquet").field("k").type for n in (0, 1)]
    assert f"{kinds[0]} in {tmp_path / '0.parquet'}, {kinds[1]} in" in said
    assert "truncated" not in said
    assert read_table(tmp_path, ["same"]).num_rows == len(one) + len(other)


def test_a_column_that_was_asked_for_is_in_every_file(tmp_path: Path) -> None:
    put(tmp_path / "0.parquet", a=[1])
    put(tmp_path / "1.parquet", b=[1])
    with pytest.raises(DataError, match=r"1\.parquet has no column a; found: b"):
        read_table(tmp_path, ["a"])
    (tmp_path / "1.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot read .*1\.parquet.*truncated or no Parquet"):
        read_table(tmp_path, ["a"])


def test_folders_with_an_equals_sign_add_no_column(tmp_path: Path) -> None:
    (tmp_path / "lang=en").mkdir()
    path = put(tmp_path / "lang=en" / "a.parquet", a=[1])
    assert read_table(path).column_names == ["a"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["1", "2"], ["3", "4"]]),
        pa.array([["1", "x"], ["3", "4"]]),
        pa.array([[True], [False]]),
        pa.array([[None], [None]]),
        pa.array([[[1.0]], [[2.0]]]),
        pa.array(["1", "2"]),
        pa.array([1.0, 2.0]),
        tensors((2, 2)),
    ],
)
def test_what_is_no_list_of_numbers_is_no_vector(column: pa.Array) -> None:
    with pytest.raises(DataError, match="activation_vector holds no vectors; found: ") as found:
        matrix(pa.table({"activation_vector": column}))
    assert str(column.type) in str(found.value)


def test_no_rows() -> None:
    """A type that says how wide its vectors are has them without rows; a list does not."""
    assert matrix(pa.table({"activation_vector": pa.array([], FIXED)})).shape == (0, 2)
    table = pa.table({"activation_vector": pa.chunked_array([], FIXED)})
    assert matrix(table).shape == (0, 2)
    with pytest.raises(DataError, match="activation_vector has no rows, and so no vectors"):
        matrix(pa.table({"activation_vector": pa.array([], LIST)}))


def test_rows_without_a_vector_or_of_another_width() -> None:
    with pytest.raises(DataError, match="has empty rows; found: 1 rows"):
        matrix(pa.table({"activation_vector": pa.array([[1.0], None], LIST)}))
    with pytest.raises(DataError, match="rows of different width; found: 1 to 3"):
        matrix(pa.table({"activation_vector": pa.array([[1.0], [1.0, 2.0, 3.0]], LIST)}))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table({"activation_vector": VECTORS["list"]})
    file = tmp_path / "t.parquet"
    pq.write_table(table.append_column("activation_vector", table[0]), file)
    for columns in (None, ["activation_vector"]):
        with pytest.raises(DataError, match="several columns activation_vector; do: rename all"):
            read_table(file, columns)
