"""Comparisons: paired where the rows are the same, and said so where they are not; Holm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nlakit.core.statistics import cluster_error
from nlakit.errors import DataError
from nlakit.evaluate.bench import Measured, Part
from nlakit.evaluate.compare import PAIRED, SUMMARISED, UNPAIRED, Side, best_step, claims, compare
from nlakit.evaluate.findings import findings

KEY = ("roundtrip", "score", "real")
DOCUMENTS = [f"d{i // 2}" for i in range(40)]


def side(name: str, real: Any, rows: str = "r", values: bool = True) -> Side:
    """A side with one measure and its floor at zero."""
    ids = [f"{rows}{i}" for i in range(len(DOCUMENTS))]
    part = Part("roundtrip")
    part.measured.append(Measured("score", "real", np.asarray(real, dtype=float), "empty"))
    part.measured.append(Measured("score", "empty", np.zeros(len(ids))))
    kept = {
        ("roundtrip", "score", one.condition): dict(zip(ids, one.values.tolist(), strict=True))
        for one in part.measured
    }
    found = findings([part], DOCUMENTS)
    documents = dict(zip(ids, DOCUMENTS, strict=True))
    return Side(name, found, kept if values else {}, documents if values else {})


def noise(seed: int, scale: float = 1.0) -> Any:
    return np.random.default_rng(seed).normal(scale=scale, size=len(DOCUMENTS))


def test_the_same_rows_are_paired_and_a_known_difference_is_found() -> None:
    shared = noise(0)
    (found,) = compare([side("a", shared), side("b", shared + 0.5 + noise(1, 0.01))])
    assert found["method"] == PAIRED
    assert found["difference"] == pytest.approx(0.5, abs=0.01)
    assert found["low"] < found["difference"] < found["high"]
    assert found["high"] - found["low"] < 0.02
    assert found["p"] < 0.001
    assert (found["rows"], found["documents"]) == (40, 20)


def test_paired_means_are_those_of_the_shared_rows() -> None:
    """One side lacks the rows that are easy: its own mean would contradict the difference."""
    easy = np.where(np.arange(40) < 16, 5.0, 0.0)
    whole, part = side("a", easy), side("b", np.where(easy > 0, np.nan, easy - 0.1))
    kept = {k: v for k, v in part.values[KEY].items() if not np.isnan(v)}
    (found,) = compare([whole, replace(part, values={**part.values, KEY: kept})])
    assert (found["method"], found["rows"]) == (PAIRED, 24)
    assert (found["first_mean"], found["other_mean"]) == pytest.approx((0.0, -0.1))


def test_what_could_have_been_found() -> None:
    """t at 97.5% and at 80% with 19 degrees of freedom, times the standard error."""
    (found,) = compare([side("a", noise(0)), side("b", noise(1))])
    error = cluster_error(noise(1) - noise(0), DOCUMENTS)
    assert found["detectable"] == pytest.approx((2.093 + 0.861) * error, rel=1e-3)
    (found,) = compare([side("a", noise(0)), side("b", noise(1), rows="other")])
    assert found["detectable"] > (1.96 + 0.84) * error * 0.5


def test_a_paired_p_is_two_sided() -> None:
    shared = noise(0)
    better, worse = side("a", shared), side("b", shared - 0.5)
    (down,), (up,) = compare([better, worse]), compare([worse, better])
    assert down["difference"] == pytest.approx(-0.5)
    assert down["p"] == up["p"] < 0.001
    (same,) = compare([better, side("c", shared)])
    assert (same["difference"], same["p"]) == (0, 1)


def test_other_rows_are_not_paired() -> None:
    shared = noise(0)
    (found,) = compare([side("a", shared), side("b", shared + 0.5, rows="other")])
    assert found["method"] == UNPAIRED
    assert found["difference"] == pytest.approx(0.5)
    assert found["high"] - found["low"] > 0.3
    assert found["p"] > 0.01


def test_the_same_row_name_in_another_document_is_another_row() -> None:
    first, other = side("a", noise(0)), side("b", noise(0) + 0.5)
    other.documents.update({row: f"x{name}" for row, name in other.documents.items()})
    (found,) = compare([first, other])
    assert found["method"] == UNPAIRED


def test_findings_without_values_are_compared_by_their_intervals() -> None:
    shared = noise(0)
    (found,) = compare([side("a", shared), side("b", shared + 2, values=False)])
    assert found["method"] == SUMMARISED
    assert found["difference"] == pytest.approx(2)
    assert found["low"] > 1
    assert found["p"] < 1e-6


def test_welch_by_hand() -> None:
    """0 and 2 against 5 and 7: two standard errors of √2, so t = 5/2 with two degrees of freedom,
    and p = 1 − t/√(2 + t²)."""
    made = []
    for name, values in (("a", [0.0, 2.0]), ("b", [5.0, 7.0])):
        rows = dict(zip((f"{name}0", f"{name}1"), values, strict=True))
        part = Part("p", measured=[Measured("m", "real", np.array(values))])
        found = findings([part], ["x", "y"])
        documents = dict(zip(rows, "xy", strict=True))
        made.append(Side(name, found, {("p", "m", "real"): rows}, documents))
    (found,) = compare(made)
    assert found["difference"] == 5
    assert found["p"] == pytest.approx(1 - 2.5 / 8.25**0.5)


def test_one_document_has_no_interval() -> None:
    made = []
    for name in ("a", "b"):
        rows = {f"{name}0": 0.0, f"{name}1": 1.0}
        found = findings([Part("p", [Measured("m", "real", np.arange(2.0))])], ["x", "x"])
        made.append(Side(name, found, {("p", "m", "real"): rows}, dict.fromkeys(rows, "x")))
    (found,) = compare(made)
    assert (found["low"], found["high"], found["p"]) == (None, None, 1.0)


def test_floors_are_no_claims() -> None:
    found = side("a", noise(0))
    found.findings.append({**found.findings[0], "measure": "other", "condition": "labels"})
    found.findings.append({**found.findings[0], "condition": "label", "floor": "empty"})
    found.findings.append({**found.findings[0], "measure": "r", "condition": "tfidf:explanation"})
    assert claims(found) == [
        ("roundtrip", "score", "real"),
        ("roundtrip", "other", "labels"),
        ("roundtrip", "r", "tfidf:explanation"),
    ]


def test_holm_corrects_the_headline_measures_alone() -> None:
    """A hundred measures more change no p of a headline, and have none that is corrected."""
    names = ["centred_cosine", "fve", *(f"other {i}" for i in range(100))]
    sides = []
    for seed, step in enumerate((0.0, 0.3)):
        one = side("ab"[seed], noise(0))
        values = [noise(i) + step for i in range(len(names))]
        rows = list(one.documents)
        part = Part(
            "roundtrip", [Measured(name, "real", v) for name, v in zip(names, values, strict=True)]
        )
        found = findings([part], [one.documents[row] for row in rows])
        kept = {
            ("roundtrip", name, "real"): dict(zip(rows, v.tolist(), strict=True))
            for name, v in zip(names, values, strict=True)
        }
        sides.append(replace(one, findings=found, values=kept))
    made = {one["measure"]: one for one in compare(sides, permutations=199)}
    assert {name for name, one in made.items() if one["p_holm"] is not None} == set(names[:2])
    for name in names[:2]:
        assert made[name]["p_holm"] == pytest.approx(2 * made[name]["p"])
        assert made[name]["p_holm"] < 0.05


def test_nothing_shared_and_nothing_to_compare() -> None:
    first, other = side("a", noise(0)), side("b", noise(1))
    for one in other.findings:
        one["part"] = "elsewhere"
    with pytest.raises(DataError, match="share no measure"):
        compare([first, other])
    with pytest.raises(DataError, match="two sides"):
        compare([first])


def test_the_best_step_is_that_of_content_not_of_fve() -> None:
    records = [
        {"step": 10, "fve_real": 0.2, "centred_real": 0.50, "centred_empty": 0.0},
        {"step": 20, "fve_real": 0.6, "centred_real": 0.55, "centred_empty": 0.3},
        {"step": 30, "loss": 0.1},
    ]
    assert best_step(records) == {"step": 10, "measure": "centred_real", "gain": 0.5}
    assert best_step([{"step": 1, "gap_nats": 0.1}, {"step": 2, "gap_nats": 0.3}]) == {
        "step": 2,
        "measure": "gap_nats",
        "gain": 0.3,
    }
    assert best_step([{"step": 1, "loss": 2.0}]) is None
