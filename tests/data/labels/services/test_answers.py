"""Only answers of the right form become labels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.data.labels.services.answers import LabelAnswer, Verdict, explanation, parse
from nlakit.data.labels.services.faults import Fault

GOOD = {"features": ["A speaker is named.", "A clause must follow."]}
SCORES = {"integrated": 4, "specific": 3, "checkable": 5, "ending": 2}
AUDIT = {"reasons": "good", "scores": SCORES, "verdict": "KEEP", "features": []}


def test_json_and_fenced_json_are_read() -> None:
    text = json.dumps(GOOD)
    assert parse(text, LabelAnswer).features == GOOD["features"]
    assert parse(f"```json\n{text}\n```", LabelAnswer).features == GOOD["features"]
    assert parse(json.dumps(AUDIT), Verdict).scores.mean == 3.5


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I'm sorry, but I can't assist with that.", "refusal"),
        ("not json", "invalid"),
        (json.dumps(GOOD)[:-9], "invalid"),
        ('{"features": ["only one"]}', "invalid"),
        ('{"features": ["one", "two", "three", "four"]}', "invalid"),
        ('{"features": ["one", ""]}', "invalid"),
        ('{"features": ["one", "two"], "note": "more"}', "invalid"),
        ('["one", "two"]', "invalid"),
        ("[" * 9000, "invalid"),
        ("```json\n" + " " * 20_000 + "x", "invalid"),
        ('{"features": ["one \\ud800", "two"]}', "unreadable"),
    ],
)
def test_anything_else_is_a_fault_with_its_name(text: str, kind: str) -> None:
    with pytest.raises(Fault) as found:
        parse(text, LabelAnswer)
    assert found.value.kind == kind


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "REVISE"},
        {"verdict": "REVISE", "features": ["one"]},
        {"verdict": "keep"},
        {"scores": SCORES | {"ending": 6}},
        {"scores": {}},
    ],
)
def test_a_verdict_is_of_its_type(change: dict[str, object]) -> None:
    with pytest.raises(Fault, match="invalid"):
        parse(json.dumps(AUDIT | change), Verdict)


@given(st.text())
def test_nothing_but_a_fault_comes_out_of_any_text(text: str) -> None:
    try:
        parse(text, LabelAnswer)
    except Fault:
        return
    raise AssertionError("a random text is no answer")


def test_features_become_closed_sentences() -> None:
    assert (
        explanation(["One  thing", "two\nends.", "“Quoted.”"]) == "One thing. two ends. “Quoted.”"
    )
