"""Options of conversations, and of which tokens are explained, before any model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nlakit.cli.use.messages import conversations
from nlakit.core.text.messages import Conversation
from nlakit.errors import ConfigError, DataError
from tests.commands import call

TALK = [{"role": "user", "content": "Hi"}]


def test_a_file_and_its_options_are_conversations(tmp_path: Path) -> None:
    talk, template = tmp_path / "talk.json", tmp_path / "own.jinja"
    talk.write_text(json.dumps(TALK), encoding="utf-8")
    template.write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    assert conversations(talk, None, None, False, False, None) == [Conversation(TALK)]
    found = conversations(talk, ["user", "thinking"], str(template), True, False, False)
    assert found == [
        Conversation(TALK, True, False, False, "{{ messages[0]['content'] }}", ("user", "thinking"))
    ]
    assert conversations(None, None, None, False, False, None) == []
    with pytest.raises(ConfigError, match="no such template"):
        conversations(talk, None, "simple", False, False, None)
    with pytest.raises(DataError, match="no conversation at"):
        conversations(tmp_path / "no.json", None, None, False, False, None)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("text", "--role", "user"), "give --messages FILE"),
        (("text", "--no-thinking"), "give --messages FILE"),
        (("text", "--messages", "talk.json"), "give a text, --vectors, --sae or --messages"),
        (("text", "--by", "depth"), "unknown --by; found: depth; do: entropy, surprise"),
        (("text", "--top", "3"), "--top needs --by"),
        (("text", "--top", "3", "--all"), "leave out the others"),
        (("--vectors", "v.npy", "--top", "3"), "leave out the others"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(words: tuple[str, ...], fault: str) -> None:
    said = call("explain", "demo", *words)
    assert said.code == 2 and fault in said.err, said
