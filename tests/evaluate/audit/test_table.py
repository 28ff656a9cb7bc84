"""Reading a foreign table: what its columns are called, and what is refused in a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlakit.errors import ConfigError, DataError
from nlakit.evaluate.audit.table import match_columns, parse_columns, read_audit_table


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def test_aliases_give_way_to_the_own_name() -> None:
    assert match_columns(["av_text", "explanation"]) == {"explanation": "explanation"}
    assert match_columns(["Explanation", "explanation"]) == {"explanation": "explanation"}
    assert match_columns(["Round-Trip cos", "Doc ID"]) == {
        "cosine": "Round-Trip cos", "doc_id": "Doc ID"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["text", "response", "source", "prompt", "answer"])
def test_a_name_that_may_mean_the_source_is_not_guessed(name: str) -> None:
    assert match_columns([name, "cosine"]) == {"cosine": "cosine"}


def test_of_two_names_for_one_column_none_is_guessed() -> None:
    with pytest.raises(DataError, match="several columns may be explanation; found: av_text, desc"):
        match_columns(["av_text", "description"])
    both = ["av_text", "description", "label"]
    assert match_columns(both, {"explanation": "description", "label": ""}) == {
        "explanation": "description"
    }


def test_sources_are_not_judged_for_explanations_and_a_column_can_be_named(tmp_path: Path) -> None:
    rows = [{"text": f"A source, number {i}.", "the answer": f"It is {i}."} for i in range(3)]
    file = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="columns text, the answer; .*--column explanation=NAME"):
        read_audit_table(file)
    chosen = parse_columns(["explanation=the answer", "source_text=text"])
    table = read_audit_table(file, chosen)
    assert table["explanation"] == [row["the answer"] for row in rows]
    assert table["source_text"] == [row["text"] for row in rows]
    with pytest.raises(DataError, match="no column 'answer' for explanation; found: columns text"):
        read_audit_table(file, {"explanation": "answer"})


def test_a_chosen_name_serves_one_column_and_vectors_can_be_chosen(tmp_path: Path) -> None:
    row = {"explanation": "a source", "said": "it", "h": [1, 2], "reconstruction": [1, 0]}
    chosen = parse_columns(["explanation=said", "activation_vector=h", "reconstruction="])
    table = read_audit_table(write(tmp_path / "a.jsonl", json.dumps(row)), chosen)
    assert table.read_as == {"explanation": "said", "activation_vector": "h"}
    np.testing.assert_array_equal(table["activation_vector"], [[1, 2]])
    assert sorted(table.ignored) == ["explanation", "reconstruction"]


@pytest.mark.parametrize("given", [["explanation"], ["words=a"], ["label=a", "label=b"]])
def test_a_column_that_cannot_be_meant_is_one_line(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="COLUMN=NAME, COLUMN one of explanation"):
        parse_columns(given)


NEURONPEDIA = {
    "modelId": "gemma",
    "results": [
        {"description": "A ship.", "token": " ship", "mse": 0.5, "cosine_similarity": 0.75},
        {"description": "A sea.", "token": " sea", "mse": 0.4, "cosine_similarity": 0.8},
    ],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("one.json", json.dumps(NEURONPEDIA)),
        ("one.json", json.dumps(NEURONPEDIA, indent=2)),
        ("list.json", json.dumps([NEURONPEDIA])),
        ("lines.jsonl", json.dumps(NEURONPEDIA)),
    ],
)
def test_an_answer_of_neuronpedia_is_a_document(tmp_path: Path, name: str, content: str) -> None:
    table = read_audit_table(write(tmp_path / name, content))
    assert table["explanation"] == ["A ship.", "A sea."]
    assert table["token"] == [" ship", " sea"]
    assert table["cosine"].tolist() == [0.75, 0.8]
    assert table["mse"].tolist() == [0.5, 0.4]
    assert table["doc_id"] == ["answer 1", "answer 1"]


def test_answers_on_two_lines_are_two_documents(tmp_path: Path) -> None:
    lines = "\n".join([json.dumps(NEURONPEDIA)] * 2)
    table = read_audit_table(write(tmp_path / "a.jsonl", lines))
    assert table["doc_id"] == ["answer 1", "answer 1", "answer 2", "answer 2"]


def test_the_three_formats_read_alike(tmp_path: Path) -> None:
    records = [
        {"explanation": "A ship,\nat sea.", "cosine": 0.5, "doc_id": 1},
        {"explanation": None, "cosine": None, "doc_id": 2},
    ]
    files = [
        write(tmp_path / "a.jsonl", "\ufeff" + "\n".join(json.dumps(r) for r in records)),
        write(tmp_path / "a.csv", 'explanation,cosine,doc_id\n"A ship,\nat sea.",0.5,1\n,NaN,2\n'),
        tmp_path / "a.parquet",
    ]
    pq.write_table(pa.Table.from_pylist(records), files[2])
    for file in files:
        table = read_audit_table(file)
        assert table["explanation"] == ["A ship,\nat sea.", ""]
        assert table["doc_id"] == ["1", "2"]
        np.testing.assert_array_equal(table["cosine"], [0.5, np.nan])


def test_vectors_of_json_lists_with_rows_that_have_none(tmp_path: Path) -> None:
    lines = [{"activation_vector": [1, 2], "reconstruction": [0.5, 1]},
             {"activation_vector": None, "reconstruction": [0, 0]}]  # fmt: skip
    table = read_audit_table(write(tmp_path / "v.jsonl", "\n".join(map(json.dumps, lines))))
    np.testing.assert_array_equal(table["activation_vector"], [[1, 2], [np.nan, np.nan]])
    assert np.isnan(table["reconstruction"][1]).all()  # no direction


@pytest.mark.parametrize("vector", [["1", "2"], ["x", "y"], [True, False]])
def test_strings_are_no_vectors(tmp_path: Path, vector: list[object]) -> None:
    record = {"activation_vector": vector, "cosine": 0.5}
    lines = write(tmp_path / "a.jsonl", json.dumps(record))
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="line 1: activation_vector is no list of numbers"):
        read_audit_table(lines)
    with pytest.raises(DataError, match="activation_vector holds no vectors"):
        read_audit_table(tmp_path / "a.parquet")


def test_nan_and_infinite_scores_are_counted(tmp_path: Path) -> None:
    table = read_audit_table(
        write(tmp_path / "a.jsonl", '{"cos": NaN}\n{"cos": Infinity}\n{"cos": 1}')
    )
    np.testing.assert_array_equal(table["cosine"], [np.nan, np.nan, 1.0])
    assert table.notes == ["column cos: 2 of 3 values are NaN or infinite"]


def test_pandas_categories_are_names(tmp_path: Path) -> None:
    column = pa.array(["real", "empty", "real"]).dictionary_encode()
    pq.write_table(pa.table({"cosine": [1.0, 0.5, 1.0], "variant": column}), tmp_path / "a.parquet")
    assert read_audit_table(tmp_path / "a.parquet")["variant"] == ["real", "empty", "real"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n\n", "has no rows"),
        ("a.csv", b"explanation,cosine\n", "has no rows"),
        ("a.txt", b"hello", "cannot be audited; found: .txt"),
        ("a.jsonl", b'{"explanation": "a"}\n{"explanation": "b"\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"explanation": "a"}\n[1]\n', "line 2 is not a JSON object"),
        ("a.csv", "explanation\ncafé\n".encode("latin-1"), "not UTF-8; found: byte 0xe9 in line 2"),
        ("a.csv", b"The ship sails.,0.43\nA storm comes.,0.5\n", "found: columns The ship sails"),
        ("a.csv", b"explanation,cosine\na\n", "is not CSV"),
        ("a.csv", b"cosine,cosine\n1,2\n", "two columns of one name"),
        ("a.csv", b"explanation\n1\n2\n", "must hold texts; found: int64 values, the first [1]"),
        ("a.csv", b"cosine\nhigh\n", "must hold numbers"),
        ("a.jsonl", b'{"explanation": "a"}\n{"explanation": 3}\n', "mixes kinds"),
        ("a.jsonl", b'{"activation_vector": ["a"], "fve": 1}', "line 1: activation"),
        ("a.jsonl", b'{"doc_id": "a", "activation_vector": [1]}', "--column explanation=NAME"),
        ("a.json", b'{"results": []}', "has no rows"),
        ("a.json", b'{\n"results": 1\n}', "no column that can be audited; found: columns results"),
        ("a.parquet", b"PAR1 cut", "cannot read"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_audit_table(write(tmp_path / name, content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_audit_table(tmp_path / "no.csv")
