"""Baselines without an NLA, and the pair beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts.baselines import measure, nearest
from nlakit.files.rows import TableRows
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import build_contract
from tests.evaluate.av_fakes import (
    DOCUMENTS,
    VECTORS,
    FakeAV,
    fake_bench,
    honest_loss,
    nearest_row,
    toy_bench,
)


def training(vectors: np.ndarray, texts: list[str]) -> TableRows:
    n = len(vectors)
    blank = ["x"] * n
    names = [f"train-{i}" for i in range(n)]
    return TableRows(names, names, texts, blank, blank, blank, [1] * n, vectors)


def gain_of(part: Any, condition: str) -> dict[str, Any]:
    (one,) = [
        found
        for found in findings([part], DOCUMENTS)
        if (found["measure"], found["condition"]) == ("centred_cosine", condition)
    ]
    return one


def test_nearest_is_by_centred_cosine() -> None:
    """(0.8, 0.6) less the mean (0.8, 0) is (0, 0.6). Raw cosines with (1, 0) and (0, 1) are 0.8 and
    0.6; less the mean these are (0.2, 0) and (-0.8, 1), with centred cosines 0 and 0.78."""
    wanted, train = np.array([[0.8, 0.6]]), np.eye(2)
    assert nearest(wanted, train, np.zeros(2)).tolist() == [0]
    assert nearest(wanted, train, np.array([0.8, 0.0])).tolist() == [1]


def test_nearest_walks_over_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    wanted, train = rng.standard_normal((5, 4)), rng.standard_normal((23, 4))
    whole = nearest(wanted, train, np.zeros(4))
    monkeypatch.setattr("nlakit.evaluate.parts.baselines.CHUNK", 5)
    assert (nearest(wanted, train, np.zeros(4)) == whole).all()


def test_the_pair_beside_the_nearest_neighbour() -> None:
    """Training rows lie near rows 0 to 2, so that their labels serve half of the rows."""
    train = training(VECTORS[:3] + 0.1, [f"row {i}" for i in range(3)])
    part = measure(fake_bench(FakeAV(nearest_row, honest_loss), train=train))
    assert part.texts["nearest_label"][:3] == ["row 0", "row 1", "row 2"]
    assert part.of("centred_cosine", "nearest_label")[:3] == pytest.approx([1, 1, 1])
    assert (part.of("centred_cosine", "nearest_vector")[:3] > 0.99).all()
    assert part.of("centred_cosine", "real") == pytest.approx([1] * 6)
    found = gain_of(part, "real")
    assert found["floor"] == "nearest_label" and found["gain"] > 0
    assert gain_of(part, "nearest_label")["floor"] == "nearest_label_other_row"
    assert gain_of(part, "real_vs_nearest_vector")["gain"] > 0


def test_planted_pair_beaten_by_the_nearest_neighbour() -> None:
    """An AV that says one label of all rows, and training rows that are the test's own."""
    train = training(VECTORS, [f"row {i}" for i in range(6)])
    part = measure(fake_bench(FakeAV(lambda vector, place: "row 3", honest_loss), train=train))
    assert gain_of(part, "real")["gain"] == pytest.approx(-1)  # scores of −1, 0, 0, 1, 0, 0
    assert gain_of(part, "nearest_label")["gain"] > 0.5


def test_what_is_missing_is_said() -> None:
    av = FakeAV(nearest_row, honest_loss)
    alone = measure(fake_bench(av))
    assert [one.floor for one in alone.measured] == [None, None]
    assert any("no training rows" in note for note in alone.notes)
    assert any("all weights" in note for note in alone.notes)
    train = training(VECTORS, [""] * 6)
    wordless = measure(fake_bench(av, train=train, ar=None))
    assert {one.condition for one in wordless.measured} == {
        "nearest_vector", "nearest_vector_other_row",
    }  # fmt: skip
    assert any("no labels" in note for note in wordless.notes)
    assert any("no AR" in note for note in wordless.notes)
    assert any("no AV" in note for note in measure(fake_bench(None, train=train)).notes)


def test_real_halves(toy_subject: Any, vectors: np.ndarray) -> None:
    train = training(vectors[::-1].copy(), [f"label {i}" for i in range(8)])
    bench = toy_bench(toy_subject, vectors, train=train)
    part = measure(bench)
    assert part.texts["nearest_label"] == [f"label {7 - i}" for i in range(8)]
    assert part.of("centred_cosine", "nearest_vector") == pytest.approx([1] * 8)
    for name in ("logit_lens", "continuation", "patchscopes"):
        assert np.isnan(part.of("fve", name)).tolist() == [False] * 4 + [True] * 4
        beside = part.of("fve", f"real_vs_{name}")
        assert beside[:4] == pytest.approx(part.of("fve", "real")[:4])
        assert np.isnan(beside[4:]).all()


def test_an_av_of_its_own_weights_is_not_taken_for_the_subject(
    toy_subject: Any, vectors: np.ndarray
) -> None:
    subject = toy_subject("gemma3")
    own = Verbalizer(subject, build_contract(subject), np.zeros(32), None, 0).eval()
    part = measure(toy_bench(toy_subject, vectors, av=own))
    assert {one.condition for one in part.measured} == {"real"}
