"""Stems by hand; most pairs are the examples of Porter's paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text.stems import stem


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *zip(
            "caresses ponies ties caress cats feed agreed plastered bled motoring sing".split(),
            "caress poni ti caress cat feed agre plaster bled motor sing".split(),
            strict=True,
        ),
        *zip(
            "hopping tanned falling hissing fizzed failing filing happy sky rate cease".split(),
            "hop tan fall hiss fizz fail file happi sky rate ceas".split(),
            strict=True,
        ),
        ("Halifax's", "halifax"),
        ("x3", "x3"),
        ("Straße", "strass"),
        ("паруса", "паруса"),
        ("as", "as"),
    ],
)
def test_stems_by_hand(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize(
    "family",
    ["library libraries", "build builds building Build", "serve serves served serving",
     "conflate conflated conflating", "duty duties", "run runs running"],
)  # fmt: skip
def test_forms_of_a_word_have_one_stem(family: str) -> None:
    assert len(set(map(stem, family.split()))) == 1


@pytest.mark.parametrize("pair", ["nation national", "sing singer", "bus business", "new news's"])
def test_other_words_are_other_words(pair: str) -> None:
    left, right = pair.split()
    assert (stem(left) == stem(right)) is (pair == "new news's")


@given(st.text(alphabet="abcdeginrsty", min_size=1, max_size=12))
def test_a_stem_is_no_longer_than_its_word_and_never_empty(word: str) -> None:
    assert 0 < len(stem(word)) <= len(word) + 1  # filing: file
    assert stem(word.upper()) == stem(word)
