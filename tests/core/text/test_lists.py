"""List items by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text.lists import list_items, repeated_items


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
