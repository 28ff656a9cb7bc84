"""Controls of the AV: what it writes for vectors of nothing, and the loss of the labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlakit.evaluate.bench import Part
from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts.av_reading import control_texts, measure
from tests.evaluate.av_fakes import (
    DOCUMENTS,
    FakeAV,
    fake_bench,
    honest_loss,
    nearest_row,
    toy_bench,
)

CONTROLS = {"other_row", "random_direction", "zero", "mean_vector", "no_injection"}


def test_an_av_that_reads_gains_over_every_control() -> None:
    part = measure(fake_bench(FakeAV(nearest_row, honest_loss)))
    assert set(part.detail["controls"]) == CONTROLS
    assert part.of("centred_cosine", "real").tolist() == pytest.approx([1] * 6)
    for name in CONTROLS:
        assert part.of("same_text", name).tolist() == [0] * 6
        assert (part.of("centred_cosine", name) < 0.9).all()
    assert part.of("nll", "right_vector").tolist() == [1] * 6
    assert part.of("gap", "labels").tolist() == [2] * 6
    (real,) = [
        one
        for one in findings([part], DOCUMENTS)
        if (one["measure"], one["condition"]) == ("centred_cosine", "real")
    ]
    assert real["floor"] == "random_direction" and real["gain"] > 0.5


@pytest.mark.parametrize("text", ["the same words whatever comes", "row 3"])
def test_planted_av_that_ignores_its_vector_gains_nothing(text: str) -> None:
    """The second one copies one label: it scores on the row that has it, and gains nothing."""
    part = measure(fake_bench(FakeAV(lambda vector, place: text, lambda vector, label: 1.5)))
    for name in CONTROLS:
        assert (part.of("same_text", name) == 1).all()
        assert (part.of("centred_cosine", "real") == part.of("centred_cosine", name)).all()
        assert part.detail["controls"][name] == {"texts": 1, "example": text}
    assert (part.of("gap", "labels") == 0).all()


def test_control_vectors_have_the_norm_of_the_rows() -> None:
    seen: list[float] = []

    def note(vector: torch.Tensor | None, place: int) -> str:
        seen.append(-1.0 if vector is None else round(float(vector.norm()), 4))
        return "x"

    av: Any = FakeAV(note, honest_loss)
    bench = fake_bench(av, mean=np.array([0.1, 0.2, 0.0]))
    seen.clear()
    texts = control_texts(bench, av, 4)
    assert seen == [2, 2, 2, 2, 0, 2, -1]
    assert {len(control) for control in texts.values()} == {4}


def test_other_row_is_the_text_of_another_document() -> None:
    av: Any = FakeAV(nearest_row, honest_loss)
    for row, text in enumerate(control_texts(fake_bench(av), av, 6)["other_row"]):
        assert text and DOCUMENTS[int(text.split()[1])] != DOCUMENTS[row]


@pytest.mark.parametrize(("profile", "losses"), [("quick", 4), ("full", 6)])
def test_only_the_control_rows_have_values(profile: str, losses: int) -> None:
    av = FakeAV(nearest_row, honest_loss)
    part = measure(fake_bench(av, settings={"control_rows": 4, "profile": profile}))
    assert np.isnan(part.of("fve", "zero")).tolist() == [False] * 4 + [True] * 2
    assert (~np.isnan(part.of("gap", "labels"))).sum() == losses
    assert len(part.texts["real"]) == 4


def test_rows_without_a_usable_label_are_counted() -> None:
    labels = ["row 0", "", "row 2", "a ㊗ in it", "row 4", "row 5"]
    part = measure(fake_bench(FakeAV(nearest_row, honest_loss), labels=labels))
    gap = part.of("gap", "labels")
    assert np.isnan(gap).tolist() == [False, True, False, True, False, False]
    assert any(note.startswith("2 of 6 rows have no usable label") for note in part.notes)


def test_halves_that_are_missing_are_said() -> None:
    none = measure(fake_bench(None))
    assert not none.measured and "no AV" in none.notes[0]
    part = measure(fake_bench(FakeAV(nearest_row, honest_loss), ar=None))
    assert {one.measure for one in part.measured} == {"same_text", "nll", "gap"}
    assert any("no AR" in note for note in part.notes)


def test_injection_norms_are_told_beside_those_of_the_subject() -> None:
    found = measure(fake_bench(FakeAV(nearest_row, honest_loss))).detail["injection"]
    assert found == {"norm": 2.0, "to_embedding_norm": 2.0, "to_activation_norm": 0.4}


def test_real_halves(toy_subject: Any, vectors: np.ndarray) -> None:
    bench = toy_bench(toy_subject, vectors)
    part = measure(bench)
    conditions = {one.condition for one in part.measured if one.measure == "fve"}
    assert conditions == {"real", *CONTROLS}
    assert bench.av is not None
    right = bench.av.label_loss(bench.av.scaled(vectors), bench.rows.texts)
    assert part.of("nll", "right_vector") == pytest.approx(right)
    # Raw, the mean direction and its centred form are one: the AV's own scaling gives it too.
    assert part.texts["mean_vector"][0] == bench.av.explain(bench.mean[None])[0]
    assert any("centred" in note for note in part.notes)
    assert Part.parse(part.dump()).detail == part.detail
