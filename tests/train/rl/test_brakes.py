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


def moved(
    start: float, now: float, mean: float, low: float, high: float, documents: int = 20
) -> Change:
    return Change(start, now, mean, low, high, documents)


def steady(**given: Change) -> dict[str, Change | None]:
    same = moved(0.8, 0.8, 0.0, -0.02, 0.02)
    return {**dict.fromkeys((*CONTENT, "fve", "frozen_fve"), same), **given}


def test_a_private_code_is_named() -> None:
    live, frozen = moved(0.3, 0.5, 0.2, 0.1, 0.3), moved(0.3, 0.2, -0.1, -0.15, -0.05)
    found = held_out(steady(fve=live, frozen_fve=frozen), LIMITS)
    assert found is not None and found.name == "private code"
    assert "0.300 -> 0.500" in found.evidence and "0.300 -> 0.200" in found.evidence
    assert held_out(steady(fve=live), LIMITS) is None


@pytest.mark.parametrize("measure", [name for name in CONTENT if name != "unique"])
def test_content_that_falls_is_named(measure: str) -> None:
    gone = moved(0.8, 0.5, -0.3, -0.4, -0.2)
    found = held_out(steady(**{measure: gone}), LIMITS)
    assert found is not None and found.name == measure.replace("_", " ")
    unsure = moved(0.8, 0.5, -0.3, -0.7, 0.1)
    assert held_out(steady(**{measure: unsure}), LIMITS) is None
    slight = moved(0.8, 0.75, -0.05, -0.07, -0.03)  # surely, but not by much
    assert held_out(steady(**{measure: slight}), LIMITS) is None
    assert fallen(steady(**{measure: slight})) == [measure]  # such a pair is not kept


def test_texts_that_become_alike_are_named() -> None:
    found = held_out(steady(unique=moved(1.0, 0.5, -0.5, -0.6, -0.4)), LIMITS)
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


def test_few_documents_that_change_alike_say_nothing() -> None:
    """Their interval has no width: 1 of 8 pairs of documents falls so by chance."""
    start, now = {"words": np.ones(4)}, {"words": np.zeros(4)}
    found = change("words", start, now, ["a", "a", "b", "b"])
    assert found is not None and found.high == -1 and found.documents == 2
    assert held_out(steady(within_family=found), LIMITS) is None
    many = [f"d{i}" for i in range(8)]
    found = change("words", {"words": np.ones(8)}, {"words": np.zeros(8)}, many)
    assert found is not None
    brake = held_out(steady(within_family=found), LIMITS)
    assert brake is not None and brake.name == "within family"


def test_a_pair_that_stays_as_it_is_goes_on_through_many_measurements() -> None:
    """0/1 values that are drawn anew at each of 20 looks: an interval for one look would stop most
    runs, that for all of them stops next to none."""
    rng = np.random.default_rng(0)
    names = [f"d{i}" for i in range(64)]
    stopped = {1: 0, 20: 0}
    for _ in range(40):
        start = {"within_family": rng.integers(0, 2, 64).astype(float)}
        looks = [{"within_family": rng.integers(0, 2, 64).astype(float)} for _ in range(20)]
        for count in stopped:
            found = [change("within_family", start, now, names, count) for now in looks]
            stopped[count] += any(
                held_out(steady(within_family=one), LIMITS) for one in found if one
            )
    assert stopped[20] <= 1 and stopped[1] >= 3, stopped


def test_a_text_that_claims_nothing_more_has_lost_its_claims() -> None:
    names = [f"d{i}" for i in range(9)]
    start = {"claim_precision": np.array([0.5] * 8 + [np.nan])}
    found = change("claim_precision", start, {"claim_precision": np.full(9, np.nan)}, names)
    assert found is not None and (found.now, found.mean) == (0.0, -0.5)
    brake = held_out(steady(claim_precision=found), LIMITS)
    assert brake is not None and brake.name == "claim precision"
