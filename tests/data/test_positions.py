"""Drawn positions: keyed, as before on ASCII, and never inside a character."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.core.prompts import encode
from nlakit.core.text.lint import lint
from nlakit.core.text.messages import plain_text
from nlakit.data.labels.labeler import LabelRequest
from nlakit.data.labels.offline import Background, OfflineLabeler
from nlakit.data.positions import Reading, draw_positions, prepare
from nlakit.errors import ModelError
from tests.chats import DROPPING, KEEPING, chat_tokenizer
from tests.conftest import toy_tokenizer
from tests.tokenizers import SlowBytes, byte_level, with_dummy_space

ASCII = [f"Document {i}: " + "the quick brown fox jumps over it. " * (2 + i) for i in range(6)]
MIXED = [
    "祝㊗日本語の文章です。" * 12,
    "👩‍🚀🇯🇵🥨🧑🏽‍🌾 is said " * 9,
    "שלום עולם, " * 15 + "السلام عليكم " * 9,
]
KINDS = {
    "bytes": byte_level("日", " ㊗"),
    "fallback": with_dummy_space("日", "ש"),
    "slow": SlowBytes(),
    "toy": toy_tokenizer(),
}


def table(texts: list[str]) -> pa.Table:
    ids = [f"d{i}" for i in range(len(texts))]
    return pa.table({"doc_id": ids, "source_family": ["f"] * len(ids), "text": texts})


def build_config(seed: int = 0, how: str = "text", **activations: Any) -> RunConfig:
    section = {"max_tokens": 150, **activations}
    corpus = {"special_tokens": how}
    return parse_config({"name": "t", "seed": seed, "activations": section, "corpus": corpus})


def drawn_before(doc_id: str, seed: int, first: int, tokens: int, count: int) -> list[int]:
    """The draw among all positions, as it was when positions inside characters took part."""
    if tokens <= first:
        return []
    key = hashlib.blake2b(f"{seed}:{doc_id}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    drawn = rng.choice(tokens - first, size=min(count, tokens - first), replace=False)
    return sorted(int(position) + first for position in drawn)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(1, 200), st.integers(1, 30), st.text(max_size=8))
def test_positions_are_keyed_on_seed_and_document(
    seed: int, tokens: int, count: int, doc: str
) -> None:
    found = draw_positions(doc, seed, range(50, tokens), count)
    assert found == drawn_before(doc, seed, 50, tokens, count)
    assert found == sorted(set(found))
    assert len(found) == max(min(count, tokens - 50), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_draws_of_ascii_texts_stay_as_they_were(kind: str) -> None:
    tokenizer = KINDS[kind]
    made = prepare(tokenizer, table(ASCII), build_config(seed=3))
    for reading, text in zip(made, ASCII, strict=True):
        tokens = min(len(encode(tokenizer, text, special=True)), 150)
        assert reading.positions == drawn_before(reading.doc_id, 3, 50, tokens, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_no_position_lies_inside_a_character(kind: str) -> None:
    tokenizer = KINDS[kind]
    made = prepare(tokenizer, table(MIXED), build_config(positions_per_document=40, max_tokens=256))
    labeler = OfflineLabeler(Background(MIXED))
    assert [len(reading.positions) for reading in made] == [40, 40, 40]
    for reading, text in zip(made, MIXED, strict=True):
        for position in reading.positions:
            row, prefix, token = reading.shown(tokenizer, position)
            assert text.startswith(prefix)
            assert prefix.endswith(token)
            label = labeler.label([LabelRequest(row, prefix, token)])[0].explanation
            assert label is None or "unreadable" not in lint(label, prefix)


def test_documents_are_cut_after_their_last_position() -> None:
    for reading in prepare(toy_tokenizer(), table(ASCII), build_config()):
        assert len(reading.ids) == reading.positions[-1] + 1


def test_the_token_shown_is_the_whole_character() -> None:
    tokenizer: Any = byte_level()
    ids = encode(tokenizer, "a👩é", special=False)
    shown = Reading("d", "f", ids, [4, 6])
    assert shown.shown(tokenizer, 4) == ("d:4", "a👩", "👩")
    assert shown.shown(tokenizer, 6) == ("d:6", "a👩é", "é")


CHAT = "<bos><eos>user\nHi <pad>there, how are you?<eos>\n" * 3


def test_special_tokens_in_documents_are_letters() -> None:
    tokenizer = toy_tokenizer()
    (made,) = prepare(tokenizer, table([CHAT]), build_config(positions_per_document=90))
    assert made.ids.count(tokenizer.bos_token_id) == 1
    assert not {0, 1} & set(made.ids)
    assert made.shown(tokenizer, made.positions[-1])[1] == CHAT[: made.positions[-1]]


def test_special_tokens_are_parsed_on_request() -> None:
    """The document's own BOS is the only one, and the labeler still sees the marks."""
    tokenizer = toy_tokenizer()
    config = build_config(how="parse", positions_per_document=90)
    (made,) = prepare(tokenizer, table([CHAT]), config)
    assert made.ids[:3] == [2, 1, *encode(tokenizer, "u", special=False)]
    assert {0, 1} <= set(made.ids)
    shown = made.shown(tokenizer, made.positions[-1])[1]
    assert shown.startswith("<eos>user\nHi <pad>there")
    assert CHAT.removeprefix("<bos>").startswith(shown)


