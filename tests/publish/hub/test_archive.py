"""The archive of a run: everything that says what happened, and no weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from nlakit.cli import card as cli_card
from nlakit.errors import ConfigError, DataError, RunError
from nlakit.files.parquet import VECTOR, read_table, vector_array, write_table
from nlakit.publish.card.verify import verify
from nlakit.publish.hub.archive import archive
from nlakit.run.folder import FOLDERS, Manifest, Rows
from tests.publish.evaluated import write_toy

CONFIG = "name: toy\nsubject:\n  model: /home/me/models/R&D/subject\n"


def toy_run(folder: Path) -> Path:
    """A run with tables, a trained pair and an evaluation; weights are a few bytes."""
    folder.mkdir()
    (folder / "run.json").write_text('{"format": 1}')
    (folder / "config.yaml").write_text(CONFIG)
    tables, pair = folder / FOLDERS["tables"], folder / FOLDERS["pair"]
    vectors = vector_array(np.ones((2, 4), dtype=np.float32))
    tables.mkdir()
    write_table(tables / "test.parquet", {"row_id": pa.array(["a", "b"]), VECTOR: vectors})
    (tables / "test.parquet.nla_meta.yaml").write_text("kind: nla_dataset\n")
    (pair / "av").mkdir(parents=True)
    (pair / "av" / "adapter_model.safetensors").write_bytes(b"weights")
    (pair / "av" / "nla_meta.yaml").write_text("kind: nla_model\n")
    (pair / "metrics.jsonl").write_text('{"step": 1}\n')
    for name in ("rl/start.json", "rl/best/content/av/weights.safetensors", "before_rl/av/x.json"):
        (pair / name).parent.mkdir(parents=True, exist_ok=True)
        (pair / name).write_text("{}")
    write_toy(folder / FOLDERS["eval"])
    report = folder / FOLDERS["report"]
    report.mkdir()
    (report / "report.html").write_text("<p>model: /home/me/models/R&amp;D/subject</p>")
    for stage in ("tables", "pair", "eval", "report"):
        manifest = Manifest(
            stage=stage, config_hash="", parents={}, files={}, rows=Rows(), seconds=0,
            device="cpu", versions={}, git_commit=None, finished="",
        )  # fmt: skip
        (folder / FOLDERS[stage] / "manifest.json").write_text(manifest.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("runs") / "toy")


def test_tables_metrics_and_results_but_no_weights(run: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    cli_card.register(app)
    out = tmp_path / "kept"
    said = CliRunner().invoke(app, ["archive", str(run), str(out)], catch_exceptions=False)
    assert said.exit_code == 0
    names = set(json.loads((out / "archive.json").read_text())["files"])
    assert {
        "config.yaml",
        "05_tables/manifest.json",
        "05_tables/test.parquet",
        "05_tables/test.parquet.nla_meta.yaml",
        "08_pair/metrics.jsonl",
        "08_pair/av/nla_meta.yaml",
        "08_pair/rl/start.json",
        "09_eval/values.parquet",
        "09_eval/texts.parquet",
        "10_report/report.html",
    } <= names
    assert not list(out.rglob("*.safetensors")) and not (out / "08_pair/before_rl").exists()
    assert read_table(out / "05_tables/test.parquet").column_names == ["row_id"]
    assert "not as in the run: 05_tables/test.parquet" in said.output
    assert verify(out).problem is None
    assert verify(out).findings > 10


def test_vectors_if_asked_for(run: Path, tmp_path: Path) -> None:
    archive(run, tmp_path / "kept", vectors=True)
    assert VECTOR in read_table(tmp_path / "kept/05_tables/test.parquet").column_names


def test_paths_of_this_machine_are_cut(run: Path, tmp_path: Path) -> None:
    record = archive(run, tmp_path / "kept")
    assert {"config.yaml", "10_report/report.html"} <= set(record["rewritten"])
    for name in ("config.yaml", "10_report/report.html"):
        text = (tmp_path / "kept" / name).read_text()
        assert "subject" in text
        assert "/home/me" not in text


def test_a_changed_archive_fails(run: Path, tmp_path: Path) -> None:
    archive(run, tmp_path / "kept")
    (tmp_path / "kept/08_pair/metrics.jsonl").write_text('{"step": 2}\n')
    assert "08_pair/metrics.jsonl has SHA-256" in (verify(tmp_path / "kept").problem or "")


def test_a_list_without_hashes_is_told(run: Path, tmp_path: Path) -> None:
    archive(run, tmp_path / "kept")
    (tmp_path / "kept" / "archive.json").write_text('{"files": {"a": {}}}')
    with pytest.raises(DataError, match="no files with their hashes"):
        verify(tmp_path / "kept")


def test_planted_key(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run")
    (run / FOLDERS["pair"] / "metrics.jsonl").write_text("hf_" + "a" * 34)
    with pytest.raises(DataError, match="seems to hold a key"):
        archive(run, tmp_path / "kept")
    assert not (tmp_path / "kept" / "archive.json").exists()


def test_where_it_cannot_go(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        archive(run, tmp_path)
    with pytest.raises(RunError, match="no run folder"):
        archive(tmp_path, tmp_path / "kept")
