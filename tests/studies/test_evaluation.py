"""Evaluations put together: of a run, and of any AV with any AR on any rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.config.load import parse_config
from nlakit.config.sections import EvalConfig
from nlakit.core.contract import read_contract
from nlakit.errors import ConfigError, ContractError, DataError, RunError
from nlakit.evaluate.data_checks import check_data, seen_shares
from nlakit.evaluate.findings import findings, parts_of
from nlakit.evaluate.parts.roundtrip import groups_of
from nlakit.files.parquet import read_table, write_table
from nlakit.files.rows import rows_of_file
from nlakit.run import pipeline
from nlakit.studies.evaluation import evaluate_pair, half_at, read_data, trained_together
from tests.conftest import toy_corpus, toy_settings

SETTINGS = EvalConfig(rows=8, control_rows=2, permutations=50)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path]
) -> tuple[Path, Path]:
    """Two toy runs over one corpus, of other seeds; the first is evaluated."""
    folder = tmp_path_factory.mktemp("evaluation")
    corpus = toy_corpus(folder / "corpus.jsonl")
    made = []
    for name, seed in (("first", 0), ("second", 1)):
        config = parse_config(toy_settings(toy_folder("gemma3"), corpus, name=name, seed=seed))
        stages = pipeline.STAGES[: None if seed == 0 else -2]
        pipeline.run(config, folder / name, stages=stages)
        made.append(folder / name)
    return made[0], made[1]


def test_findings_can_be_computed_again_from_the_stored_values(runs: tuple[Path, Path]) -> None:
    folder = runs[0] / "09_eval"
    rows = read_table(folder / "rows.parquet")
    ids, documents = rows["row_id"].to_pylist(), rows["doc_id"].to_pylist()
    test = rows_of_file(runs[0] / "05_tables" / "test.parquet")
    place = {row: i for i, row in enumerate(test.row_ids)}
    groups = groups_of(test.take([place[row] for row in ids]))
    parts = parts_of(read_table(folder / "values.parquet"), ids)
    again = findings(parts, documents, groups)
    stored = read_table(folder / "findings.parquet").to_pylist()
    known = [one for one in stored if one["rows"]]  # a condition without rows leaves no value
    assert again == known
    assert {one["part"] for one in stored} >= {"roundtrip", "collapse"}
    assert any(one["group"].startswith("family=") for one in stored)


def test_every_gain_stands_over_a_floor_of_the_same_measure(runs: tuple[Path, Path]) -> None:
    stored = read_table(runs[0] / "09_eval" / "findings.parquet").to_pylist()
    known = {(one["part"], one["measure"], one["condition"]) for one in stored}
    with_floor = [one for one in stored if one["floor"]]
    assert with_floor
    assert all((one["part"], one["measure"], one["floor"]) in known for one in with_floor)


def test_the_sidecar_has_the_headlines(runs: tuple[Path, Path]) -> None:
    folder = runs[0] / "09_eval"
    side = yaml.safe_load((folder / "eval.yaml").read_text())
    results = json.loads((folder / "results.json").read_text())
    assert side["verdict"] == results["verdict"]["word"]
    assert side["scores"]["fve"]["mean"] == round(results["scores"]["real"]["fve"]["mean"], 4)
    assert side["card_block"]["attempted"] == results["rows"]["attempted"]
    assert set(side["data_sha256"]) == {"test", "av", "ar"}


def test_any_av_goes_with_any_ar_and_an_unmatched_pair_is_said(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = map(str, runs)
    out = tmp_path / "mixed"
    results = evaluate_pair(second, first, first, SETTINGS, out, device="cpu")
    assert results["provenance"]["matched"] is False
    assert results["rows"]["attempted"] == 8
    stored = json.loads((out / "av_texts.json").read_text())["texts"]
    assert stored == read_table(out / "rows.parquet")["explanation"].to_pylist()
    again = evaluate_pair(second, first, first, SETTINGS, out, device="cpu")
    assert again["scores"] == results["scores"]
    with pytest.raises(RunError, match="settings"):
        evaluate_pair(second, first, first, EvalConfig(rows=4), out, device="cpu")


def test_a_pair_by_the_command_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first = str(runs[0])
    call = ["eval", "--av", first, "--ar", first, "--out", str(tmp_path / "out")]
    for setting in ("rows=6", "control_rows=2", "permutations=50"):
        call += ["--set", f"eval.{setting}"]
    found = CliRunner().invoke(app, [*call, "--set", "subject.device=cpu", "--gate"])
    assert found.exit_code == 3, found.output  # the toy reads nothing
    assert "verdict:" in found.output
    assert "matched" not in found.output


def test_options_of_the_other_kind_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """An option that is passed over without a word would be taken for obeyed."""
    first, out = str(runs[0]), str(tmp_path / "out")
    for call, said in (
        (["eval", first, "--precision", "float32"], "are for pairs"),
        (["eval", first, "--base-model", "x"], "are for pairs"),
        (["eval", "--av", first, "--ar", first, "--out", out, "--redo"], "--redo is for runs"),
    ):
        found = CliRunner().invoke(app, call)
        assert isinstance(found.exception, ConfigError), found.output
        assert said in str(found.exception)


def test_halves_of_the_same_tables_belong_together(runs: tuple[Path, Path]) -> None:
    contract = read_contract(half_at(str(runs[0]), "av"))
    other = contract.model_copy(deep=True)
    assert trained_together(contract, other)
    other.nlakit.config_hash = None
    assert trained_together(contract, other) is None


def test_wrong_halves_and_rows_are_one_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="holds no AR"):
        half_at(str(runs[0] / "08_pair" / "av"), "ar")
    with pytest.raises(DataError, match="no rows to evaluate on"):
        read_data(str(tmp_path))
    halves = [str(runs[0] / "08_pair" / half) for half in ("av", "ar")]
    with pytest.raises(DataError, match="give --data"):
        evaluate_pair(*halves, None, SETTINGS, tmp_path / "out")


def test_a_table_of_vectors_alone_can_be_evaluated_on(runs: tuple[Path, Path], tmp_path: Path):
    table = read_table(runs[0] / "05_tables" / "test.parquet").select(["activation_vector"])
    write_table(tmp_path / "bare.parquet", table)
    rows = rows_of_file(tmp_path / "bare.parquet")
    assert rows.doc_ids == rows.row_ids
    assert set(rows.texts) == {""}
    first = str(runs[0])
    results = evaluate_pair(
        first, first, str(tmp_path / "bare.parquet"), SETTINGS, tmp_path / "out", device="cpu"
    )
    assert not {"label", "last_token", "last_10_tokens"} & set(results["scores"])
    assert "unsupported-quotes" not in [one["code"] for one in results["warnings"]]
    found = read_table(tmp_path / "out" / "findings.parquet").to_pylist()
    assert not [one for one in found if one["part"] == "truth"]
    assert any("no source" in note for note in results["parts"]["truth"]["notes"])


def test_rows_of_one_id_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    table = read_table(runs[0] / "05_tables" / "test.parquet")
    twice = table["row_id"].to_pylist()
    twice[1] = twice[0]
    column = table.schema.get_field_index("row_id")
    write_table(tmp_path / "twice.parquet", table.set_column(column, "row_id", [twice]))
    with pytest.raises(DataError, match="one row_id"):
        rows_of_file(tmp_path / "twice.parquet")


def test_another_precision_is_another_evaluation(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, data = str(runs[0]), str(runs[0])
    out = tmp_path / "out"
    results = evaluate_pair(first, first, data, SETTINGS, out, device="cpu", precision="float32")
    assert results["provenance"]["subject_precision"] == "float32"
    assert "stored beside the pair" in results["provenance"]["baseline_source"]
    with pytest.raises(RunError, match="subject"):
        evaluate_pair(first, first, data, SETTINGS, out, device="cpu", precision="bfloat16")


class FakeBench:
    def __init__(self, runs: tuple[Path, Path], **more: Any) -> None:
        tables = runs[0] / "05_tables"
        self.rows = rows_of_file(tables / "test.parquet")
        self.train = rows_of_file(tables / "ar.parquet")
        self.mean = np.zeros(self.rows.vectors.shape[1])
        self.ar = None
        self.documents = self.rows.doc_ids
        vars(self).update(more)


def test_a_clean_split_raises_nothing(runs: tuple[Path, Path]) -> None:
    assert check_data(FakeBench(runs)) == []  # type: ignore[arg-type]


def test_planted_mode_8_contaminated_split_is_named(runs: tuple[Path, Path]) -> None:
    clean = FakeBench(runs)
    leaked = clean.train.join(clean.rows.take(range(4)))
    found = check_data(FakeBench(runs, train=leaked))  # type: ignore[arg-type]
    assert [one["code"] for one in found] == ["contaminated-split"]
    # The same texts under other names of documents are found by their words.
    renamed = dataclasses.replace(clean.rows, doc_ids=[f"x{i}" for i in range(len(clean.rows))])
    found = check_data(FakeBench(runs, train=clean.train.join(renamed)))  # type: ignore[arg-type]
    assert [one["code"] for one in found] == ["contaminated-split"]


def test_planted_wrong_baseline_is_named(runs: tuple[Path, Path]) -> None:
    ar = type("AR", (), {})()
    ar.contract = read_contract(half_at(str(runs[0]), "ar"))
    ar.contract.nlakit.baseline = 0.5  # with a mean of zero, E‖u − ū‖² is 1
    found = check_data(FakeBench(runs, ar=ar))  # type: ignore[arg-type]
    assert [one["code"] for one in found] == ["wrong-baseline"]
    ar.contract.nlakit.baseline = 1.0
    assert check_data(FakeBench(runs, ar=ar)) == []  # type: ignore[arg-type]


def test_seen_shares_by_hand() -> None:
    known = "one two three four five six seven eight nine"  # two runs of eight words
    sources = [known, "one two three four five six seven eight other", "too short to tell"]
    np.testing.assert_allclose(seen_shares(sources, [known]), [1.0, 0.5, 0.0])
