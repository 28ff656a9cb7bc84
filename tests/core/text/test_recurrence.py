"""Marks by hand, and what holds of all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text.recurrence import Marked, Told, marks, mentions, stems_in, without_span

TEXT = (
    "A passage that stops at “the old ship”; likely next: sailed, the or Boston. "
    "It speaks of cargo, salted beef and 1,842. In it Captain John Smith writes."
)


def of(kind: str, text: str = TEXT) -> list[str]:
    return [text[one.start : one.end] for one in mentions(text) if one.kind == kind]


def test_kinds_by_hand() -> None:
    assert of("quote") == ["old ship", "old", "ship"]
    assert of("next") == ["sailed", "Boston"]
    assert of("item") == ["cargo", "salted beef", "salted", "beef"]
    assert of("number") == ["1,842"]
    assert of("name") == ["Captain John Smith", "Captain", "John", "Smith"]
    assert of("word") == ["passage", "stops", "likely", "speaks", "writes"]


def test_stems_and_phrases_by_hand() -> None:
    found = {TEXT[one.start : one.end]: one for one in mentions(TEXT)}
    assert found["old ship"].stems == ("old", "ship")
    assert found["old ship"].phrase
    assert found["1,842"].stems == ("1842",)
    assert found["writes"].stems == ("write",)
    assert not found["writes"].phrase


@pytest.mark.parametrize("text", ["", "It is of the.", "“”", "It's a to; don't.", "next: a, the."])
def test_where_nothing_is_said_there_are_no_mentions(text: str) -> None:
    assert mentions(text) == []


def test_a_word_of_another_script_may_be_short() -> None:
    assert [one.stems for one in mentions("It is 天 or дом.")] == [("天",), ("дом",)]


def test_shares_by_hand() -> None:
    """ship: in 2 of 4 samples and 1 of 2 neighbours, so 3 of 6; passage: in 1 of 2 controls."""
    samples = ["Ships and tax.", "The shipping of tax.", "A tree.", "One ship."]
    neighbours = ["An old ship.", "An oak."]
    controls = [Told.of("A passage on bees."), Told.of("A letter.")]
    found = {one.text: one for one in marks("A passage on a ship.", samples, neighbours, controls)}
    assert found["ship"] == Marked(
        15, 19, "ship", "word", False, samples=3 / 4, neighbours=1 / 2, together=4 / 6, chance=0.0,
        level="again",
    )  # fmt: skip
    assert found["passage"].kind == "frame"
    assert (found["passage"].together, found["passage"].chance) == (0.0, 0.5)
    assert found["passage"].level is None


@pytest.mark.parametrize(
    ("repeats", "level"), [(0, "alone"), (1, None), (2, "again"), (4, "again")]
)
def test_levels_by_hand(repeats: int, level: str | None) -> None:
    texts = ["A ship."] * repeats + ["An oak."] * (4 - repeats)
    assert [one.level for one in marks("A ship.", texts)] == [level]
    assert {one.level for one in marks("Next: “old ship”.", texts)} == {None}


def test_a_phrase_recurs_where_all_its_words_do() -> None:
    one, *words = marks("“old ship”", ["A ship of old oak.", "An old tree.", "The ship.", ""])
    assert (one.text, one.phrase, one.samples) == ("old ship", True, 1 / 4)
    assert [word.samples for word in words] == [2 / 4, 2 / 4]


def test_a_prediction_recurs_among_predictions_alone() -> None:
    text = "A ship; next: sails."
    said, predicted = marks(text, ["Sails of a ship; next: the."])
    assert (said.text, said.samples) == ("ship", 1.0)
    assert (predicted.text, predicted.kind, predicted.samples) == ("sails", "next", 0.0)
    [_, predicted] = marks(text, ["Sails of a ship; next: sail."], controls=[Told.of(text)])
    assert (predicted.kind, predicted.samples, predicted.chance) == ("next", 1.0, 1.0)


def test_without_other_texts_nothing_is_said_of_recurrence() -> None:
    [one] = marks("A ship.", [])
    assert (one.samples, one.neighbours, one.together, one.chance) == (None,) * 4


def test_a_source_is_looked_up_by_stems() -> None:
    assert stems_in("The ships of 1,842 were building.") == {"ship", "1842", "build"}


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("cargo", "It speaks of salt and “beef, ale”."),
        ("beef", "It speaks of cargo, salt and ale”."),
        ("beef, ale", "It speaks of cargo, salt and"),
        ("It", "speaks of cargo, salt and “beef, ale”."),
    ],
)
def test_a_word_is_cut_with_the_marks_that_it_touches(word: str, left: str) -> None:
    text = "It speaks of cargo, salt and “beef, ale”."
    start = text.index(word)
    assert without_span(text, start, start + len(word)) == left
    assert without_span("ship", 0, 4) == ""


PIECES = [*"abeinst AS .,;:“”\"'1230", "next: ", " and ", "ship", "Next to", " John"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@given(TEXTS)
def test_spans_are_of_the_text_and_a_text_repeats_itself(text: str) -> None:
    found = marks(text, [text], [text, ""])
    for one in found:
        assert one.text == text[one.start : one.end] != ""
        assert one.samples == 1.0
        assert one.neighbours == 1 / 2
        assert one.together == 2 / 3
    starts = [one.start for one in found]
    assert starts == sorted(starts)
    words = [one for one in found if not one.phrase]
    ends = [one.end for one in words]
    assert all(a <= b.start for a, b in zip(ends, words[1:], strict=False))
    assert {one.stems[0] for one in mentions(text) if not one.phrase} <= stems_in(text)


@given(TEXTS, st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=3))
def test_together_lies_between_its_parts_and_order_does_not_count(
    text: str, samples: list[str], neighbours: list[str]
) -> None:
    found = marks(text, samples, neighbours)
    assert found == marks(text, samples[::-1], neighbours[::-1])
    for one in found:
        known = [v for v in (one.samples, one.neighbours) if v is not None]
        if not known:
            assert one.together is None
            continue
        assert one.together is not None
        assert min(known) - 1e-12 <= one.together <= max(known) + 1e-12
        assert 0 <= one.together <= 1


@given(TEXTS, st.integers(0, 80), st.integers(0, 20))
def test_a_cut_leaves_a_part_of_the_text(text: str, start: int, more: int) -> None:
    start = min(start, len(text))
    left = without_span(text, start, min(start + more, len(text)))
    assert set(left.split()) <= set(text.split())
    assert len(left) <= len(text)
