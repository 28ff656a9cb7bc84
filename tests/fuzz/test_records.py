"""nlakit's own records, damaged one by one: a line, or the work is done again with one result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands import call
from tests.fuzz.cases import Case

DAMAGE = {"empty": b"", "a list": b"[]", "cut": b'{"a": [1, ', "another text": b'{"\xe9": 1}',
          "a record": b'{"license": {}, "data": 3, "name": [], "title": {"a": 1}}',
          "odd": b'{"records": 1, "measured": 3, "texts": null, "files": []}'}  # fmt: skip
LINES = [
    ("verify card", "card/README.md"),
    ("verify card", "card/results/card.json"),
    ("verify card", "card/results/results.json"),
    ("card eval --correct card", "card/results/card.json"),
    ("verify archived", "archived/archive.json"),
    ("compare eval runs/demo --out new --permutations 50", "eval/results.json"),
    ("card eval --pair demo --out new", "eval/begin.json"),
    ("status runs/demo", "runs/demo/06_ar/.inputs.json"),
    ("push runs/demo/06_ar ./there --what trajectory", "runs/demo/06_ar/training.json"),
    ("explain demo words", "demo/av/adapter_config.json"),
]


@pytest.mark.parametrize(("line", "file"), LINES, ids=[file for _, file in LINES])
def test_a_damaged_record_is_a_line(line: str, file: str, place: Callable[..., Path]) -> None:
    words = line.split()
    root = place(*words[1:])
    whole = (root / file).read_bytes()
    for name, data in DAMAGE.items():
        (root / file).write_bytes(data)
        case = Case(0, tuple(words), (f"{file} is {name}",), call(*words))
        assert not case.problem, f"{case}\n{case.problem}"
        shutil.rmtree("new", ignore_errors=True)
    (root / file).write_bytes(whole)


@pytest.mark.parametrize("name", ["av_texts.json", "parts/roundtrip.json", "begin.json"])
def test_an_evaluation_goes_on_over_damage(name: str, place: Callable[..., Path]) -> None:
    """What was kept is taken where it is whole, and made again where it is not."""
    root = place("demo", "eval")
    words = ("eval", "demo", "--set", "eval.permutations=100", "--out", "eval")
    file = root / "eval" / name
    whole, results = file.read_bytes(), (root / "eval/values.parquet").read_bytes()
    for data in DAMAGE.values():
        file.write_bytes(data)
        case = Case(0, words, (name,), call(*words))
        assert not case.problem, case.problem
        if name == "begin.json":
            assert case.said.code == 2
            continue
        assert case.said.code == 0
        assert file.read_bytes() == whole
        assert (root / "eval/values.parquet").read_bytes() == results


TABLES = ("findings.parquet", "values.parquet", "rows.parquet")


@pytest.mark.parametrize("name", TABLES)
def test_a_mistyped_table_of_an_evaluation_is_a_line(
    name: str, place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each column in turn: gone, of nulls, and of lists."""
    from nlakit.publish.compare import figure

    monkeypatch.setattr(figure, "_save", lambda figure, path: path.touch())
    file = place("eval", "runs/demo") / "eval" / name
    table = pq.read_table(file)
    words = ("compare", "eval", "runs/demo", "--out", "new", "--permutations", "20")
    refused = 0
    for at, column in enumerate(table.column_names):
        rows = table.num_rows
        for made in (
            table.drop_columns([column]),
            table.set_column(at, column, pa.nulls(rows)),
            table.set_column(at, column, pa.array([[1.0]] * rows)),
        ):
            pq.write_table(made, file)
            case = Case(0, words, (f"{name}: {column}",), call(*words))
            assert not case.problem, f"{case}\n{case.problem}"
            refused += case.said.code == 2
            shutil.rmtree("new", ignore_errors=True)
    assert refused >= 2 * len(table.column_names)
