"""The whole main line on a toy model: stages, skipping, refusing, using, the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from nlakit import NLA
from nlakit.cli.main import app
from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.core.contract import read_contract
from nlakit.errors import (
    ConfigError,
    ContractError,
    DataError,
    ModelError,
    NlakitError,
    RunError,
)
from nlakit.files.parquet import matrix, read_table
from nlakit.models import precision
from nlakit.run import pipeline
from nlakit.run.folder import FOLDERS, RunDir
from tests.conftest import D, toy_corpus, toy_settings


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path]
) -> tuple[Path, RunConfig]:
    """A finished toy run."""
    folder = tmp_path_factory.mktemp("runs")
    corpus = toy_corpus(folder / "corpus.jsonl")
    config = parse_config(toy_settings(toy_folder("gemma3"), corpus))
    pipeline.run(config, folder / "toy")
    return folder / "toy", config


def test_every_stage_left_its_manifest(finished: tuple[Path, RunConfig]) -> None:
    path, config = finished
    for status in pipeline.status(config, RunDir(path)):
        assert status.state == "done", status
        assert status.manifest is not None
        assert status.manifest.rows.kept > 0
    assert sorted(p.name for p in path.iterdir() if p.is_dir()) == sorted(FOLDERS.values())
    assert yaml.safe_load((path / "config.yaml").read_text()) == config.model_dump(mode="json")


@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_a_run_keeps_the_number_format_it_began_in(
    tmp_path: Path, toy_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    """What another machine would choose does not matter once a stage has run."""
    monkeypatch.setattr(precision, "_best", lambda device, quantised: begun)
    settings = toy_settings(toy_folder("gemma3"), toy_corpus(tmp_path / "corpus.jsonl"))
    settings["subject"] |= {"dtype": "auto"}
    config, path = parse_config(settings), tmp_path / "run"
    pipeline.run(config, path, stages=["corpus"])
    assert yaml.safe_load((path / "config.yaml").read_text())["subject"]["dtype"] == begun
    other = "bfloat16" if begun == "float32" else "float32"
    monkeypatch.setattr(precision, "_best", lambda device, quantised: other)
    pipeline.run(config, path, stages=["activations"])
    assert [item.state for item in pipeline.status(config, RunDir(path))[:2]] == ["done", "done"]
    assert yaml.safe_load((path / "config.yaml").read_text())["subject"]["dtype"] == begun


def test_second_run_skips_everything(finished: tuple[Path, RunConfig]) -> None:
    path, config = finished
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*.parquet")}
    pipeline.run(config, path)
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*.parquet")} == before


def test_tables_follow_the_references_schema(finished: tuple[Path, RunConfig]) -> None:
    path, _ = finished
    for part in ("av", "ar", "rl", "test"):
        file = path / "05_tables" / f"{part}.parquet"
        table = read_table(file)
        assert {
            "prompt", "response", "activation_vector", "n_raw_tokens", "activation_layer",
            "doc_id", "detokenized_text_truncated", "api_explanation", "labeler_model",
        } <= set(table.column_names)  # fmt: skip
        assert matrix(table).shape == (table.num_rows, D)
        contract = read_contract(file.with_name(f"{part}.parquet.nla_meta.yaml"))
        assert contract.kind == "nla_dataset"
        assert contract.layer == 1
        prompt = table["prompt"][0].as_py()
        text = table["api_explanation"][0].as_py()
        assert prompt == (contract.ar_prompt(text) if part == "ar" else contract.av_prompt())


def test_no_document_is_in_two_parts(finished: tuple[Path, RunConfig]) -> None:
    path, _ = finished
    parts = [
        set(read_table(path / "05_tables" / f"{part}.parquet")["doc_id"].to_pylist())
        for part in ("av", "ar", "rl", "test")
    ]
    assert sum(len(part) for part in parts) == len(set().union(*parts))


def test_results_have_their_floors_and_whole_texts(finished: tuple[Path, RunConfig]) -> None:
    path, _ = finished
    results = json.loads((path / "09_eval" / "results.json").read_text())
    assert set(results["floors"]) == {"mean", "empty", "gibberish", "unrelated", "other_row"}
    for name in ("real", "label", "same_document", "last_token", "last_10_tokens"):
        assert name in results["scores"]
    assert results["scores"]["mean"]["centred_cosine"]["mean"] == 0
    assert results["rows"]["attempted"] == 12
    assert results["verdict"]["word"] in ("collapsed", "content-blind", "weak")  # untrained
    table = read_table(path / "09_eval" / "scores.parquet")
    stored = json.loads((path / "09_eval" / "av_texts.json").read_text())["texts"]
    real = table.filter(np.array(table["condition"]) == "real")
    assert real["text"].to_pylist() == stored


def test_the_pair_is_usable(finished: tuple[Path, RunConfig]) -> None:
    path, _ = finished
    nla = NLA.load(path, device="cpu")
    text = "The whale rises near mark 7. The tax turns near the river."
    found = nla.explain(text, positions=[-1, 5])
    assert [item.position for item in found] == [len(text), 5]
    assert found[0].token == "."
    assert found[0].cosine is not None
    empty = nla.score([""], nla.activations(text, [-1])[2])[0]
    assert found[0].floor == pytest.approx(empty.centred_cosine, abs=1e-6)
    assert "<table>" in found._repr_html_()
    ids, places, vectors = nla.activations(text)
    assert len(ids) == len(places) == len(vectors)
    bare = nla.explain(vectors[[-1, 5]])
    assert [item.explanation for item in bare] == [item.explanation for item in found]
    assert [item.cosine for item in bare] == pytest.approx([item.cosine for item in found])
    assert nla.reconstruct(["a", "b"]).shape == (2, D)
    score = nla.score(["words"], vectors[:1])[0]
    assert score.mse == pytest.approx(2 * (1 - score.cosine))
    with pytest.raises(DataError, match="no such token position"):
        nla.explain(text, positions=[999])
    with pytest.raises(ContractError, match="7 instead of 32"):
        nla.explain(np.ones((1, 7)))
    with pytest.raises(DataError, match="2 texts, 1 vectors"):
        nla.score(["a", "b"], vectors[:1])


@pytest.mark.parametrize(("folder", "half"), [("07_av", "av"), ("06_ar", "ar")])
def test_each_half_alone(finished: tuple[Path, RunConfig], folder: str, half: str) -> None:
    nla = NLA.load(finished[0] / folder, device="cpu")
    vectors = np.random.default_rng(0).standard_normal((2, D)).astype(np.float32)
    if half == "av":
        assert nla.ar is None
        assert nla.explain(vectors)[0].cosine is None
        with pytest.raises(ContractError, match="no AR"):
            nla.reconstruct(["x"])
    else:
        assert nla.av is None
        assert nla.reconstruct(["x"]).shape == (1, D)
        with pytest.raises(ContractError, match="no AV"):
            nla.explain(vectors)


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such folder"):
        NLA.load(tmp_path / "nowhere")
    with pytest.raises(ContractError, match=r"no nla_meta\.yaml"):
        NLA.load(tmp_path)


def test_changed_settings_are_refused_and_redo_keeps_the_old(
    finished: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    import shutil

    path, config = finished
    copy = tmp_path / "toy"
    shutil.copytree(path, copy)
    changed = config.model_copy(update={"eval": config.eval.model_copy(update={"rows": 8})})
    before = (copy / "config.yaml").read_bytes()
    with pytest.raises(RunError, match=r"eval\.rows: 12 -> 8"):
        pipeline.run(changed, copy)
    assert (copy / "config.yaml").read_bytes() == before
    pipeline.run(changed, copy, redo=["eval"])
    results = json.loads((copy / "09_eval" / "results.json").read_text())
    assert results["rows"]["attempted"] == 8
    assert (copy / "09_eval.old-1" / "manifest.json").exists()
    assert (copy / "10_report.old-1").exists()
    assert not (copy / "07_av.old-1").exists()


def test_a_child_goes_on_from_its_parent(finished: tuple[Path, RunConfig], tmp_path: Path) -> None:
    path, config = finished
    start = {"ar": str(path / "06_ar"), "av": str(path / "07_av")}
    child = parse_config({**config.model_dump(mode="json"), "name": "child", "start": start})
    import shutil

    shutil.copytree(path, tmp_path / "child", ignore=shutil.ignore_patterns("0[6-9]_*", "10_*"))
    pipeline.run(child, tmp_path / "child", stages=["ar", "av"])
    losses = {
        name: [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").open()]
        for name, folder in (("parent", path / "07_av"), ("child", tmp_path / "child" / "07_av"))
    }
    assert losses["child"][0] < losses["parent"][0]
    parent = read_contract(tmp_path / "child" / "06_ar").nlakit.parent
    assert parent is not None
    assert parent.startswith("06_ar:")


def test_two_runs_in_one_folder(finished: tuple[Path, RunConfig]) -> None:
    path, config = finished
    with RunDir(path).lock(), pytest.raises(RunError, match="in use by another process"):
        pipeline.run(config, path)


def invoke(*words: Any) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


def test_command_line(finished: tuple[Path, RunConfig], tmp_path: Path) -> None:
    path, _ = finished
    done = invoke("run", path)
    assert done.exit_code == 0, done.output
    assert "verdict:" in done.output
    assert re.search(r"(?m)^ *floor *$\n *mean vector .*\n *empty text ", done.output)
    status = invoke("status", path)
    assert status.output.count("done") == len(FOLDERS)
    gate = invoke("eval", path, "--gate")
    assert gate.exit_code == 3
    out = invoke("explain", path, "The whale sings.", "-p", "-1", "-p", "2", "--format", "jsonl")
    records = [json.loads(line) for line in out.stdout.splitlines()]
    assert [record["position"] for record in records] == [16, 2]
    every = invoke("explain", path, "ab", "-p", "all", "--format", "jsonl").stdout
    assert [json.loads(line)["position"] for line in every.splitlines()] == [0, 1, 2]
    assert every == invoke("explain", path, "ab", "--all", "--format", "jsonl").stdout
    last = invoke("explain", path, "ab", "-p", "last", "-p", "0", "--format", "jsonl").stdout
    assert [json.loads(line)["position"] for line in last.splitlines()] == [2, 0]
    saved = tmp_path / "v.parquet"
    assert invoke("reconstruct", path, "a b", "c d", "--save", saved).exit_code == 0
    vectors = tmp_path / "v.npy"
    np.save(vectors, matrix(read_table(saved)))
    scored = invoke("score", path, "a b", "c d", "--vectors", vectors, "--format", "jsonl")
    first = json.loads(scored.stdout.splitlines()[0])
    assert first["cosine"] == pytest.approx(1.0, abs=1e-5)
    assert "floor" in first
    assert invoke("explain", path, "--vectors", saved).exit_code == 0


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (("run", "nowhere.yaml"), ConfigError, "there is no nowhere.yaml"),
        (("status", "nowhere"), ConfigError, "give a run folder, or a YAML configuration"),
        (("explain", "{run}", "x", "-p", "all", "-p", "1"), ConfigError, "found: all, 1"),
        (
            ("explain", "{run}", "x", "--ar-blocks", "99"),
            ModelError,
            "99 blocks of 4; do: set --ar",
        ),
        (("layers", "{run}", "--steps", "0"), ModelError, "is a run folder, not a model"),
        (("explain", "{run}", "a\udcffb"), DataError, "no valid Unicode"),
        (("explain", "{run}"), ConfigError, "give a text, --vectors"),
        (("explain", "{run}", "x", "-p", "99"), DataError, "no such token position"),
        (("explain", "{run}", "x", "--format", "xml"), ConfigError, "unknown --format"),
        (("explain", "{run}", "--vectors", "none.parquet"), DataError, "no Parquet file"),
        (("score", "{run}", "x", "--vectors", "none.npy"), DataError, "cannot read"),
        (("status", "{run}", "--set", "corpus.min_charactres=3"), ConfigError, "min_charactres"),
        (("run", "{run}", "--redo", "nothing"), ConfigError, "unknown stage"),
    ],
)
def test_mistakes_are_one_typed_error(
    finished: tuple[Path, RunConfig], words: tuple[str, ...], error: type, says: str
) -> None:
    result = invoke(*(word.replace("{run}", str(finished[0])) for word in words))
    assert isinstance(result.exception, error)
    assert says in str(result.exception)
    assert isinstance(result.exception, NlakitError)


def test_main_prints_one_line_and_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nlakit.cli import main as cli

    monkeypatch.setattr("sys.argv", ["nlakit", "run", "nowhere.yaml"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is no nowhere.yaml; found: working folder")
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1


def test_short_documents(tmp_path: Path, toy_folder: Callable[[str], Path]) -> None:
    corpus = tmp_path / "short.jsonl"
    corpus.write_text('{"text": "far too short"}\n', encoding="utf-8")
    settings = toy_settings(toy_folder("gemma3"), corpus)
    settings["corpus"]["min_characters"] = 5
    settings["corpus"]["sources"][0].pop("family_column")
    with pytest.raises(DataError, match="no document is long enough"):
        pipeline.run(parse_config(settings), tmp_path / "r", stages=["corpus", "activations"])


def test_planted_mode_15_half_done_stage_is_not_mixed(
    tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    """Chunks of one chunk size must not be reused under another."""
    corpus = toy_corpus(tmp_path / "c.jsonl", 20)
    settings = toy_settings(toy_folder("gemma3"), corpus)
    run = tmp_path / "r"
    pipeline.run(parse_config(settings), run, stages=["corpus", "activations"])
    (run / "02_activations" / "manifest.json").unlink()
    (run / "02_activations" / "part-00002.parquet").unlink()
    settings["activations"] = {**settings["activations"], "documents_per_chunk": 4}
    with pytest.raises(RunError, match=r"documents_per_chunk: 8 -> 4"):
        pipeline.run(parse_config(settings), run, stages=["activations"])


def test_resumed_chunks_are_bit_identical(
    tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    corpus = toy_corpus(tmp_path / "c.jsonl", 20)
    config = parse_config(toy_settings(toy_folder("gemma3"), corpus))
    run = tmp_path / "r"
    stages = ["corpus", "activations"]
    pipeline.run(config, run, stages=stages)
    folder = run / "02_activations"
    whole = RunDir(run).manifest("activations")
    (folder / "manifest.json").unlink()
    (folder / "part-00001.parquet").unlink()
    pipeline.run(config, run, stages=stages)
    again = RunDir(run).manifest("activations")
    assert whole is not None
    assert again is not None
    assert whole.files == again.files
    assert whole.identity() == again.identity()
