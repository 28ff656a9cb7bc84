"""The offline labeler and what the label stage refuses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlakit.core.text.lint import Limits
from nlakit.core.text.stats import longest_copied_run, words
from nlakit.data.labels.label import check_duplicates, checked
from nlakit.data.labels.labeler import Label, LabelRequest
from nlakit.data.labels.offline import Background, OfflineLabeler, spell, split_tail
from nlakit.errors import DataError

WHALE = (
    "Call me Ishmael. Some years ago, having little or no money in my purse, I thought I would "
    "sail about a little. The whale was not seen by the harpooner, but the captain said that"
)
EXPECTED = ((" the", 0.4), (" he", 0.2), (",", 0.1), ("ing", 0.05), ("\n", 0.02))


def build_labeler() -> OfflineLabeler:
    return OfflineLabeler(Background([WHALE, "the tax on tea was raised", "a little money"]))


def label(text: str, expected: tuple[tuple[str, float], ...] = EXPECTED) -> Label:
    return build_labeler().label([LabelRequest("r", text, text[-1:], expected)])[0]


def test_features_of_a_label() -> None:
    text = label(WHALE).explanation
    assert text is not None
    assert "harpooner" in text  # what the clause names
    assert "It denies something about" in text  # what the clause does
    assert text.endswith(
        "It stops at “the captain said that”; likely next: the, he, a comma, -ing or a line break."
    )


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(WHALE.split()), min_size=8, max_size=80))
def test_at_most_four_source_words_in_a_row(found: list[str]) -> None:
    source = " ".join(found)
    made = label(source)
    assert made.explanation is not None
    assert longest_copied_run(made.explanation, source) <= 4
    assert len(words(made.explanation)) >= 6


def test_labels_do_not_depend_on_their_chunk() -> None:
    labeler = build_labeler()
    requests = [LabelRequest(f"r{i}", WHALE[: 60 + 9 * i], "x", EXPECTED) for i in range(8)]
    apart = [labeler.label([request])[0] for request in requests]
    assert labeler.label(requests) == apart
    assert len({one.explanation for one in apart}) == 8


def test_next_tokens_in_words() -> None:
    assert [spell(t) for t in (" the", "ing", ",", "\n", "  ", " (", "\ufffd", "\x07")] == [
        "the", "-ing", "a comma", "a line break", "a gap", "a bracket",
        "part of a character", "part of a character",
    ]  # fmt: skip


def test_tail_is_bounded() -> None:
    head, tail = split_tail("one two three four five six", 4)
    assert (head, tail) == ("one two ", "three four five six")
    assert len(split_tail("x" * 500, 4)[1]) == 60


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
