"""Training tables: a marker that no text holds, and rows dropped with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nlakit.config.load import parse_config
from nlakit.core.contract import read_contract, table_sidecar
from nlakit.core.prompts import encode
from nlakit.data.tables import PARTS
from nlakit.errors import DataError
from nlakit.files.parquet import read_table
from nlakit.run import pipeline
from nlakit.run.folder import RunDir
from tests.conftest import toy_settings, toy_tokenizer

DATA = ("corpus", "activations", "split", "labels", "tables")


@pytest.fixture
def two_markers(toy_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A toy whose tokenizer has ※ as a token beside ㊗."""
    model = shutil.copytree(toy_folder("gemma3"), tmp_path / "model")
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["※"])
    tokenizer.save_pretrained(model)
    return model


def marked(model: Path, corpus: Path) -> dict[str, Any]:
    """Settings without the tokens that the subject expects: a random toy expects any."""
    settings = toy_settings(model, corpus)
    settings["activations"]["expected_tokens"] = 0
    settings["labels"]["max_duplicate_share"] = 1.0  # the sentences are alike
    return settings


def congratulations(path: Path, every: int, count: int = 20) -> Path:
    """Documents; each `every`th has ㊗ in every sentence."""
    lines = []
    for index in range(count):
        mark = "㊗" if index % every == 0 else "to"
        words = [f"Joy {mark} the bride number {index * 31 + i} of all." for i in range(20)]
        lines.append(json.dumps({"text": " ".join(words), "kind": "x"}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tables(rundir: RunDir) -> pa.Table:
    folder = rundir.need("tables")
    return pa.concat_tables([read_table(folder / f"{part}.parquet") for part in PARTS])


def test_a_marker_that_no_document_holds_is_taken(two_markers: Path, tmp_path: Path) -> None:
    settings = marked(two_markers, congratulations(tmp_path / "c.jsonl", 1))
    rundir = pipeline.run(parse_config(settings), tmp_path / "run", stages=DATA)
    contract = read_contract(table_sidecar(rundir.need("tables") / "av.parquet"))
    assert contract.tokens.injection_char == "※"
    labels = tables(rundir)["api_explanation"].to_pylist()
    assert sum("㊗" in label for label in labels) > 5
    manifest = rundir.manifest("tables")
    assert manifest is not None
    assert (manifest.rows.kept, manifest.rows.dropped["marker_in_label"]) == (60, 0)


def test_rows_whose_label_holds_the_marker_that_is_set_are_dropped_and_counted(
    two_markers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = marked(two_markers, congratulations(tmp_path / "c.jsonl", 4))
    settings |= {"tables": {"marker": "㊗"}}
    rundir = pipeline.run(parse_config(settings), tmp_path / "run", stages=DATA)
    assert "stands in 15 of 60 texts" in capsys.readouterr().err
    labels = read_table(rundir.need("labels"))["api_explanation"].to_pylist()
    holding = sum("㊗" in label for label in labels)
    assert holding > 0
    manifest = rundir.manifest("tables")
    assert manifest is not None
    assert manifest.rows.dropped == {"no_label": 0, "marker_in_label": holding}
    assert manifest.rows.kept == 60 - holding
    made = tables(rundir)
    contract = read_contract(table_sidecar(rundir.need("tables") / "av.parquet"))
    marker, tokenizer = contract.tokens.injection_token_id, toy_tokenizer()
    for label in made["api_explanation"].to_pylist():
        assert marker not in encode(tokenizer, label, special=False)


def test_no_row_left_says_why(two_markers: Path, tmp_path: Path) -> None:
    settings = marked(two_markers, congratulations(tmp_path / "c.jsonl", 4))
    settings |= {"tables": {"marker": "o"}}  # a letter of every label
    settings["tables"]["av_template"] = "<x>{marker}</x> <text>"
    with pytest.raises(DataError, match="60 labels, 60 with the marker 'o'"):
        pipeline.run(parse_config(settings), tmp_path / "run", stages=DATA)
