"""Damage: noticed by hash before it is read, mended where the same file can be made again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.data import activations
from nlakit.errors import RunError
from nlakit.files.parquet import read_table
from nlakit.run import pipeline
from nlakit.run.folder import MADE_AGAIN, Manifest, RunDir
from tests.conftest import toy_corpus, toy_settings

DATA = ["corpus", "activations", "split", "labels", "tables"]


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path]
) -> tuple[Path, RunConfig]:
    """A toy run up to its AR."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = toy_corpus(folder / "corpus.jsonl", 40)
    config = parse_config(toy_settings(toy_folder("gemma3"), corpus))
    pipeline.run(config, folder / "toy", stages=[*DATA, "ar"])
    return folder / "toy", config


@pytest.fixture
def run(made: tuple[Path, RunConfig], tmp_path: Path) -> tuple[Path, RunConfig]:
    """A copy to be damaged."""
    shutil.copytree(made[0], tmp_path / "toy")
    return tmp_path / "toy", made[1]


def zeroed(file: Path, count: int = 60) -> None:
    """Same size, other content."""
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + count] = bytes(min(count, len(data) - middle))
    file.write_bytes(data)


def contents(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file())
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def times(run: Path, stages: list[str]) -> dict[Path, int]:
    return {
        p: p.stat().st_mtime_ns for stage in stages for p in RunDir(run).folder(stage).iterdir()
    }


def state(config: RunConfig, run: Path, stage: str, verify: bool) -> tuple[str, list[str]]:
    found = {one.stage: one for one in pipeline.status(config, RunDir(run), verify)}
    return found[stage].state, found[stage].changes


def test_status_verify_names_a_file_of_the_same_size_and_exits_2(run: tuple[Path, RunConfig]):
    path, config = run
    zeroed(path / "04_labels" / "part-00000.parquet")
    assert state(config, path, "labels", verify=False)[0] == "done"
    line = "part-00000.parquet: its SHA-256 is not the recorded one"
    assert state(config, path, "labels", verify=True) == ("damaged", [line])
    for child in ("tables", "ar"):  # what was made from it when it was whole is no worse
        assert state(config, path, child, verify=True)[0] == "done"
    invoke = CliRunner(env={"COLUMNS": "200"}).invoke
    assert invoke(app, ["status", str(path)]).exit_code == 0
    shown = invoke(app, ["status", str(path), "--verify"])
    assert f"damaged labels: {line}" in shown.output
    assert isinstance(shown.exception, RunError)
    assert "stage labels is damaged: part-00000.parquet" in str(shown.exception)
    assert "`nlakit run` makes it again" in str(shown.exception)


@pytest.mark.parametrize("stage", DATA)
@pytest.mark.parametrize("damage", [zeroed, Path.unlink, lambda file: file.write_bytes(b"cut")])
def test_a_stage_that_reads_a_damaged_parent_stops_and_names_the_file(
    run: tuple[Path, RunConfig], stage: str, damage: Callable[[Path], Any]
):
    path, _ = run
    file = sorted(RunDir(path).folder(stage).glob("*.parquet"))[-1]
    damage(file)
    with pytest.raises(RunError, match=f"stage {stage} is damaged: {file.name}"):
        RunDir(path).need(stage)


def test_a_child_does_not_begin_on_a_damaged_parent(run: tuple[Path, RunConfig]):
    path, config = run
    RunDir(path).set_aside("ar")
    zeroed(path / "05_tables" / "ar.parquet")
    with pytest.raises(RunError, match=r"stage tables is damaged: ar\.parquet.*makes it again"):
        pipeline.run(config, path, stages=["ar"])
    assert not RunDir(path).folder("ar").exists()


@pytest.mark.parametrize("stage", DATA)
@pytest.mark.parametrize("damage", [zeroed, Path.unlink])
def test_what_is_damaged_is_made_again_and_what_is_whole_is_kept(
    run: tuple[Path, RunConfig], stage: str, damage: Callable[[Path], Any]
):
    path, config = run
    before = contents(path)
    file = sorted(RunDir(path).folder(stage).glob("*.parquet"))[-1]
    damage(file)
    whole = times(path, [*DATA, "ar"])
    whole.pop(file, None)
    pipeline.run(config, path, stages=[*DATA, "ar"])
    assert contents(path) == before
    after = times(path, [*DATA, "ar"])
    assert {p: t for p, t in after.items() if p != file} == whole


def test_every_file_of_a_stage_can_be_made_again(run: tuple[Path, RunConfig]):
    path, config = run
    before = contents(path)
    for stage in DATA:
        manifest = RunDir(path).record(stage)
        assert manifest is not None
        for name in manifest.files:
            (RunDir(path).folder(stage) / name).unlink()
        pipeline.run(config, path, stages=[*DATA, "ar"])
        assert contents(path) == before


