"""The offline labeler and what the label stage refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlakit.core.text.lint import Limits
from nlakit.core.text.stats import longest_copied_run, words
from nlakit.data.labels.label import check_duplicates, checked
from nlakit.data.labels.labeler import Label, LabelRequest
from nlakit.data.labels.offline import Background, OfflineLabeler, distinct, spell, split_last
from nlakit.errors import DataError

WHALE = (
    "Call me Ishmael. Some years ago, having little or no money in my purse, I thought I would "
    "sail about a little. The whale was not seen by the harpooner, but the captain said that"
)
EXPECTED = ((" the", 0.4), (" he", 0.2), (",", 0.1), ("ing", 0.05), ("\n", 0.02))


def build_labeler() -> OfflineLabeler:
    others = ["the tax on tea was raised", "a little money", "The captain's money", "Ishmael"]
    return OfflineLabeler(Background([WHALE, *others, "a whale", "A Whale", "seen by Ishmael"]))


def label(text: str, expected: tuple[tuple[str, float], ...] = EXPECTED) -> Label:
    return build_labeler().label([LabelRequest("r", text, text[-1:], expected)])[0]


def test_a_label_says_the_certain_first_and_quotes_one_word() -> None:
    text = label(WHALE).explanation
    assert text is not None
    first, second, third = text.split(". ")
    assert first == "Prose that stops at “that”; likely next: the, he, a comma or -ing"
    assert second == "It denies something of whale"  # the clause's one word that documents share
    assert third == "The passage is about money, Ishmael, little and captain."


def test_the_end_of_a_line_and_a_broken_word_are_named() -> None:
    assert "stops at “purse”, at the end of a line;" in str(
        label("money in my purse\n").explanation
    )
    broken = label("money in my pur", (("se", 0.9),)).explanation
    assert "breaks off inside “pur”; surely next: -se." in str(broken)


def test_next_words_are_named_once_and_only_where_they_are_likely() -> None:
    expected = ((" The", 0.5), (" the", 0.2), (" he", 0.1), (" she", 0.04))
    assert "likely next: The or he." in str(label(WHALE, expected).explanation)
    assert "perhaps next: she." in str(label(WHALE, ((" she", 0.04), (" it", 0.03))).explanation)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(WHALE.split()), min_size=8, max_size=80))
def test_at_most_four_source_words_in_a_row(found: list[str]) -> None:
    source = " ".join(found)
    made = label(source)
    assert made.explanation is not None
    assert longest_copied_run(made.explanation, source) <= 4
    assert len(words(made.explanation)) >= 6


@given(st.lists(st.sampled_from(["files", "file", "filed", "x1", "the", "ab", "whale", "Whales"])))
def test_no_stem_is_said_twice(found: list[str]) -> None:
    picked = distinct(found, ["sailing"], 3)
    assert len({word[:5] for word in picked}) == len(picked) <= 3
    assert not {"x1", "the", "ab"} & set(picked)
    assert distinct(["sailor", "boats"], ["sailors"], 3) == ["boats"]


def test_labels_do_not_depend_on_their_chunk() -> None:
    labeler = build_labeler()
    requests = [LabelRequest(f"r{i}", WHALE[: 60 + 9 * i], "x", EXPECTED) for i in range(8)]
    apart = [labeler.label([request])[0] for request in requests]
    assert labeler.label(requests) == apart
    assert len({one.explanation for one in apart}) == 8


def test_next_tokens_in_words() -> None:
    said = (" the", "ing", ",", "\n", "  ", " (", "\ufffd", "\x07")
    assert [spell(token, inside=True) for token in said] == [
        "the", "-ing", "a comma", "a line break", "a gap", "a bracket",
        "part of a character", "part of a character",
    ]  # fmt: skip
    marks = (".", ").", '."', ">>>", "--", "*}")
    assert [spell(mark, inside=True) for mark in marks] == [
        "a full stop", "a closing bracket and a full stop", "a full stop and a quote",
        "a greater-than sign and more marks", "a dash", "an asterisk and a closing brace",
    ]  # fmt: skip
    assert spell("The", inside=False) == "The"  # at the start of a line


def test_the_last_word_is_bounded() -> None:
    assert split_last("one two three,\n") == ("one two ", "three,\n")
    assert split_last("") == ("", "")
    assert len(split_last("x" * 500)[1]) == 24
    assert split_last("so " + "=" * 80)[1] == "=" * 24


def test_planted_mode_7_short_labels_are_refused() -> None:
    requests = [LabelRequest(str(i), WHALE, "x") for i in range(4)]
    found = [
        Label("0", "End of text first."),
        Label("1", "   "),
        Label("2", None, "copies_source"),
        Label("3", "A label that has more than enough words."),
    ]
    kept = checked(found, requests, Limits())
    assert [one.reason for one in kept] == ["too_short", "empty", "copies_source", None]
    assert [one.explanation is None for one in kept] == [True, True, True, False]


def test_lost_rows_are_an_error() -> None:
    with pytest.raises(DataError, match="other rows"):
        checked([], [LabelRequest("0", WHALE, "x")], Limits())


def test_duplicates_beyond_a_share_are_refused() -> None:
    with pytest.raises(DataError, match="90.0% duplicates, 10 x 'same'"):
        check_duplicates(["same"] * 10, 0.05)
    assert check_duplicates(["a", "b", "c", "c"], 0.25) == 0.25
