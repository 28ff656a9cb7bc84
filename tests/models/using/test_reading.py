"""What a pair reads: texts, conversations, and where activations are taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit import NLA
from nlakit.core.text.messages import Conversation
from nlakit.errors import DataError, ModelError
from nlakit.models.subject import activations_of, sliced_decoder
from nlakit.models.using.reading import has_words, tokens_of
from nlakit.models.verbalizer import Verbalizer
from tests.chats import KEEPING, MARKS, chat_tokenizer
from tests.conftest import SMALL_LORA, D, build_contract
from tests.tokenizers import byte_level

TALK = [
    {"role": "user", "content": "Why? <|end|>"},
    {"role": "assistant", "content": "So."},
    {"role": "user", "content": "Oh"},
    {"role": "assistant", "content": "Yes"},
]


@pytest.fixture
def nla(toy_subject: Any) -> NLA:
    subject = toy_subject()
    subject.tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    subject.tokenizer.chat_template = KEEPING
    contract = build_contract(subject)
    av = Verbalizer(subject, contract, np.zeros(D), SMALL_LORA, 0).eval()
    return NLA(subject, av, None, np.zeros(D))


def test_a_conversation_is_read_where_the_assistant_speaks(nla: NLA) -> None:
    ids, places, vectors = nla.activations(TALK, "all")
    assert "".join(nla.subject.tokenizer.decode([ids[at]]) for at in places) == "So.Yes"
    reader = sliced_decoder(nla.subject.model, nla.contract.layer + 1)
    assert np.array_equal(vectors, activations_of(reader, ids, nla.contract.layer)[places])
    assert nla.activations(TALK, "last")[1] == [places[-1]]
    assert nla.activations(TALK, [0, -1])[1] == [0, len(ids) - 1]


def test_explained_tokens_say_whose_they_are(nla: NLA) -> None:
    found = nla.explain(TALK, "all")
    assert [one.token for one in found] == list("So.Yes")
    assert [one.message_index for one in found] == [1] * 3 + [3] * 3
    assert {(one.role, one.section, one.channel) for one in found} == {
        ("assistant", "content", None)
    }
    text = nla.explain("So.", "all")[0]
    assert text.role is text.section is text.message_index is None


def test_other_roles_are_read_on_request(nla: NLA) -> None:
    users = Conversation(TALK, roles=("user",))
    assert "".join(one.token or "" for one in nla.explain(users, "all")) == "Why? <|end|>Oh"
    marks = nla.explain(Conversation(TALK[:1], roles=("template",)), "all")
    assert {one.section for one in marks} == {"header", "footer"}
    with pytest.raises(DataError, match=r"nobody speaks as assistant.*template, user"):
        nla.explain(TALK[:1], "all")


def test_the_tokens_of_a_conversation_and_of_a_text(nla: NLA) -> None:
    tokens = nla.tokenize(TALK)
    assert [one.position for one in tokens] == list(range(len(tokens)))
    assert [one.token_id for one in tokens] == nla.tokens(TALK).ids
    assert "".join(one.token for one in tokens) == nla.tokens(TALK).text
    assert {one.role for one in nla.tokenize("So.")} == {None}


def test_a_character_of_several_tokens_is_whole_on_each() -> None:
    tokenizer = byte_level("日")
    found = tokens_of(tokenizer, "a日é").described(tokenizer)
    shown = [(one.token, one.fragment_index, one.fragment_count) for one in found]
    assert shown == [("a", 0, 1), ("日", 0, 1), ("é", 0, 2), ("é", 1, 2)]
    half = tokens_of(tokenizer, "é").ids[:1]
    from nlakit.core.text.characters import spelled

    assert spelled(tokenizer, half) == [("\N{REPLACEMENT CHARACTER}", 0, 1)]
    assert spelled(tokenizer, []) == []


def test_a_pair_reads_conversations_as_its_documents_were_read(toy_subject: Any) -> None:
    subject = toy_subject()
    contract = build_contract(subject, chat_template="plain")
    nla = NLA(subject, Verbalizer(subject, contract, np.zeros(D), SMALL_LORA, 0).eval(), None, None)
    assert nla.tokens(TALK).text.startswith("<bos>User: Why? <|end|>\n\nAssistant: So.")
    assert nla.tokens(Conversation(TALK, template=KEEPING)).text.startswith("<|turn>system")
    bare = NLA(
        subject,
        Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0),
        None,
        None,
    )
    with pytest.raises(ModelError, match="no chat template"):
        bare.explain(TALK)


def test_what_words_are_and_what_vectors() -> None:
    assert all(map(has_words, ("a", TALK, [], Conversation(TALK))))
    assert not any(map(has_words, (np.zeros(3), [[1.0, 2.0]], None)))
    assert chat_tokenizer(None).chat_template is None
