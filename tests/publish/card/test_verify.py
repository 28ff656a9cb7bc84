"""`nlakit verify`: a fresh card passes, and one changed digit anywhere does not."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from nlakit.cli import card as cli_card
from nlakit.errors import DataError
from nlakit.evaluate.bench import Measured, Part
from nlakit.evaluate.findings import SCHEMA, findings
from nlakit.files.parquet import read_table, write_table
from nlakit.publish.card.model_card import write_model_card
from nlakit.publish.card.verify import NUMBER, first_difference, verify, wrong_line
from nlakit.publish.evaluation import read_evaluation
from nlakit.publish.hub.archive import write_manifest
from nlakit.run.folder import read_exact
from tests.publish.evaluated import toy_rows, write_toy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_model_card(write_toy(folder / "evaluation"), folder / "card", name="toy")
    return folder / "card"


@pytest.fixture
def card(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "card"))


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    cli_card.register(app)
    found = CliRunner().invoke(app, list(arguments))
    return found.exit_code, found.output


def test_a_fresh_card_passes(card: Path) -> None:
    code, said = run("verify", str(card))
    assert code == 0, said
    count = int(re.search(r"(\d+) numbers", said).group(1))  # type: ignore[union-attr]
    assert count > 300
    assert verify(card / "README.md").numbers == count


ODD = "\r \n\r\n\t\v\f\x1c\x85\xa0\u2028\u2029\ufeff|`*_~<b>&amp;#\\[](x){{ }}{% %}```\r"


def test_a_card_of_texts_with_every_kind_of_line_end_passes(tmp_path: Path) -> None:
    rows = toy_rows()
    rows = replace(
        rows,
        texts=[f"{ODD}label {i}{ODD}" for i in range(len(rows))],
        sources=[f"{ODD}{source}{ODD}" for source in rows.sources],
        families=[f"{ODD}{family}" for family in rows.families],
        row_ids=[f"{i}{ODD}" for i in range(len(rows))],
        doc_ids=[f"{ODD}{doc}" for doc in rows.doc_ids],
    )
    made = write_toy(tmp_path / "evaluation", rows=rows)
    write_model_card(made, tmp_path / "card", name=f"a name{ODD}", license=f"li{ODD}")
    code, said = run("verify", str(tmp_path / "card"))
    assert code == 0, said
    text = read_exact(tmp_path / "card" / "README.md")
    assert f"{ODD}label " in text
    headings = [line for line in text.split("\n") if line.startswith("# ")]
    assert len(headings) == 1


def test_line_ends_that_a_checkout_has_changed_are_named(card: Path) -> None:
    text = read_exact(card / "README.md")
    (card / "README.md").write_bytes(text.replace("\n", "\r\n").encode())
    assert verify(card).problem == "README.md: line ends differ"


def test_planted_digit_in_the_card(card: Path) -> None:
    file = card / "README.md"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if line.startswith("| Centred cosine"))
    number = NUMBER.search(lines[place])
    assert number is not None
    digit = number.group()[-1]
    wrong = number.group()[:-1] + str((int(digit) + 1) % 10)
    lines[place] = lines[place].replace(number.group(), wrong, 1)
    file.write_text("".join(lines), encoding="utf-8")
    code, said = run("verify", str(card))
    assert code == 3
    assert f"README.md line {place + 1}: found {wrong}, expected {number.group()}" in said


def change(file: Path, column: str, row: int, value: float) -> None:
    table = read_table(file)
    values = table[column].to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    write_table(
        file, table.set_column(place, column, pa.array(values, table.schema.field(place).type))
    )


@pytest.mark.parametrize(
    ("name", "column"), [("findings", "mean"), ("findings", "gain_high"), ("values", "value")]
)
def test_planted_value_in_a_table(card: Path, name: str, column: str) -> None:
    file = card / "results" / f"{name}.parquet"
    values = read_table(file)[column].to_pylist()
    row = next(i for i, value in enumerate(values) if value)
    change(file, column, row, values[row] + 0.001)
    assert f"{name}.parquet has SHA-256" in (verify(card).problem or "")
    write_manifest(card / "results")  # whoever changes a value can change a hash
    code, said = run("verify", str(card))
    assert code == 3
    assert "finding roundtrip, " in said
    assert "found " in said


@pytest.mark.parametrize(
    "path",
    ["verdict/evidence/content_gain/low", "scores/real/fve/mean", "gains/fve/mean", "card/mean",
     "rows/empty", "texts/empty_share", "examples/0/fve"],
)  # fmt: skip
def test_planted_number_in_the_results(card: Path, path: str) -> None:
    file = card / "results" / "results.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place = found
    for step in way:
        place = place[step]
    place[last] += 0.01
    if way == ["card"]:  # the part keeps it too
        found["parts"]["roundtrip"]["detail"]["card"][last] += 0.01
    file.write_text(json.dumps(found), encoding="utf-8")
    write_manifest(card / "results")
    assert f"results.json, {path.replace('/', ', ')}" in (verify(card).problem or "")


def test_a_missing_and_an_added_file(card: Path) -> None:
    (card / "results" / "note.txt").write_text("x")
    assert "note.txt is not in archive.json" in (verify(card).problem or "")
    (card / "results" / "note.txt").unlink()
    (card / "results" / "figures" / "fve.png").unlink()
    code, said = run("verify", str(card))
    assert code == 3
    assert "figures/fve.png is missing" in said


def test_a_dropped_finding_is_missed(card: Path) -> None:
    file = card / "results" / "findings.parquet"
    write_table(file, read_table(file).slice(1))
    write_manifest(card / "results")
    assert "is missing" in (verify(card).problem or "")


def test_a_condition_that_no_row_has(tmp_path: Path) -> None:
    """One row a document: no other position, so neither texts nor values of `same_document`."""
    rows = toy_rows()
    folder = write_toy(tmp_path / "e", rows=replace(rows, doc_ids=list(rows.row_ids)))
    values = read_evaluation(folder)
    part = Part("extra", [Measured("m", "real", np.full(30, np.nan), "none"),
                          Measured("m", "none", np.full(30, np.nan))])  # fmt: skip
    made = values.findings + findings([part], rows.row_ids)
    write_table(folder / "findings.parquet", pa.Table.from_pylist(made, schema=SCHEMA))
    write_model_card(folder, tmp_path / "card")
    assert verify(tmp_path / "card").problem is None


def test_words_count_too(card: Path) -> None:
    file = card / "README.md"
    text = file.read_text(encoding="utf-8").replace("**Not for**", "For", 1)
    file.write_text(text, encoding="utf-8")
    assert "expected '- **Not for**" in (verify(card).problem or "")


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to verify"):
        verify(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_digit_is_found(made: Path, data: st.DataObject) -> None:
    text = (made / "README.md").read_text(encoding="utf-8")
    places = [i for i, char in enumerate(text) if char.isdigit()]
    place = data.draw(st.sampled_from(places))
    other = data.draw(st.sampled_from([c for c in "0123456789" if c != text[place]]))
    assert wrong_line(text[:place] + other + text[place + 1 :], text) is not None


def test_first_difference() -> None:
    assert first_difference({"a": [1.0, None]}, {"a": (1.0 + 1e-13, None)}, "x") is None
    assert first_difference({"a": [1.0]}, {"a": [1.1]}, "x") == "x, a, 0: found 1.0, expected 1.1"
    assert first_difference({"a": 1}, {"b": 1}, "x") == "x: a, b on one side only"
    assert first_difference(True, 2, "x") is not None
