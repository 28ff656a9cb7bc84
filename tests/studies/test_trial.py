"""Which rows a trial draws, what it says of planted labels, and when it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.data.labels.export import export_labels
from nlakit.data.split import read_split
from nlakit.errors import ConfigError, DataError, RunError
from nlakit.files.parquet import read_table, vector_array
from nlakit.run import pipeline
from nlakit.run.folder import RunDir
from nlakit.studies.trial import compare, hold_out, judge, table_of, trial_settings
from nlakit.studies.try_labels import pick_rows
from tests.conftest import D, toy_corpus, toy_settings

THINGS = ("aaaa", "kkkk", "uuuu", "zzzz")


def build_config(model: Path, corpus: Path, **ar: Any) -> RunConfig:
    settings = toy_settings(model, corpus)
    settings["ar"] = {**settings["ar"], "batch_rows": 16, "measure_rows": 8, **ar}
    return parse_config(settings)


def build_rows(documents: int = 48, per_document: int = 3) -> tuple[pa.Table, list[int]]:
    """Rows whose vectors lie near one of four directions, and which one."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((len(THINGS), D))
    kinds = rng.integers(len(THINGS), size=documents * per_document).tolist()
    vectors = 1.0 + centres[kinds] + 0.3 * rng.standard_normal((len(kinds), D))
    docs = [f"d{row // per_document}" for row in range(len(kinds))]
    columns = {
        "row_id": [f"{doc}:{row}" for row, doc in enumerate(docs)],
        "doc_id": docs,
        "source_family": ["toy"] * len(kinds),
        "position": list(range(len(kinds))),
        "token": ["x"] * len(kinds),
        "detokenized_text_truncated": ["the words of the source"] * len(kinds),
    }
    made = {name: pa.array(values) for name, values in columns.items()}
    return pa.table({**made, "activation_vector": vector_array(20 * vectors)}), kinds


def named(table: pa.Table, kinds: list[int]) -> dict[str, str | None]:
    """Labels that say which direction the row's vector has."""
    rows = table["row_id"].to_pylist()
    return {row: f"about {THINGS[kind]}" for row, kind in zip(rows, kinds, strict=True)}


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path]
) -> tuple[RunConfig, Path]:
    """A toy run with activations and no split."""
    folder = tmp_path_factory.mktemp("runs")
    config = build_config(toy_folder("gemma3"), toy_corpus(folder / "corpus.jsonl"))
    pipeline.run(config, folder / "toy", stages=["corpus", "activations"])
    return config, folder / "toy"


def test_rows_are_spread_over_documents_and_never_of_test(started: tuple[RunConfig, Path]) -> None:
    config, path = started
    rundir = RunDir(path)
    whole = read_table(rundir.need("activations"))
    documents = len(set(whole["doc_id"].to_pylist()))
    before = pick_rows(rundir, documents + 5, 7)
    assert before.column_names == whole.column_names
    assert sorted(Counter(before["doc_id"].to_pylist()).values())[-6:] == [1, 2, 2, 2, 2, 2]
    assert before.equals(pick_rows(rundir, documents + 5, 7))
    assert not before.equals(pick_rows(rundir, documents + 5, 8))
    few, more = (set(pick_rows(rundir, n, 7)["row_id"].to_pylist()) for n in (10, 20))
    assert len(few) == 10 and few < more
    assert pick_rows(rundir, 10**6, 7).equals(whole)

    pipeline.run(config, path, stages=["split"])
    split = read_split(rundir.need("split"))
    part_of = dict(zip(split["doc_id"].to_pylist(), split["part"].to_pylist(), strict=True))
    everything = pick_rows(rundir, 10**6, 7)
    parts = {part_of[doc] for doc in everything["doc_id"].to_pylist()}
    assert parts == {"av", "ar", "rl"}
    assert "test" in part_of.values()


def test_rows_need_finished_activations(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="activations is not finished"):
        pick_rows(RunDir(tmp_path), 5, 0)


