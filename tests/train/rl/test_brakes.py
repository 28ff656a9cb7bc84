"""Each way to go wrong is stopped under its own name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit.config.rl import BrakesConfig
from nlakit.train.rl.brakes import drawn_texts, fallen, held_out
from nlakit.train.rl.instruments import CONTENT, Change, change

LIMITS = BrakesConfig()


def record(**given: Any) -> dict[str, Any]:
    return {"skipped": False, "entropy": 2.0, "truncated": 0.02} | given


def test_healthy_texts_go_on() -> None:
    assert drawn_texts([record()] * 30, LIMITS) is None


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"entropy": 3.5}, "entropy up"),
        ({"entropy": 0.3}, "entropy down"),
        ({"truncated": 0.6}, "length"),
    ],
)
def test_drawn_texts_that_go_wrong_are_named(fault: dict[str, float], name: str) -> None:
    found = drawn_texts([record(), *[record(**fault)] * 10], LIMITS)
    assert found is not None and found.name == name
    assert drawn_texts([record(), *[record(**fault)] * 4], LIMITS) is None  # too few to say


def steady(**given: Change) -> dict[str, Change | None]:
    same = Change(0.8, 0.8, 0.0, -0.02, 0.02)
    return {**dict.fromkeys((*CONTENT, "fve", "frozen_fve"), same), **given}


def test_a_private_code_is_named() -> None:
    live, frozen = Change(0.3, 0.5, 0.2, 0.1, 0.3), Change(0.3, 0.2, -0.1, -0.15, -0.05)
    found = held_out(steady(fve=live, frozen_fve=frozen), LIMITS)
    assert found is not None and found.name == "private code"
    assert "0.300 -> 0.500" in found.evidence and "0.300 -> 0.200" in found.evidence
    assert held_out(steady(fve=live), LIMITS) is None


@pytest.mark.parametrize("measure", [name for name in CONTENT if name != "unique"])
def test_content_that_falls_is_named(measure: str) -> None:
    gone = Change(0.8, 0.5, -0.3, -0.4, -0.2)
    found = held_out(steady(**{measure: gone}), LIMITS)
    assert found is not None and found.name == measure.replace("_", " ")
    unsure = Change(0.8, 0.5, -0.3, -0.7, 0.1)
    assert held_out(steady(**{measure: unsure}), LIMITS) is None
    slight = Change(0.8, 0.75, -0.05, -0.07, -0.03)  # surely, but not by much
    assert held_out(steady(**{measure: slight}), LIMITS) is None
    assert fallen(steady(**{measure: slight})) == [measure]  # such a pair is not kept


def test_texts_that_become_alike_are_named() -> None:
    found = held_out(steady(unique=Change(1.0, 0.5, -0.5, -0.6, -0.4)), LIMITS)
    assert found is not None and found.name == "alike"


def test_a_change_pairs_rows_and_draws_documents() -> None:
    start = {"words": np.array([1.0, 2.0, 3.0, np.nan])}
    now = {"words": np.array([2.0, 3.0, 5.0, 1.0])}
    found = change("words", start, now, ["a", "a", "b", "b"])
    assert found is not None
    assert (found.start, found.now) == (2.0, pytest.approx(10 / 3))
    assert found.mean == pytest.approx(4 / 3)
    assert change("words", {"words": np.array([np.nan])}, {"words": np.array([1.0])}, ["a"]) is None


def test_what_is_kept_is_a_ratio_of_sums() -> None:
    whole = np.array([0.2, 0.6, 0.4])
    rows = {"centred": whole, "shuffle_centred": whole * 0.5}
    better = {"centred": whole, "shuffle_centred": whole * 0.75}
    found = change("shuffle_kept", rows, better, ["a", "b", "c"])
    assert found is not None
    assert found.start == pytest.approx(0.5) and found.now == pytest.approx(0.75)
    assert found.mean == pytest.approx(0.25)