def test_only_the_missing_chunk_is_read_again(
    run: tuple[Path, RunConfig], monkeypatch: pytest.MonkeyPatch
):
    path, config = run
    read: list[str] = []
    real = activations.read_chunk

    def watched(reader: Any, piece: pa.Table, config: RunConfig) -> pa.Table:
        read.extend(piece["doc_id"].to_pylist())
        return real(reader, piece, config)

    monkeypatch.setattr(activations, "read_chunk", watched)
    (path / "02_activations" / "part-00001.parquet").unlink()
    pipeline.run(config, path, stages=DATA)
    corpus = read_table(path / "01_corpus" / "corpus.parquet")["doc_id"].to_pylist()
    assert read == corpus[8:16]


def test_what_comes_out_otherwise_is_an_error_and_changes_nothing(
    run: tuple[Path, RunConfig], monkeypatch: pytest.MonkeyPatch
):
    path, config = run
    zeroed(path / "02_activations" / "part-00001.parquet")
    before, real = contents(path), activations.read_chunk
    monkeypatch.setattr(activations, "read_chunk", lambda *given: real(*given).slice(1))
    with pytest.raises(RunError, match=r"does not come out as it did: part-00001\.parquet"):
        pipeline.run(config, path, stages=DATA)
    assert contents(path) == before


def test_an_interrupted_repair_goes_on(
    run: tuple[Path, RunConfig], monkeypatch: pytest.MonkeyPatch
):
    path, config = run
    before, real = contents(path), activations.read_chunk
    for number in range(3):
        (path / "02_activations" / f"part-0000{number}.parquet").unlink()
    made: list[int] = []

    def stops(*given: Any) -> pa.Table:
        if len(made) == 2:
            made.clear()
            raise KeyboardInterrupt
        made.append(1)
        return real(*given)

    monkeypatch.setattr(activations, "read_chunk", stops)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, path, stages=DATA)
    pipeline.run(config, path, stages=DATA)
    assert len(made) == 1
    assert contents(path) == before


def test_a_training_is_not_repeated_unasked_and_nothing_is_set_aside_first(
    run: tuple[Path, RunConfig],
):
    path, config = run
    zeroed(path / "06_ar" / "adapter_model.safetensors")
    before = contents(path)
    assert "ar" not in MADE_AGAIN
    with pytest.raises(RunError, match=r"stage ar is damaged: adapter_model.*--redo ar"):
        pipeline.run(config, path, stages=[*DATA, "ar"], redo=["av"])
    assert contents(path) == before


def test_a_changed_setting_comes_before_a_repair(run: tuple[Path, RunConfig]):
    path, config = run
    (path / "02_activations" / "part-00001.parquet").unlink()
    other = config.model_copy(update={"seed": 1})
    with pytest.raises(RunError, match="seed: 0 -> 1"):
        pipeline.run(other, path, stages=DATA)


def test_a_manifest_of_an_earlier_nlakit_is_still_read(run: tuple[Path, RunConfig]):
    """It has the same fields: nothing that is checked now is missing in it."""
    path, config = run
    for stage in DATA:
        (RunDir(path).folder(stage) / ".inputs.json").unlink()
        fields = json.loads((RunDir(path).folder(stage) / "manifest.json").read_text())
        assert fields.keys() == Manifest.model_fields.keys()
        assert state(config, path, stage, verify=True)[0] == "done"


TOOL = """\
import hashlib, json, pathlib, sys
text = sys.stdin.buffer.read()
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write("asked\\n")
word = hashlib.sha256(text).hexdigest()[:8]
print(json.dumps({"features": [f"Something named {word} is spoken of at some length",
                               "A clause must follow and end what has begun"]}))
"""


def test_labels_that_were_paid_for_come_from_the_store_and_are_never_paid_again(
    tmp_path: Path, toy_folder: Callable[[str], Path]
):
    tool, asked, path = tmp_path / "tool.py", tmp_path / "asked.txt", tmp_path / "run"
    tool.write_text(TOOL)
    settings = toy_settings(toy_folder("gemma3"), toy_corpus(tmp_path / "c.jsonl", 6))
    settings["activations"] |= {"positions_per_document": 2}
    service = {"kind": "tool", "command": [sys.executable, str(tool), str(asked)]}
    settings["labels"] = {"labeler": "services", "services": [service], "rows_per_chunk": 4}
    config, stages = parse_config(settings), ["corpus", "activations", "labels"]
    pipeline.run(config, path, stages=stages)
    before, count = contents(path), len(asked.read_text().splitlines())
    assert count == 12
    (path / "04_labels" / "part-00001.parquet").unlink()
    pipeline.run(config, path, stages=stages)
    assert contents(path) == before
    assert len(asked.read_text().splitlines()) == count
    (path / "04_labels" / "part-00001.parquet").unlink()
    (tmp_path / "answers.sqlite").unlink()
    with pytest.raises(RunError, match=r"cannot be made again without paying.*--redo labels"):
        pipeline.run(config, path, stages=stages)
    assert len(asked.read_text().splitlines()) == count
