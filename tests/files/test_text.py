"""JSON that every reader takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlakit.errors import DataError
from nlakit.files.text import as_json, read_jsonl, read_record


def test_what_json_has_not_is_null() -> None:
    value = {"a": [float("nan"), 1.5, (float("inf"), "NaN")], "b": {"c": -float("inf")}, "d": True}
    expected = {"a": [None, 1.5, [None, "NaN"]], "b": {"c": None}, "d": True}
    assert json.loads(as_json(value)) == expected
    assert as_json({"a": float("nan")}) == '{"a": null}'
    assert as_json("日本\u2028") == '"日本\u2028"'
    assert as_json([1], indent=1) == "[\n 1\n]"


def test_what_is_no_json_is_an_error() -> None:
    with pytest.raises(TypeError):
        as_json({"a": object()})


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": "\\ud83d\\ude00"}\n{"a": "\\ud800"}\n')
    with pytest.raises(DataError, match="line 2 is not valid Unicode; found: half of a surrogate"):
        list(read_jsonl(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"a": ', b'{"\xe9": 1}', b"[" * 100_000])
def test_a_record_is_a_mapping_or_an_error(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text('{"a": 1}', encoding="utf-8")
    assert read_record(file) == {"a": 1}
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"results\.json (cannot be read|is no record of nlakit)"):
        read_record(file)
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_record(file)
