"""JSON that every reader takes."""

from __future__ import annotations

import json

import pytest

from nlakit.files.text import as_json


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
