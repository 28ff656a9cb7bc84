"""Words exchanged in an explanation, and the tokens by which an edit is heard."""

from __future__ import annotations

import pytest

from nlakit.core.text.edits import edited_in, exchanged, first_token, parse_edits, telling_words
from nlakit.errors import DataError
from tests.conftest import toy_tokenizer


def test_whole_words_are_exchanged_in_any_case() -> None:
    text = "Code about self, selfname and Self. It says self."
    wanted = "Code about trains, selfname and trains. It says trains."
    assert exchanged(text, {"self": "trains"}) == wanted
    assert exchanged("the $5 bill", {"$5": r"\1"}) == r"the \1 bill"
    assert exchanged("a b", {"a": "c", "c": "d"}) == "d b"


@pytest.mark.parametrize("old", ["whales", "whal", "", " "])
def test_a_word_that_is_not_there_is_refused(old: str) -> None:
    with pytest.raises(DataError, match="does not have"):
        exchanged("A whale waits.", {old: "x"})


def test_words_that_came_in() -> None:
    assert edited_in("A passage on God.", "A passage on trains and the god of Trains") == ["trains"]
    assert edited_in("next: the.", "next: she or he.") == ["she", "or", "he"]  # no content word
    assert edited_in("Same words.", "words same") == []


def test_a_word_begins_with_its_first_visible_token() -> None:
    tokenizer = toy_tokenizer()  # a token a letter
    assert tokenizer.decode([first_token(tokenizer, "whale")]) == "w"


def test_words_that_begin_alike_tell_nothing() -> None:
    tokenizer = toy_tokenizer()
    found = telling_words(tokenizer, "It rains.", "It rings zebras zoos, kites")
    assert list(found) == ["zebras", "kites"]  # r is of rains, zoos begin like zebras
    assert [tokenizer.decode([token]) for token in found.values()] == ["z", "k"]


def test_edits_of_a_command_line() -> None:
    assert parse_edits(["whale=ledger", "a = b=c"]) == {"whale": "ledger", "a": "b=c"}
    assert parse_edits(["whale="]) == {"whale": ""}
    for wrong in ("whale", "=x", ""):
        with pytest.raises(DataError, match="old=new"):
            parse_edits([wrong])
