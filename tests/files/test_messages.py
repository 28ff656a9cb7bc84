"""Conversations in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlakit.errors import DataError
from nlakit.files.messages import conversation_in, read_conversations

TALK = [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "Hi"}]


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "value", [TALK, {"messages": TALK}, [TALK], [{"messages": TALK}], {"id": 3, "messages": TALK}]
)
def test_json_holds_one_conversation_in_several_forms(tmp_path: Path, value: object) -> None:
    assert read_conversations(put(tmp_path / "a.json", json.dumps(value, indent=1))) == [TALK]


def test_lines_hold_one_each(tmp_path: Path) -> None:
    lines = [json.dumps(TALK), "", json.dumps({"messages": TALK[:1]})]
    found = read_conversations(put(tmp_path / "a.jsonl", "\n".join(lines) + "\n"))
    assert found == [TALK, TALK[:1]]


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.jsonl", json.dumps(TALK) + "\n{", "line 2 is not JSON"),
        ("a.jsonl", '{"text": "a"}', "line 1 holds no conversation"),
        ("a.jsonl", "\n", "holds no conversation"),
        ("a.json", "[3]", "item 1 holds no conversation"),
        ("a.json", "{}", "holds no conversation"),
        ("a.json", "[[", "is not JSON"),
    ],
)
def test_what_is_none_is_said_with_its_place(
    tmp_path: Path, name: str, text: str, fault: str
) -> None:
    with pytest.raises(DataError, match=fault):
        read_conversations(put(tmp_path / name, text))
    with pytest.raises(DataError, match="cannot be read"):
        read_conversations(tmp_path / "absent.json")


def test_a_column_may_hold_them_as_json() -> None:
    assert conversation_in(json.dumps(TALK), "row 1") == TALK
