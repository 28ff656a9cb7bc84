"""Two explanations a row, compared blind and in both orders."""

from __future__ import annotations

from typing import Any

import numpy as np

from nlakit.evaluate.judged.pairwise import compare
from tests.evaluate.benches import Scripted

SOURCES = ["s0", "s1", "s2", "s3"]
FIRST = ["good one", "bad two", "same", "odd four"]
SECOND = ["bad one", "good two", "same ", "odd five"]


def honest(_: str, prompt: str) -> Any:
    a, b = prompt.split("Explanation A:")[1].split("Explanation B:")
    better = "A" if "good" in a else "B" if "good" in b else "tie"
    return {"reasons": "", "better": better}


def test_an_honest_judge_finds_the_better_one_wherever_it_stands() -> None:
    judge = Scripted(honest)
    part = compare(SOURCES, FIRST, SECOND, judge)
    assert part.of("preference", "first_over_second").tolist() == [1, -1, 0, 0]
    assert part.of("consistent", "first_over_second")[[0, 1, 3]].tolist() == [1, 1, 1]
    assert len(judge.asked) == 6  # equal texts are not asked for
    assert part.detail["equal_texts"] == 1
    assert part.detail["answered_A"] == 2


def test_swapping_the_sides_swaps_the_sign() -> None:
    straight, swapped = (
        compare(SOURCES, one, other, Scripted(honest)).of("preference", "first_over_second")
        for one, other in ((FIRST, SECOND), (SECOND, FIRST))
    )
    assert (straight == -swapped).all()


def test_planted_a_judge_that_always_says_a_yields_only_ties() -> None:
    part = compare(SOURCES, FIRST, SECOND, Scripted(lambda *_: {"reasons": "", "better": "A"}))
    assert part.of("preference", "first_over_second").tolist() == [0, 0, 0, 0]
    assert part.detail["inconsistent"] == 3
    assert part.detail["ties"] == 4
    assert "the text shown first was preferred in 6 of 6 answers" in part.notes


def test_planted_failures_are_counted_and_not_ties() -> None:
    part = compare(
        SOURCES, FIRST, SECOND,
        Scripted(lambda form, prompt: None if "s0" in prompt else honest(form, prompt)),
    )  # fmt: skip
    found = part.of("preference", "first_over_second")
    assert np.isnan(found).tolist() == [True, False, False, False]
    assert part.detail["failed"] == 1
    assert part.detail["ties"] == 2
    assert "the judge failed on 1 rows; they are not scored" in part.notes
