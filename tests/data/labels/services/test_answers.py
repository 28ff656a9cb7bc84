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
    for form in (text, f"```json\n{text}\n```"):
        found = parse(form, LabelAnswer)
        assert (found.value.features, found.repaired) == (GOOD["features"], False)
    assert parse(json.dumps(AUDIT), Verdict).value.scores.mean == 3.5


@pytest.mark.parametrize(
    "around",
    [
        "Here is the label:\n```json\n{}\n```\nI hope it helps {{reader}}!",
        '<think>Perhaps {{"features": ["a draft", "of mine"]}}?</think> {}',
        "{} {{not JSON}}",
        "I'm sorry for the wait. {}",
    ],
)
def test_json_inside_prose_is_read(around: str) -> None:
    """The last object of the kind: those before it are drafts."""
    found = parse(around.replace("{}", json.dumps(GOOD)).replace("{{", "{").replace("}}", "}"),
                  LabelAnswer)  # fmt: skip
    assert (found.value.features, found.repaired) == (GOOD["features"], True)


@pytest.mark.parametrize(
    ("given", "features"),
    [
        ({"features": [12, "two"]}, ["12", "two"]),
        ({"features": ["one", "two", "three", "four"]}, ["one", "two", "three"]),
        ({"features": ["one", 2.5, "three", 4]}, ["one", "2.5", "three"]),
        ({"features": ["one", "two"], "note": "more"}, ["one", "two"]),
        ({"features": [1, 2, 3, 4, 5], "a": 1, "b": {}}, ["1", "2", "3"]),
    ],
)
def test_what_is_plainly_meant_is_repaired(given: object, features: list[str]) -> None:
    found = parse(json.dumps(given), LabelAnswer)
    assert (found.value.features, found.repaired) == (features, True)


def test_a_verdict_is_repaired_too() -> None:
    found = parse(json.dumps(AUDIT | {"features": ["one", 2, "three", "four"]}), Verdict)
    assert (found.value.features, found.repaired) == (["one", "2", "three"], True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I'm sorry, but I can't assist with that.", "refusal"),
        ("not json", "invalid"),
        (json.dumps(GOOD)[:-9], "invalid"),
        ('{"features": ["only one"]}', "invalid"),
        ('{"features": ["one", ""]}', "invalid"),
        ('{"features": [true, null]}', "invalid"),
        ('{"features": "one"}', "invalid"),
        ('Sure! {"features": ["only one"]}', "invalid"),
        ("{" * 9000, "invalid"),
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
