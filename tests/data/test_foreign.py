"""Tables in the reference's shape, both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from nlakit.core.contract import read_contract, table_sidecar
from nlakit.data.foreign import export_tables, import_tables
from nlakit.data.tables import MEAN_FILE, shape
from nlakit.errors import DataError
from nlakit.models.lora import read_tensors
from nlakit.parquet import matrix, read_table, vector_array, write_table
from nlakit.rundir import RunDir
from tests.conftest import D, build_contract

PARTS = ("av", "ar", "rl", "test")


@pytest.fixture
def run(toy_subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose tables are finished: two rows of one document a part."""
    contract = build_contract(toy_subject("llama"), role="table")
    contract.kind = "nla_dataset"
    folder = tmp_path / "run" / "05_tables"
    rng = np.random.default_rng(1)
    for part in PARTS:
        table = pa.table(
            {
                "row_id": [f"{part}:0", f"{part}:1"],
                "doc_id": [part, part],
                "api_explanation": [f"{part} one", f"{part} two {{x}}"],
                "detokenized_text_truncated": ["a", "ab"],
                "source_family": ["f", "f"],
                "token": ["a", "b"],
                "position": [7, 8],
                "n_raw_tokens": [8, 9],
                "activation_layer": [1, 1],
                "activation_vector": vector_array(rng.standard_normal((2, D))),
                "part": [part, part],
            }
        )
        write_table(folder / f"{part}.parquet", shape(table, part, contract))
        contract.write(table_sidecar(folder / f"{part}.parquet"))
    monkeypatch.setattr(RunDir, "need", lambda self, stage: folder)
    return tmp_path / "run"


def test_export_has_the_references_columns(run: Path, tmp_path: Path) -> None:
    export_tables(run, tmp_path / "out")
    av = read_table(tmp_path / "out" / "av_sft.parquet").to_pylist()
    assert av[0]["prompt"] == [{"role": "user", "content": "<concept><INJECT></concept>"}]
    assert av[0]["response"] == "<explanation>\nav one\n</explanation>"
    ar = read_table(tmp_path / "out" / "ar_sft.parquet").to_pylist()
    tail = "<text>ar one</text> <summary>"
    assert ar[0]["prompt"] == f"Summary of the following text: {tail}"
    assert (
        "response" not in ar[0]
        and "response" not in read_table(tmp_path / "out" / "rl.parquet").column_names
    )
    sidecar = yaml.safe_load(
        (tmp_path / "out" / "av_sft.parquet.nla_meta.yaml").read_text(encoding="utf-8")
    )
    assert sidecar["extraction"]["d_model"] == D and sidecar["kind"] == "nla_dataset"
    assert sidecar["prompt_templates"]["actor"] == "<concept>{injection_char}</concept>"
    assert "injection_scale" not in sidecar["extraction"]


@pytest.mark.parametrize("bare", [False, True])
def test_round_trip(run: Path, tmp_path: Path, bare: bool) -> None:
    """Texts and vectors come back; `bare` has nothing but the reference's own columns and keys."""
    out = tmp_path / "out"
    export_tables(run, out)
    for file in out.glob("*.parquet") if bare else ():
        data = yaml.safe_load(table_sidecar(file).read_text(encoding="utf-8"))
        del data["nlakit"], data["d_model"]
        table_sidecar(file).write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        table = read_table(file)
        if "rl" not in file.name and "test" not in file.name:
            write_table(file, table.drop_columns(["api_explanation"]))
    import_tables(out, tmp_path / "back", None, "float32")
    for part in PARTS:
        was = read_table(run / "05_tables" / f"{part}.parquet")
        now = read_table(tmp_path / "back" / f"{part}.parquet")
        assert now["api_explanation"].to_pylist() == was["api_explanation"].to_pylist()
        assert np.array_equal(matrix(now), matrix(was))
        assert now["position"].to_pylist() == [7, 8]
        assert {"row_id", "doc_id", "source_family", "token"} <= set(now.column_names)
    contract = read_contract(table_sidecar(tmp_path / "back" / "av.parquet"))
    assert contract.av_prompt() == "<concept>㊗</concept>"
    assert contract.nlakit.av_open == "<explanation>\n"
    mean = read_tensors(tmp_path / "back" / MEAN_FILE)["mean_unit"].numpy()
    train = np.concatenate(
        [matrix(read_table(run / "05_tables" / f"{part}.parquet")) for part in PARTS[:3]]
    )
    u = train / np.linalg.norm(train, axis=1, keepdims=True)
    assert np.allclose(mean, u.mean(0), atol=1e-6)
    assert contract.nlakit.baseline == pytest.approx(np.square(u - u.mean(0)).sum(1).mean(), 1e-4)


def rows_without_text(table: pa.Table) -> pa.Table:
    return table.drop_columns(["api_explanation", "response"]).append_column(
        "response", pa.array(["no tags"] * table.num_rows)
    )


def other_document(table: pa.Table) -> pa.Table:
    return table.drop_columns(["doc_id"]).append_column("doc_id", pa.array(["ar", "ar"]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rows_without_text, "2 of 2 whose response"),
        (other_document, "a document lies in two tables.*ar in ar and av"),
        (lambda table: table.drop_columns(["doc_id"]), "no column doc_id"),
    ],
)
def test_bad_tables_are_refused(
    run: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    export_tables(run, tmp_path / "out")
    file = tmp_path / "out" / "av_sft.parquet"
    write_table(file, change(read_table(file)))
    with pytest.raises(DataError, match=says):
        import_tables(tmp_path / "out", tmp_path / "back", None, "float32")