def test_labels_that_name_the_content_teach_more(
    tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    table, kinds = build_rows()
    good = named(table, kinds)
    rows = list(good)
    shuffled = dict(
        zip(rows, np.random.default_rng(1).permutation(list(good.values())), strict=True)
    )
    bad: dict[str, str | None] = {row: str(text) for row, text in shuffled.items()}
    good[rows[0]], bad[rows[5]], bad[rows[10]] = None, " ", None
    config = build_config(toy_folder("gemma3"), tmp_path / "no.jsonl", contrastive_weight=0.5)
    report = compare(config, table, {"paid:a/b": good, "offline": bad}, tmp_path / "t", steps=60)
    assert report.word == "more"
    assert report.verdict.startswith(
        "paid:a/b's labels teach more than offline's: centred cosine +"
    )
    assert report.difference["centred_cosine"]["low"] > 0.1
    assert report.difference["fve"]["low"] > 0
    assert report.gains["paid:a/b"]["centred_cosine"]["low"] > 0.1
    assert report.gains["offline"]["centred_cosine"]["low"] < 0.1
    assert report.rows["attempted"] == 144 and report.rows["used"] == 141
    assert report.labels["paid:a/b"] == {"labelled": 143, "mean_words": 2, "mean_copied_run": 0}
    assert report.labels["offline"]["labelled"] == 142
    assert report.documents == {"training": 36, "held_out": 12}
    assert json.loads((tmp_path / "t" / "trial.json").read_text()) == report.as_dict()
    losses = (tmp_path / "t" / "paid-a-b" / "metrics.jsonl").read_text().splitlines()
    assert len(losses) == 60
    console = Console(width=200, record=True)
    console.print(table_of(report))
    shown = " ".join(console.export_text().split())
    assert report.verdict in shown and "141 of 144 rows have both labels" in shown


def test_equal_labels_differ_by_nothing(tmp_path: Path, toy_folder: Callable[[str], Path]) -> None:
    table, kinds = build_rows()
    same = named(table, kinds)
    config = build_config(toy_folder("gemma3"), tmp_path / "no.jsonl")
    report = compare(config, table, {"one": same, "two": dict(same)}, tmp_path, steps=20)
    for measure in ("centred_cosine", "fve"):
        found = report.difference[measure]
        assert (found["mean"], found["low"], found["high"]) == (0, 0, 0)
    assert report.scores["one"] == report.scores["two"]
    assert report.word in ("no difference", "nothing")


def test_too_little_to_compare(tmp_path: Path, toy_folder: Callable[[str], Path]) -> None:
    table, kinds = build_rows(documents=23, per_document=1)
    full = named(table, kinds)
    config = build_config(toy_folder("gemma3"), tmp_path / "no.jsonl", batch_rows=19)
    with pytest.raises(DataError, match="two labelers; found: one;"):
        compare(config, table, {"one": full}, tmp_path)
    with pytest.raises(DataError, match="both labelled 0 rows of 0 documents"):
        compare(config, table, {"one": full, "two": {}}, tmp_path)
    with pytest.raises(DataError, match="26 that both label, of 24 documents, are the least"):
        compare(config, table, {"one": full, "two": full}, tmp_path)
    assert not (tmp_path / "trial.json").exists()


def test_labels_of_a_file_are_tried_from_the_command_line(
    tmp_path: Path, toy_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = toy_corpus(tmp_path / "corpus.jsonl")
    config = build_config(toy_folder("gemma3"), corpus)
    pipeline.run(config, tmp_path / "toy", stages=["corpus", "activations", "split", "labels"])
    assert export_labels(RunDir(tmp_path / "toy"), tmp_path / "shared" / "labels.parquet") == 180
    file = {"path": str(tmp_path / "shared" / "labels.parquet")}
    settings = config.model_dump(mode="json")
    settings["labels"] = {"labeler": "file", "file": file}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(settings))
    found = CliRunner().invoke(
        app, ["label", str(tmp_path / "file.yaml"), "--out", str(tmp_path / "toy"), "--try", "90"]
    )
    assert found.exit_code == 0, found.output
    said = " ".join(found.output.split())
    assert "90 rows, 90 labelled" in said
    assert "all 180 rows at this cost a row: about $0.00" in said
    assert "no difference" in said or "nor" in said  # they are the offline labels
    report = json.loads((tmp_path / "toy" / "trial" / "trial.json").read_text())
    assert report["labelers"] == ["file", "offline-4"]
    assert report["difference"]["fve"]["mean"] == 0
    chosen = ["--set", "labels.labeler=offline"]
    offline = CliRunner().invoke(app, ["labels", str(tmp_path / "toy"), "--try", "9", *chosen])
    assert isinstance(offline.exception, ConfigError)


def test_no_document_is_on_both_sides(toy_folder: Callable[[str], Path], tmp_path: Path) -> None:
    config = build_config(toy_folder("gemma3"), tmp_path / "no.jsonl")
    docs = build_rows()[0]["doc_id"].to_pylist()
    train, held_out = hold_out(docs, config)
    assert sorted(train + held_out) == list(range(len(docs)))
    assert not {docs[row] for row in train} & {docs[row] for row in held_out}
    reordered, chosen = hold_out(docs[::-1], config)
    assert {docs[::-1][row] for row in chosen} == {docs[row] for row in held_out}
    other = config.model_copy(update={"seed": 1})
    assert hold_out(docs, other)[1] != held_out
    assert len(reordered) == len(train)


def test_settings_of_a_trial(toy_folder: Callable[[str], Path], tmp_path: Path) -> None:
    phases = [{"steps": 500, "lr": 0.02, "warmup": 30}, {"steps": 9, "lr": 0.5}]
    config = build_config(toy_folder("gemma3"), tmp_path / "no.jsonl", phases=phases).ar
    made = trial_settings(config, 80)
    assert made.steps == 80 and len(made.phases) == 1
    assert made.phases[0].warmup is None and made.phases[0].lr == 0.02
    assert made.checkpoint_every == 80 and made.lora == config.lora


def span(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "rows": 60, "documents": 30}


@pytest.mark.parametrize(
    ("difference", "low", "word", "text"),
    [
        (span(0.08, 0.03, 0.13), 0.2, "more", "a's labels teach more than b's: centred cosine "
         "+0.080 [0.030, 0.130] on 60 held-out rows of 30 documents"),
        (span(-0.08, -0.13, -0.03), 0.2, "less", "a's labels teach less than b's"),
        (span(0.08, -0.01, 0.17), 0.2, "no difference", "+0.080 [-0.010, 0.170] touches 0"),
        (span(0.08, 0.03, 0.13), -0.01, "nothing", "neither a's nor b's labels teach more than a"),
    ],
)  # fmt: skip
def test_verdict(difference: dict[str, Any], low: float, word: str, text: str) -> None:
    gained = {
        "a": {"centred_cosine": span(0.3, low, 0.4)},
        "b": {"centred_cosine": span(0.1, -0.1, 0.2)},
    }
    found, sentence = judge("a", "b", difference, gained)
    assert found == word
    assert text in sentence
