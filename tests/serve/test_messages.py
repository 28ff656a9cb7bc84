"""Conversations: in the subject's own template, each token with whose it is, as Neuronpedia's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nlakit import NLA
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from tests.chats import KEEPING, chat_tokenizer
from tests.serve.conftest import Client

TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Who sings?"},
    {"role": "assistant", "content": "A whale.", "channel": None},
]


@pytest.fixture
def chat(toy_nla: NLA) -> Iterator[Client]:
    """The toy with a template of its own."""
    before = toy_nla.subject.tokenizer
    toy_nla.subject.tokenizer = chat_tokenizer(KEEPING)
    engine = Engine(toy_nla)
    yield Client(create_app({"toy": engine}))
    engine.close()
    toy_nla.subject.tokenizer = before


def spoken(tokens: list[dict[str, Any]], index: int) -> str:
    mine = [one for one in tokens if one["message_index"] == index and one["section"] == "content"]
    return "".join(one["token"] for one in mine)


def test_every_token_says_whose_it_is(chat: Client) -> None:
    found = chat.post("/tokenize", {"messages": TALK, "add_generation_prompt": False}).json()
    assert found["text"].endswith("<|turn>assistant\nA whale.<|end|>\n")
    tokens = found["tokens"]
    assert (spoken(tokens, 0), spoken(tokens, 1)) == ("Who sings?", "A whale.")
    assert {one["section"] for one in tokens} <= {"header", "content", "footer", "scaffold"}
    roles = {one["message_index"]: one["role"] for one in tokens if one["section"] == "content"}
    assert roles == {0: "user", 1: "assistant"}
    again = chat.post("/tokenize", {"text": found["text"]}).json()["tokens"]
    assert [one["token_id"] for one in again][-9:] == [one["token_id"] for one in tokens][-9:]


def test_messages_are_explained_at_the_positions_of_their_tokens(chat: Client) -> None:
    tokens = chat.post("/tokenize", {"messages": TALK}).json()["tokens"]
    at = max(one["position"] for one in tokens if one["message_index"] == 1)
    asked = {"messages": TALK, "positions": [at], "temperature": 0}
    [record] = chat.post("/explain", asked).json()["results"]
    fields = ("token", "token_id", "position", "role", "section", "message_index")
    assert {name: record[name] for name in fields} == {name: tokens[at][name] for name in fields}
    web = chat.post("/api/nla/explain", asked).json()
    assert web["results"][0]["description"] == record["description"]


def test_their_web_interface_opens_the_next_turn_behind_a_question(chat: Client) -> None:
    """And not behind an answer, unless it is told to."""

    def length(messages: list[dict[str, Any]], **more: Any) -> int:
        asked = {"messages": messages, "positions": [0], "temperature": 0, **more}
        return chat.post("/api/nla/explain", asked).json()["prompt_length"]

    question = length(TALK[:1])
    assert question > length(TALK[:1], add_generation_prompt=False)
    assert length(TALK) == length(TALK, add_generation_prompt=False)
    assert length(TALK) < length(TALK, add_generation_prompt=True)


def test_what_the_subject_writes_is_the_assistants(chat: Client) -> None:
    asked = {"messages": TALK[:1], "completion_tokens": 3, "temperature": 0}
    found = chat.post("/completion", asked).json()
    new = found["tokens"][found["prompt_length"] :]
    assert {(one["role"], one["section"]) for one in new} == {("assistant", "content")}
    web = chat.post("/api/nla/completion", asked).json()
    assert web["full_text"] == found["text"]
    assert web["full_text"].endswith(web["completion"])
    assert web["tokens"] == found["tokens"]


def test_sources_say_whether_there_is_a_template(chat: Client) -> None:
    [source] = chat.get("/api/nla/sources").json()["sources"]
    assert source["model"]["openRouterAvailable"] is True


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "two words", "content": "x"}],
        [{"role": "", "content": "x"}],
        [{"role": "user", "content": "x", "channel": "<|end|>"}],
    ],
    ids=str,
)
def test_messages_that_cannot_be_read_are_refused(
    chat: Client, messages: list[dict[str, Any]]
) -> None:
    answer = chat.post("/explain", {"messages": messages})
    assert (answer.status_code, "message 0" in answer.json()["error"]) == (400, True)


def test_a_subject_without_a_template_says_so(client: Client, toy_nla: NLA) -> None:
    answer = client.post("/explain", {"messages": TALK})
    assert answer.status_code == 400
    assert "has no chat template" in answer.json()["error"]
    assert toy_nla.contract.extraction.base_model not in answer.text
    [source] = client.get("/api/nla/sources").json()["sources"]
    assert source["model"]["openRouterAvailable"] is False
