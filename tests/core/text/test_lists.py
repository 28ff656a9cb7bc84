"""List items by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text.lists import list_items, movable_items, repeated_items


def test_items_by_hand() -> None:
    text = "Prose that stops at “of”; likely next: the, The or a. It speaks of tax and old tea."
    assert list_items(text) == [["the", "the", "a"], ["of tax", "old tea"]]
    assert list_items("No list here. None") == []


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("It is about library, library and library.", 2 / 3),
        ("It is about a library, and a boat.", 0.0),
        ("On tea and tax. On tax and tea.", 0.0),  # each list for itself
        ("next: of, of, that or of.", 0.5),
    ],
)
def test_shares_by_hand(text: str, share: float) -> None:
    assert repeated_items(text) == pytest.approx(share)


def test_without_a_list_there_is_no_share() -> None:
    assert math.isnan(repeated_items("One plain sentence."))


@given(st.lists(st.sampled_from(["owl", "elm", "oak", "ash"]), min_size=2, max_size=9))
def test_a_list_of_single_words_is_counted_exactly(items: list[str]) -> None:
    text = f"It names {', '.join(items[:-1])} and {items[-1]}."
    assert repeated_items(text) == pytest.approx(1 - len(set(items)) / len(items))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("It speaks of metal, type and old tea.", ["metal", "type", "old tea"]),
        ("likely next: the, a comma, and or -th.", ["the", "a comma", "and", "-th"]),
        ("next: a bracket and more marks, is or A.", ["a bracket and more marks", "is", "A"]),
        ("It names Ann, Bob, or Cy, who left", ["Ann", "Bob", "Cy"]),
        ("Talk of the dog or a cat in the house", ["the dog", "a cat"]),
    ],
)
def test_items_that_may_change_places(text: str, items: list[str]) -> None:
    [found] = movable_items(text)
    assert [text[start:end] for start, end in found] == items


@pytest.mark.parametrize(
    "text",
    [
        "Cats and dogs run.",  # where the first begins is not known
        "It tells of rain and John left.",
        "It speaks of rain, and he left.",
        "About 1,000 and 3.5",
        "Talk of “a and b” and “c”",
        "He said: come to us, eat with us and go.",
        "It is about tea.",
    ],
)
def test_lists_that_are_none_or_whose_ends_are_unknown_stay(text: str) -> None:
    assert not list(movable_items(text))


def test_a_text_of_nothing_but_words_and_commas_takes_no_time() -> None:
    assert not list(movable_items("of " + "word " * 20_000))
    assert not list(movable_items(": " + "word, " * 20_000))
