"""Rows of a table that somebody else made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlakit.errors import DataError
from nlakit.files.rows import rows_of_file
from nlakit.studies.evaluation import read_data


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    rows = np.array([[1.0, 2.0], [np.inf, 1.0]], np.float16).tolist()
    pq.write_table(pa.table({"activation_vector": pa.array(rows, pa.list_(pa.float16()))}), path)
    with pytest.raises(DataError, match="half precision cut off to infinity.*1 of 2 rows, first 1"):
        rows_of_file(path)
    pq.write_table(pa.table({"activation_vector": pa.array(rows, pa.list_(pa.float64()))}), path)
    with pytest.raises(DataError, match="NaN, infinite or empty numbers.*first 1"):
        rows_of_file(path)


def test_a_table_of_no_rows_is_nothing_to_evaluate_on(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    empty = pa.array([], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"activation_vector": empty}), path)
    with pytest.raises(DataError, match=r"test\.parquet has no rows to evaluate on"):
        read_data(str(path))
