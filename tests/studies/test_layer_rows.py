"""The rows of an evaluation at other layers: stored, read anew, or left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.config.load import parse_config
from nlakit.config.sections import EvalConfig, SubjectConfig
from nlakit.core.contract import read_contract
from nlakit.core.metrics import mean_unit
from nlakit.errors import ConfigError
from nlakit.files.rows import layer_vectors, rows_of_file, tables_at
from nlakit.publish.card.verify import wrong_finding, wrong_result
from nlakit.publish.evaluation import read_evaluation
from nlakit.run import pipeline
from nlakit.studies.evaluation import evaluate_pair
from nlakit.studies.layer_rows import check_layers, read_at_layers
from tests.conftest import toy_corpus, toy_settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path]) -> Path:
    """A toy run that stores layer 2 beside its own layer 1, without an evaluation."""
    folder = tmp_path_factory.mktemp("layers")
    settings = toy_settings(toy_folder("gemma3"), toy_corpus(folder / "corpus.jsonl"))
    settings["activations"] = {**settings["activations"], "extra_layers": [2]}
    pipeline.run(parse_config(settings), folder / "run", stages=pipeline.STAGES[:-2])
    return folder / "run"


@pytest.fixture
def given(run: Path, toy_subject: Callable[..., Any]) -> dict[str, Any]:
    files = tables_at(run)
    train = rows_of_file(files["ar"]).join(rows_of_file(files["av"]))
    return {
        "subject": toy_subject("gemma3"), "contract": read_contract(run / "08_pair" / "av"),
        "rows": rows_of_file(files["test"]), "train": train, "tables": files,
    }  # fmt: skip


def test_what_is_stored_is_what_is_read_anew(given: dict[str, Any]) -> None:
    stored = read_at_layers(**given, layers=(1, 2))
    again = read_at_layers(**{**given, "tables": {"test": given["tables"]["test"]}},
                           layers=(1, 2))  # fmt: skip
    bare = read_at_layers(**{**given, "contract": given["contract"]}, layers=(0, 1, 2, 3))
    count = len(given["rows"])
    assert stored.kept == again.kept == bare.kept == list(range(count))
    assert list(stored.vectors) == [2] and sorted(bare.vectors) == [0, 2, 3]
    assert stored.vectors[2] == pytest.approx(again.vectors[2], rel=1e-3, abs=1e-4)
    columns = [layer_vectors(given["tables"][part], 2) for part in ("av", "ar")]
    expected = mean_unit(np.concatenate(columns))  # type: ignore[arg-type]
    assert stored.means[2] == pytest.approx(expected)
    # Read anew, the mean is that of training rows too: all of a toy's are read.
    assert again.means[2] == pytest.approx(expected, abs=1e-4)
    assert "as the tables hold them" in stored.notes[0]
    assert "read anew" in again.notes[0] and "training rows" in again.notes[-1]


def test_without_training_rows_the_mean_is_that_of_the_rows_and_is_called_so(
    given: dict[str, Any],
) -> None:
    found = read_at_layers(**{**given, "train": None}, layers=(3,))
    assert found.means[3] == pytest.approx(mean_unit(found.vectors[3]))
    assert "for want of training rows" in found.notes[-1]


def test_planted_row_whose_text_is_not_what_was_read(given: dict[str, Any]) -> None:
    rows = given["rows"]
    sources = list(rows.sources)
    sources[1], sources[4] = sources[1] + " and more", ""
    found = read_at_layers(**{**given, "rows": replace(rows, sources=sources)}, layers=(0, 2))
    assert found.kept == [i for i in range(len(rows)) if i not in (1, 4)]
    assert {len(vectors) for vectors in found.vectors.values()} == {len(rows) - 2}
    assert any(f"2 of {len(rows)} rows are left out" in note for note in found.notes)


def test_a_layer_that_is_not_there_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no block 4; found: blocks 0 to 3"):
        evaluate_pair(str(run), str(run), str(run), EvalConfig(layers=(1, 4)), out, device="cpu")
    assert not out.exists()
    check_layers((), SubjectConfig(model="nowhere"))  # nothing asked for, nothing read


def test_the_command_shows_a_line_a_layer_and_its_numbers_verify(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ["eval", "--av", str(run), "--ar", str(run), "--out", str(out), "--layers", "0-2"]
    for setting in ("eval.rows=6", "eval.control_rows=2", "eval.permutations=50"):
        call += ["--set", setting]
    made = CliRunner().invoke(app, [*call, "--set", "subject.device=cpu"], env={"COLUMNS": "80"})
    assert made.exit_code == 0, made.output
    table = made.output.split("as if at layer")[1].split("AV gap")[0].splitlines()
    assert [line.split()[0] for line in table[3:6]] == ["0", "1", "2"]
    assert max(map(len, table[:6])) <= 80
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [one["layer"] for one in results["layers"] if one["own"]] == [1]
    evaluation = read_evaluation(out)
    assert wrong_finding(evaluation) is None and wrong_result(evaluation) is None
    results["layers"][0]["centred_cosine"]["gain"] += 0.001
    tampered = replace(evaluation, results=results)
    assert "layers" in (wrong_result(tampered) or "")


def test_an_evaluation_without_layers_has_the_settings_it_had() -> None:
    assert "layers" not in EvalConfig().model_dump()
    assert EvalConfig(layers=(3,)).model_dump()["layers"] == (3,)
