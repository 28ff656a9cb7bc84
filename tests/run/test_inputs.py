"""Files from outside the run folder: an edited one makes the stages that read it stale, by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.data.labels.label import files_read as label_reads
from nlakit.data.tables import files_read as table_reads
from nlakit.errors import DataError, RunError
from nlakit.files.parquet import read_table
from nlakit.run import inputs, pipeline
from nlakit.run.folder import RunDir
from nlakit.run.inputs import changed_inputs, half_files, model_files, write_inputs
from nlakit.studies.evaluation import files_read as eval_reads
from nlakit.train import ar, av
from tests.conftest import toy_corpus, toy_settings


def corpus_config(*paths: Path) -> RunConfig:
    section = {"sources": [{"path": str(path)} for path in paths], "min_characters": 5}
    return parse_config({"name": "t", "corpus": section})


def states(config: RunConfig, run: Path) -> dict[str, tuple[str, list[str]]]:
    return {one.stage: (one.state, one.changes) for one in pipeline.status(config, RunDir(run))}


def lines(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_an_edited_source_is_noticed_and_named(tmp_path: Path) -> None:
    """Same size, and even the same time: small files are hashed whenever they are looked at."""
    source = lines(tmp_path / "a.jsonl", "a whale sings", "a tax turns")
    config, run = corpus_config(source), tmp_path / "run"
    pipeline.run(config, run, stages=["corpus"])
    assert states(config, run)["corpus"] == ("done", [])
    before = source.stat()
    lines(source, "a whale sinks", "a tax turns")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert source.stat().st_size == before.st_size
    assert states(config, run)["corpus"] == ("stale", [f"{source} was changed after it was read"])
    with pytest.raises(RunError, match=r"a\.jsonl was changed after it was read.*--redo corpus"):
        pipeline.run(config, run, stages=["corpus"])
    pipeline.run(config, run, stages=["corpus"], redo=["corpus"])
    assert states(config, run)["corpus"] == ("done", [])


def test_a_folder_names_what_is_new_gone_or_changed(tmp_path: Path) -> None:
    folder, run = tmp_path / "docs", tmp_path / "run"
    for name in "abc":
        lines(folder / f"{name}.jsonl", f"the text of {name}")
    config = corpus_config(folder)
    pipeline.run(config, run, stages=["corpus"])
    (folder / "README.txt").write_text("no document")  # not read, so it does not matter
    assert states(config, run)["corpus"] == ("done", [])
    (folder / "a.jsonl").unlink()
    lines(folder / "b.jsonl", "another text")
    lines(folder / "sub" / "d.jsonl", "one more text")
    found = states(config, run)["corpus"][1]
    assert sorted(found) == [
        f"{folder / 'a.jsonl'} is gone",
        f"{folder / 'b.jsonl'} was changed after it was read",
        f"{folder / 'sub' / 'd.jsonl'} is new",
    ]


def test_what_was_only_touched_or_is_not_here_leaves_all_fresh(tmp_path: Path) -> None:
    source, run = lines(tmp_path / "a.jsonl", "a whale sings"), tmp_path / "run"
    config = corpus_config(source)
    pipeline.run(config, run, stages=["corpus"])
    os.utime(source, (1, 1))
    assert states(config, run)["corpus"] == ("done", [])
    source.unlink()  # a run folder goes on, on a machine without the source
    assert states(config, run)["corpus"] == ("done", [])


def test_a_run_folder_without_a_record_is_still_read(tmp_path: Path) -> None:
    source, run = lines(tmp_path / "a.jsonl", "a whale sings"), tmp_path / "run"
    config = corpus_config(source)
    pipeline.run(config, run, stages=["corpus"])
    (run / "01_corpus" / inputs.FILE).unlink()
    lines(source, "something else")
    assert states(config, run)["corpus"] == ("done", [])


def test_a_large_file_is_hashed_again_only_if_size_or_time_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "LARGE", 8)
    file, folder = tmp_path / "large.bin", tmp_path / "stage"
    file.write_bytes(b"0123456789")
    write_inputs(folder, {"x": [file]})
    asked: list[Path] = []
    monkeypatch.setattr(inputs, "sha256_once", lambda path: asked.append(path) or "none")
    assert changed_inputs(folder, {"x": [file]}) == [] and not asked
    os.utime(file, (5, 5))
    assert changed_inputs(folder, {"x": [file]}) == [f"{file} was changed after it was read"]
    assert asked == [file]


def test_the_record_is_no_part_of_the_result(tmp_path: Path) -> None:
    source, run = lines(tmp_path / "a.jsonl", "a whale sings"), tmp_path / "run"
    pipeline.run(corpus_config(source), run, stages=["corpus"])
    manifest = RunDir(run).manifest("corpus")
    assert manifest is not None and inputs.FILE not in manifest.files


def test_a_source_that_was_mended_needs_no_redo(tmp_path: Path) -> None:
    """A stage that failed before it made anything begins anew."""
    source, run = tmp_path / "a.jsonl", tmp_path / "run"
    source.write_text("{broken\n")
    with pytest.raises(DataError):
        pipeline.run(corpus_config(source), run, stages=["corpus"])
    lines(source, "a whale sings")
    pipeline.run(corpus_config(source), run, stages=["corpus"])
    assert states(corpus_config(source), run)["corpus"] == ("done", [])


def test_label_files_and_prompts_are_read_from_outside(tmp_path: Path) -> None:
    labels = lines(tmp_path / "labels" / "a.jsonl", "x")
    section = {"labeler": "file", "file": {"path": str(labels.parent)}}
    assert dict(label_reads(parse_config({"name": "t", "labels": section}))) == {
        str(labels.parent): [labels]
    }
    prompt = tmp_path / "labeler.md"
    prompt.write_text("{text}")
    service = {"kind": "tool", "command": ["x"]}
    section = {"labeler": "services", "services": [service], "prompts": {"labeler": str(prompt)}}
    config = parse_config({"name": "t", "labels": section})
    assert dict(label_reads(config)) == {str(prompt): [prompt]}
    offline = parse_config({"name": "t", "labels": section | {"labeler": "offline"}})
    assert dict(label_reads(offline)) == {}


def test_models_halves_and_imported_tables_are_read_from_outside(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "nla_meta.yaml", "av.parquet", "notes.md"):
        (tmp_path / name).write_text("x")
    here = str(tmp_path)

    def names(reads: inputs.Reads) -> set[str]:
        return {file.name for file in reads[here]}

    assert names(model_files(here)) == {"config.json", "model.safetensors"}
    assert names(half_files(here)) == {"model.safetensors", "nla_meta.yaml"}
    (tmp_path / "m.gguf").write_text("x")
    assert names(model_files(here)) == {"config.json", "model.safetensors", "m.gguf"}
    assert list(model_files(f"{here}/m.gguf").values()) == [[tmp_path / "m.gguf"]]
    assert not model_files("org/model") and not half_files(None) and not model_files(None)
    given = {"tables": {"source": here}, "start": {"ar": here, "av": here}}
    config = parse_config({"name": "t", "eval": {"embedding": here}, **given})
    assert names(table_reads(config)) == {"av.parquet", "nla_meta.yaml"}
    assert names(ar.run.outside(config)) == names(av.run.outside(config)) == names(half_files(here))
    assert names(eval_reads(config)) == names(model_files(here))


def test_an_edited_label_file_and_an_edited_model_make_their_stages_stale(
    tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(toy_folder("gemma3"), model)
    settings = toy_settings(model, toy_corpus(tmp_path / "c.jsonl", 20))
    run, stages = tmp_path / "run", ["corpus", "activations", "split", "labels"]
    pipeline.run(parse_config(settings), run, stages=stages[:2])
    ids = read_table(run / "02_activations", ["row_id"])["row_id"].to_pylist()
    labels = tmp_path / "labels.jsonl"
    made = [
        {"row_id": row, "api_explanation": f"It is about number {n} of many things."}
        for n, row in enumerate(ids)
    ]
    labels.write_text("".join(json.dumps(one) + "\n" for one in made))
    settings["labels"] |= {"labeler": "file", "file": {"path": str(labels)}}
    config = parse_config(settings)
    pipeline.run(config, run, stages=stages)
    assert {states(config, run)[stage][0] for stage in stages} == {"done"}
    labels.write_text(labels.read_text().replace("many", "some"))
    changed = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(changed | {"note": "edited"}))
    found = states(config, run)
    assert found["labels"] == ("stale", [f"{labels} was changed after it was read"])
    name = f"{model / 'config.json'} was changed after it was read"
    assert found["activations"] == ("stale", [name])
    assert found["corpus"][0] == found["split"][0] == "done"
    assert yaml.safe_load((run / "config.yaml").read_text()) == config.model_dump(mode="json")


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf[]", b"{}x", b'[{"path": "a"}]', b"[3]"])
def test_a_damaged_record_makes_its_stage_stale(tmp_path: Path, data: bytes) -> None:
    source = lines(tmp_path / "a.jsonl", "a whale sings", "a tax turns")
    config, run = corpus_config(source), tmp_path / "run"
    pipeline.run(config, run, stages=["corpus"])
    (run / "01_corpus" / inputs.FILE).write_bytes(data)
    state, changes = states(config, run)["corpus"]
    assert state == "stale" and "what was read is not known" in changes[0]
    with pytest.raises(RunError, match=r"is damaged.*--redo corpus"):
        pipeline.run(config, run, stages=["corpus"])
