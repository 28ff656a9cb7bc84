"""Ends of characters under tokenizers of each kind, against the bytes of the text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from nlakit.core.prompts import encode
from nlakit.core.text.characters import character_ends, cut_whole, last_tokens
from nlakit.core.text.transforms import first_tokens
from nlakit.evaluate.conditions import last_source_tokens
from nlakit.models.gguf import embedded_model
from tests.tokenizers import SlowBytes, byte_level, with_dummy_space

SAMPLES = ["a👩‍🚀é!", "שלום עולם", "السَّلام عليكم", "祝㊗日本 の", "𓀀𓀁a", "ﷺ", "plain text"]
TEXTS = st.one_of(
    st.text(st.sampled_from("ab .é日㊗👩\u200d🚀ש𓀀\n"), max_size=24),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=12),
)
KINDS = {
    "bytes": byte_level("日", " ㊗", "é"),
    "fallback": with_dummy_space("日", "é"),
    "slow": SlowBytes(),
}


@pytest.fixture(scope="module")
def gemma() -> Any:
    return AutoTokenizer.from_pretrained(embedded_model())


def check(tokenizer: Any, text: str) -> None:
    """At each end the tokens so far are a beginning of the text; every character has an end."""
    ids = encode(tokenizer, text, special=False)
    ends = character_ends(tokenizer, ids)
    begun = [tokenizer.decode(ids[: end + 1]) for end in ends]
    whole = tokenizer.decode(ids)
    assert all(whole.startswith(one) for one in begun)
    assert sorted(set(range(len(ids))) - set(ends)) == [
        p for p in range(len(ids)) if not whole.startswith(tokenizer.decode(ids[: p + 1]))
    ]
    assert all("\ufffd" not in last_tokens(tokenizer, ids[: end + 1]) for end in ends)
    assert (ends[-1:] == [len(ids) - 1]) or not ids


@settings(max_examples=60, deadline=None)
@given(TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_ends_are_where_the_decoded_text_goes_on_unbroken(kind: str, text: str) -> None:
    check(KINDS[kind], text)


@pytest.mark.parametrize("text", SAMPLES)
def test_ends_under_gemmas_byte_fallback(gemma: Any, text: str) -> None:
    check(gemma, text)


def test_a_character_of_four_tokens_ends_with_the_last(gemma: Any) -> None:
    ids = encode(gemma, "𓀀𓀁a", special=False)
    assert len(ids) == 9
    assert character_ends(gemma, ids) == [3, 7, 8]
    assert [last_tokens(gemma, ids[: p + 1]) for p in (3, 7, 8)] == ["𓀀", "𓀁", "a"]
    assert last_tokens(gemma, ids[:2]) == "\ufffd"


@pytest.mark.parametrize("kind", KINDS)
def test_every_position_of_ascii_is_an_end(kind: str) -> None:
    ids = encode(KINDS[kind], "plain  text,\n1 2", special=False)
    assert character_ends(KINDS[kind], ids) == list(range(len(ids)))


def test_parts_of_texts_hold_whole_characters() -> None:
    tokenizer = byte_level()
    assert first_tokens(tokenizer, "ab👩🚀", 9) == "ab👩"
    assert first_tokens(tokenizer, "👩", 2) == ""
    assert last_source_tokens(tokenizer, ["ab👩🚀", "ab", None], 1) == ["🚀", "b", None]


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 12))
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_text_ends_in_a_whole_character(kind: str, text: str, count: int) -> None:
    tokenizer = KINDS[kind]
    ids = encode(tokenizer, text, special=False)
    kept = cut_whole(tokenizer, ids, count)
    assert kept == ids[: len(kept)] and len(kept) <= count
    assert tokenizer.decode(ids).startswith(tokenizer.decode(kept))
    whole = [end + 1 for end in character_ends(tokenizer, ids) if end < count]
    assert len(kept) == (whole[-1] if whole else 0)


def test_planted_cut_inside_a_character() -> None:
    """日 is one token here, ש two bytes: three tokens of "a日שש" end inside the first ש."""
    tokenizer = KINDS["bytes"]
    ids = encode(tokenizer, "a日שש", special=False)
    assert len(ids) == 6
    assert [tokenizer.decode(cut_whole(tokenizer, ids, n)) for n in range(7)] == [
        "", "a", "a日", "a日", "a日ש", "a日ש", "a日שש",
    ]  # fmt: skip
    assert "\ufffd" in tokenizer.decode(ids[:3])
