"""A run over tables that came from elsewhere, and halves of every kind through the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nlakit.config.load import parse_config
from nlakit.data.foreign import export_tables, import_tables
from nlakit.errors import ContractError, DataError
from nlakit.files.parquet import read_table
from nlakit.models.nla import NLA
from nlakit.run import pipeline
from nlakit.run.folder import RunDir
from tests.conftest import toy_corpus, toy_settings

DATA = ("corpus", "activations", "split", "labels", "tables")


@pytest.fixture
def settings(toy_folder: Callable[[str], Path], tmp_path: Path) -> dict[str, Any]:
    return toy_settings(toy_folder("gemma3"), toy_corpus(tmp_path / "texts.jsonl", 120))


def imported(settings: dict[str, Any], tmp_path: Path) -> Path:
    """Tables as the reference has them: no test part, none for RL."""
    first = pipeline.run(parse_config(settings), tmp_path / "first", stages=DATA)
    export_tables(first.path, tmp_path / "theirs")
    for name in ("rl", "test"):
        (tmp_path / "theirs" / f"{name}.parquet").unlink()
    import_tables(tmp_path / "theirs", tmp_path / "ours", None, "float32")
    return tmp_path / "ours"


def test_a_run_over_imported_tables(settings: dict[str, Any], tmp_path: Path) -> None:
    source = imported(settings, tmp_path)
    config = parse_config(settings | {"tables": {"source": str(source)}})
    rundir = pipeline.run(config, tmp_path / "second")
    assert (rundir.path / "10_report" / "report.html").exists()
    assert not (rundir.path / "01_corpus").exists()
    folder = rundir.need("tables")
    docs = {p: set(read_table(folder / f"{p}.parquet")["doc_id"].to_pylist())
            for p in ("av", "ar", "rl", "test")}  # fmt: skip
    assert docs["rl"] and docs["test"]
    assert sum(map(len, docs.values())) == len(set.union(*docs.values()))
    assert [status.state for status in pipeline.status(config, rundir)] == ["done"] * 6
    assert NLA.load(rundir.path).explain("The whale rises near mark 12.")[0].fve is not None


def test_tables_of_another_layer_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    source = imported(settings, tmp_path)
    subject = settings["subject"] | {"layer": 2}
    config = parse_config(settings | {"subject": subject, "tables": {"source": str(source)}})
    with pytest.raises(ContractError, match=r"another subject.layer.*1 instead of 2"):
        pipeline.run(config, tmp_path / "second")
    (source / "av.parquet").unlink()
    config = parse_config(settings | {"tables": {"source": str(source)}})
    with pytest.raises(DataError, match="both halves"):
        pipeline.run(config, tmp_path / "third")


@pytest.mark.parametrize("kind", ["nf4", "nf4+float16", "full"])
def test_every_kind_of_half_through_the_pipeline(
    settings: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    """Four bits with 8-bit states, checkpointing and micro-batches; float16; all weights."""
    half: dict[str, Any] = {"lora": None}
    subject = settings["subject"]
    if kind != "full":
        dtype = kind.partition("+")[2] or "bfloat16"
        subject = subject | {"quantisation": "nf4", "dtype": dtype}
        half = {"optimizer": "adamw8bit", "gradient_checkpointing": True}
        half |= {"batch_rows": 1, "accumulation": 4}
    config = parse_config(
        settings
        | {"subject": subject}
        | {name: settings[name] | half for name in ("ar", "av")}
        | {"pair": settings["pair"] | {k: v for k, v in half.items() if k != "lora"}}
    )
    rundir = pipeline.run(config, tmp_path / "run")
    assert isinstance(rundir, RunDir)
    pair = NLA.load(rundir.path)
    assert pair.contract.nlakit.subject_precision == config.subject.precision
    assert pair.explain("The whale rises near mark 12.")[0].centred_cosine is not None
