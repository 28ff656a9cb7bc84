"""Explaining again: which texts are drawn, which tokens are neighbours, what a word costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.metrics import centred_cosine, mean_unit
from nlakit.core.text.recurrence import Told
from nlakit.errors import DataError
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject
from nlakit.models.using.explaining import CONTROLS, Again, Others, nearby, with_costs
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, build_contract
from tests.evaluate.av_fakes import stir

TEXT = "The whale turns near 12."


@pytest.fixture
def nla(toy_subject: Callable[..., Subject], vectors: np.ndarray) -> NLA:
    """A pair of random weights that writes different texts for different vectors."""
    subject = toy_subject("gemma3")
    mean = mean_unit(vectors)
    contract = build_contract(subject, max_new_tokens=8)
    av = Verbalizer(subject, contract, mean, SMALL_LORA, 0).eval()
    stir(av)
    return NLA(subject, av, Reconstructor(subject, contract, SMALL_LORA, 0).eval(), mean)


@pytest.mark.parametrize(
    ("place", "count", "tokens", "first", "expected"),
    [
        (9, 2, 20, 1, [8, 7]),
        (2, 3, 20, 1, [1, 3, 4]),
        (0, 2, 20, 1, [1, 2]),
        (1, 2, 3, 1, [2]),
        (0, 2, 1, 0, []),
        (5, 0, 20, 1, []),
    ],
)
def test_neighbours_by_hand(
    place: int, count: int, tokens: int, first: int, expected: list[int]
) -> None:
    assert nearby(place, count, tokens, first) == expected


@given(st.integers(0, 30), st.integers(0, 5), st.integers(1, 30), st.integers(0, 1))
def test_neighbours_are_other_tokens_of_the_text(
    place: int, count: int, tokens: int, first: int
) -> None:
    place = min(place, tokens - 1)
    found = nearby(place, count, tokens, first)
    others = set(range(first, tokens)) - {place}
    assert len(found) == len(set(found)) == min(count, len(others))
    assert set(found) <= others


def test_samples_are_those_of_decoding_whatever_is_written_beside_them(
    nla: NLA, vectors: np.ndarray
) -> None:
    """Sample j of row i has the draws of row i·k + j; a neighbour has its greedy explanation."""
    assert nla.av is not None
    again = Again(samples=3, neighbours=1, seed=5)
    beside = [{7: vectors[2]}, {3: vectors[3], 2: vectors[2]}]
    found = again.tell(nla.av, vectors[:2], beside)
    how = replace(nla.av.decoding(), temperature=1.0, seed=5)
    plain = nla.av.explain(np.repeat(vectors[:2], 3, axis=0), decoding=how)
    assert found.samples == [plain[:3], plain[3:]]
    assert len(set(plain)) > 1
    greedy = nla.av.explain(vectors)
    assert found.neighbours == [{7: greedy[2]}, {3: greedy[3], 2: greedy[2]}]
    assert len(found.controls) == CONTROLS
    small = replace(again, batch=2).tell(nla.av, vectors[:2], beside)
    assert (small.samples, small.neighbours) == (found.samples, found.neighbours)


def test_controls_say_the_same_whatever_was_asked(nla: NLA, vectors: np.ndarray) -> None:
    assert nla.av is not None
    first = Again(samples=2).tell(nla.av, vectors[:1], [{}])
    known = Again(samples=2).tell(nla.av, vectors[:1], [{}], first.controls)
    assert known.samples == first.samples
    assert known.controls is first.controls
    more = Again(samples=3).tell(nla.av, vectors[:2], [{}, {}])
    assert list(more.controls) == list(first.controls)


def test_a_record_holds_the_marks_with_what_they_were_compared_with(nla: NLA) -> None:
    plain = nla.explain(TEXT, [-1, 3])
    found = nla.explain(TEXT, [-1, 3], samples=2, neighbours=2, seed=1)
    assert [one.explanation for one in found] == [one.explanation for one in plain]
    assert [one.recurrence for one in plain] == [None, None]
    tokens = len(nla.activations(TEXT)[0])
    for one, places in zip(found, ([tokens - 2, tokens - 3], [2, 1]), strict=True):
        told = one.recurrence
        assert told is not None
        assert (len(told.samples), told.neighbour_positions) == (2, places)
        expected = [item.explanation for item in nla.explain(TEXT, places)]
        assert told.neighbours == expected
        for mark in told.marks:
            assert one.explanation[mark.start : mark.end] == mark.text
            assert mark.cost is not None
    assert nla.explain(TEXT, [-1, 3], samples=2, neighbours=2, seed=1) == found
    assert nla.explain(TEXT, [], samples=2) == []


def test_vectors_have_samples_and_no_neighbours(nla: NLA, vectors: np.ndarray) -> None:
    [one] = nla.explain(vectors[0], samples=2)
    assert one.recurrence is not None
    assert (len(one.recurrence.samples), one.recurrence.neighbours) == (2, [])
    with pytest.raises(DataError, match="no neighbouring tokens"):
        nla.explain(vectors[0], neighbours=1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"samples": -1}, "samples cannot be negative"),
        ({"neighbours": -2}, "neighbours cannot be negative"),
        ({"samples": 2, "temperature": 0.0}, "samples at temperature 0"),
    ],
)
def test_what_makes_no_sense_is_refused(nla: NLA, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        nla.explain(TEXT, **asked)


def test_without_an_ar_a_word_has_no_cost(nla: NLA) -> None:
    half = NLA(nla.subject, nla.av, None, nla.mean)
    [one] = half.explain(TEXT, samples=1)
    assert one.recurrence is not None
    assert {mark.cost for mark in one.recurrence.marks} <= {None}


def test_the_cost_of_a_word_is_the_score_with_it_less_the_score_without() -> None:
    """A reader of two words: `ship` is the vector, `oak` is beside it."""
    mean, real = np.zeros(2), np.array([[1.0, 0.0], [0.0, 1.0]])

    def read(texts: Sequence[str]) -> np.ndarray:
        return np.array([[2.0 * ("ship" in text) + 0.1, "oak" in text] for text in texts])

    texts = ["A ship, oak.", "An oak."]
    others = Others([["Ship."], ["Elm."]], [{}, {}], [Told.of("")])
    found = Again(1).recurrences(texts, others)
    ship, oak = with_costs(found, texts, real, read, mean)[0].marks
    whole, without = centred_cosine(np.repeat(real[:1], 2, axis=0), read(["ship oak", "oak"]), mean)
    assert ship.cost == pytest.approx(whole - without)
    assert ship.cost > 0 > oak.cost  # type: ignore[operator]
    assert (ship.samples, oak.samples) == (1.0, 0.0)