TALKS = [
    [("user", "Why is that? " * 6), ("assistant", "It is so. " * 9)],
    [("user", "And " * 20)],
    [("tool", "42"), ("assistant", "<|end|> stays text. " * 8)],
]


def talks(seed: int = 0, **activations: Any) -> tuple[pa.Table, RunConfig]:
    messages = [
        json.dumps([{"role": role, "content": content} for role, content in turns])
        for turns in TALKS
    ]
    made = table([plain_text(json.loads(one)) for one in messages])
    section = {"max_tokens": 400, "skip_first": 0, "positions_per_document": 30, **activations}
    config = parse_config({"name": "t", "seed": seed, "activations": section})
    return made.append_column("messages", pa.array(messages)), config


def test_a_conversation_is_read_where_the_assistant_speaks() -> None:
    tokenizer = chat_tokenizer(KEEPING)
    piece, config = talks()
    made = prepare(tokenizer, piece, config)
    assert [reading.doc_id for reading in made] == ["d0", "d2"]
    for reading, turns in zip(made, (TALKS[0], TALKS[2]), strict=True):
        assert len(reading.positions) == 30
        words = turns[-1][1].strip()
        for position in reading.positions:
            _, prefix, token = reading.shown(tokenizer, position)
            spoken = prefix.rsplit("<|turn>assistant\n", 1)[1]
            assert words.startswith(spoken) and spoken.endswith(token)
    assert made == prepare(tokenizer, piece, config)


def test_other_roles_of_conversations_and_texts_among_them() -> None:
    tokenizer = chat_tokenizer(KEEPING)
    piece, config = talks(roles=["user", "template"])
    piece = pa.concat_tables([piece, table(["A plain text."])], promote_options="default")
    made = prepare(tokenizer, piece, config)
    assert [reading.doc_id for reading in made] == ["d0", "d1", "d2", "d0"]
    assert made[-1].ids[0] == tokenizer.bos_token_id and not made[-1].parsed


def test_a_refused_conversation_is_not_read_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    piece, config = talks()
    tokenizer = chat_tokenizer(DROPPING)
    made = prepare(tokenizer, piece, config)
    assert [reading.doc_id for reading in made] == ["d0"]
    assert "d2 is not read" in capsys.readouterr().err
    with pytest.raises(ModelError, match="no chat template"):
        prepare(chat_tokenizer(None), piece, config)
