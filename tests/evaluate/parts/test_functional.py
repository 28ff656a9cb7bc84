"""What a subject does with reconstructions, on toy pairs whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit.core.metrics import mean_unit
from nlakit.core.prompts import document_ids
from nlakit.evaluate.bench import Bench, Part
from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts.functional import FLOORS, measure
from nlakit.evaluate.parts.readouts import untrained
from nlakit.models.steering.patch import Patcher
from nlakit.models.subject import activations_of
from tests.evaluate.av_fakes import toy_bench

CONDITIONS = {"real", "label", "own", *FLOORS}


class Told:
    """An AR that makes of each text what it is told."""

    def __init__(self, known: dict[str, np.ndarray], other: np.ndarray) -> None:
        self.known, self.other = known, other

    def reconstruct(self, texts: Any) -> np.ndarray:
        return np.stack([self.known.get(text, self.other) for text in texts])


def bench_of(toy_subject: Any, vectors: np.ndarray, **more: Any) -> Bench:
    """Eight rows whose vectors are those of their sources' last tokens; texts `said 0` to 7."""
    bench = toy_bench(toy_subject, vectors, **more)
    av = bench.av
    assert av is not None
    bench.texts[:] = [f"said {row}" for row in range(8)]
    with untrained(av):
        for row, source in enumerate(bench.rows.sources):
            ids = document_ids(av.tokenizer, source, av.contract.nlakit.special_tokens)
            bench.rows.vectors[row] = activations_of(av.decoder, ids, av.contract.layer)[-1]
    bench.mean[:] = mean_unit(bench.rows.vectors)
    return bench


def with_ar(bench: Bench, real: Any) -> Bench:
    """`real(row)` is what the AR makes of a row's text; of labels their vectors, of all else ū."""
    known = {bench.texts[row]: real(row) for row in range(8)}
    known |= {label: bench.rows.vectors[row] for row, label in enumerate(bench.rows.texts)}
    object.__setattr__(bench, "ar", Told(known, bench.mean.astype(np.float32)))
    return bench


@pytest.fixture
def perfect(toy_subject: Any, vectors: np.ndarray) -> Bench:
    bench = bench_of(toy_subject, vectors)
    return with_ar(bench, lambda row: bench.rows.vectors[row] / 9)


def test_an_honest_pair_goes_on_as_before_and_floors_do_not(perfect: Bench) -> None:
    part = measure(perfect)
    assert {one.condition for one in part.measured} == CONDITIONS
    assert {one.measure for one in part.measured} == {"kl", "top1_kept", "kl_removed"}
    for name in ("real", "label", "own"):
        np.testing.assert_allclose(part.of("kl", name), 0, atol=1e-5)
        np.testing.assert_allclose(part.of("kl_removed", name).mean(), 1, atol=1e-3)
        assert part.of("top1_kept", name).tolist() == [1.0] * 8
    for name in FLOORS:
        assert (part.of("kl", name) > 1e-4).any()
    assert part.notes == []
    assert part.detail == {"rows": 8, "layer": 1}
    assert Part.parse(part.dump()).detail == part.detail


def test_a_row_is_what_the_patcher_says_of_it(perfect: Bench) -> None:
    part, av = measure(perfect), perfect.av
    assert av is not None
    ids = document_ids(av.tokenizer, perfect.rows.sources[3], av.contract.nlakit.special_tokens)
    found = Patcher(av.model, av.decoder, 1).effect(ids, perfect.mean[None])
    assert part.of("kl", "mean")[3] == pytest.approx(found.kl[0], rel=1e-3)


def test_planted_mean_vector_beats_no_patched_mean(toy_subject: Any, vectors: np.ndarray) -> None:
    bench = bench_of(toy_subject, vectors)
    part = measure(with_ar(bench, lambda row: 5 * bench.mean.astype(np.float32)))
    np.testing.assert_allclose(part.of("kl", "real"), part.of("kl", "mean"), atol=1e-5)
    assert part.of("kl_removed", "real").mean() == pytest.approx(0, abs=1e-4)
    made = {(f["measure"], f["condition"]): f for f in findings([part], bench.documents)}
    assert made["kl", "real"]["gain"] > -1e-5  # a negative gain would be a better one
    assert made["kl_removed", "real"]["gain"] < 1e-4


def test_planted_vectors_of_other_rows_are_no_better_than_their_floor(
    toy_subject: Any, vectors: np.ndarray
) -> None:
    bench = bench_of(toy_subject, vectors)
    part = measure(with_ar(bench, lambda row: bench.rows.vectors[(row + 2) % 8]))
    assert part.of("kl", "real").mean() > 10 * part.of("kl", "own").mean() + 1e-4
    assert part.of("kl_removed", "real").mean() < 0.9


def test_the_share_removed_is_a_ratio_of_sums(perfect: Bench) -> None:
    bench = with_ar(perfect, lambda row: perfect.rows.vectors[row] / 9 + 5 * (-1) ** row)
    part = measure(bench)
    kl, mean = part.of("kl", "real"), part.of("kl", "mean")
    assert part.of("kl_removed", "real").mean() == pytest.approx(1 - kl.sum() / mean.sum())
    assert (part.of("kl_removed", "mean") == 0).all()


def test_the_floor_is_the_best_and_a_good_pair_has_less_divergence(perfect: Bench) -> None:
    part = measure(perfect)
    means = {name: part.of("kl", name).mean() for name in FLOORS}
    made = {(f["measure"], f["condition"]): f for f in findings([part], perfect.documents)}
    told = made["kl", "real"]
    assert told["floor"] == min(means, key=lambda name: means[name])
    assert told["gain"] == pytest.approx(-min(means.values()), rel=1e-3)
    assert made["kl", "mean"]["floor"] is made["kl", "own"]["floor"] is None
    assert made["top1_kept", "real"]["high"] <= 1


def test_a_row_whose_source_gives_another_vector_is_left_out_and_counted(perfect: Bench) -> None:
    perfect.rows.vectors[3] = -perfect.rows.vectors[3]
    part = measure(perfect)
    assert np.flatnonzero(np.isnan(part.of("kl", "own"))).tolist() == [3]
    assert "1 of 8 rows are left out" in part.notes[0]
    perfect.rows.vectors[:] = -perfect.rows.vectors * np.where(np.arange(8) == 3, -1, 1)[:, None]
    part = measure(perfect)
    assert part.measured == []
    assert "no row is left" in part.notes[-1]


def test_an_empty_text_is_counted_as_what_the_ar_makes_of_it(perfect: Bench) -> None:
    perfect.texts[2] = ""
    part = measure(perfect)
    assert part.of("kl", "real")[2] == part.of("kl", "empty")[2]


def test_few_rows_are_of_different_documents(toy_subject: Any, vectors: np.ndarray) -> None:
    settings = {"settings": {"control_rows": 2}}
    bench = bench_of(toy_subject, vectors, **settings)
    part = measure(with_ar(bench, lambda row: bench.rows.vectors[row]))
    assert np.flatnonzero(~np.isnan(part.of("kl", "own"))).tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(("change", "words"), [({"av": None}, "no AV"), ({"ar": None}, "no AR")])
def test_what_cannot_be_measured_is_said(
    perfect: Bench, change: dict[str, Any], words: str
) -> None:
    for name, value in change.items():
        object.__setattr__(perfect, name, value)
    part = measure(perfect)
    assert part.measured == []
    assert words in part.notes[0]


def test_without_sources_there_is_nothing_to_go_on_with(perfect: Bench) -> None:
    perfect.rows.sources[:] = [""] * 8
    assert "no row has a source" in measure(perfect).notes[0]
