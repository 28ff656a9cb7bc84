"""Over which layers a pair reads: an honest pair, one that knows its own layer alone, and what
could not be read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nlakit.core.metrics import mean_unit
from nlakit.evaluate.bench import AtLayers, Bench, Part
from nlakit.evaluate.parts.layers import measure, summary
from nlakit.files.text import as_json
from tests.evaluate.av_fakes import VECTORS, FakeAV, fake_bench, honest_loss, nearest_row, toy_bench

# A quarter turn about the first axis, longer: rows 0 and 3 stay, the others become their neighbours
# or something that no row is.
TURNED = (VECTORS @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float32)) * 3
# The opposite row's direction: what a pair of another layer says of it is wrong.
OTHER = -VECTORS
# The six directions have none: the floor `mean` needs one.
MEAN = np.array([1, -1, 1]) * 1e-4
NEAR = 1e-3


def bench_at(
    layers: dict[int, np.ndarray], kept: list[int] | None = None, say: Any = nearest_row
) -> Bench:
    av = FakeAV(say, honest_loss)
    av.contract.layer = 12
    rows = kept if kept is not None else list(range(6))
    found = AtLayers(
        rows,
        {layer: vectors[rows] for layer, vectors in layers.items()},
        dict.fromkeys(layers, MEAN),
        ["where from"],
    )
    return replace(fake_bench(av), at_layers=lambda: found, mean=MEAN)


def test_a_layer_is_read_as_if_it_were_the_own_one() -> None:
    part = measure(bench_at({8: VECTORS * 2, 14: TURNED}))
    assert part.texts["layer_8"] == [f"row {i}" for i in range(6)]
    assert part.of("centred_cosine", "layer_8") == pytest.approx([1] * 6)
    assert part.of("fve", "layer_8") == pytest.approx([1] * 6)
    # Its own vectors are named rightly; the tokens' vectors at layer 12 are others.
    assert part.texts["layer_14"] == ["row 0", "row 2", "row 4", "row 3", "row 5", "row 1"]
    assert part.of("centred_cosine", "layer_14") == pytest.approx([1] * 6)
    assert part.of("centred_cosine_k", "layer_14") == pytest.approx([1, 0, 0, 1, 0, 0], abs=NEAR)
    assert part.of("alike", "layer_14") == pytest.approx([1, 0, 0, 1, 0, 0], abs=NEAR)
    assert part.of("top1", "layer_14") == pytest.approx([1] * 6)
    assert part.of("top1_k", "layer_14").tolist() == [1, 0, 0, 1, 0, 0]
    assert part.of("unique", "layer_14") == pytest.approx([1] * 6)
    assert part.detail["norms"] == pytest.approx({"8": 10, "12": 5, "14": 15})


def test_the_own_layer_is_not_written_again() -> None:
    bench = bench_at({8: VECTORS})
    calls = len(bench.av.seen)  # type: ignore[union-attr]
    part = measure(bench)
    assert len(bench.av.seen) == calls + 1  # type: ignore[union-attr]
    assert part.texts["layer_12"] == bench.texts
    for measured, name in (("fve", "fve_k"), ("centred_cosine", "centred_cosine_k")):
        assert part.of(measured, "layer_12").tolist() == part.of(name, "layer_12").tolist()


def test_every_score_stands_over_its_best_floor() -> None:
    part = measure(bench_at({8: VECTORS, 14: TURNED}))
    floors = {(one.measure, one.condition): one.floor for one in part.measured if one.floor}
    for layer in (8, 12, 14):
        for name in ("fve", "centred_cosine", "fve_k", "centred_cosine_k"):
            known = [f"layer_{layer}_{floor}" for floor in ("mean", "empty", "other_row")]
            best = max(known, key=lambda one: float(np.mean(part.of(name, one))))
            assert floors[name, f"layer_{layer}"] == best
        assert floors["top1", f"layer_{layer}"] == f"layer_{layer}_other_row"


def test_planted_pair_that_reads_its_own_layer_alone() -> None:
    """At layer 9 the AV writes one text for all: the layer is not read, and its own one is."""

    def say(vector: Any, place: int) -> str:
        return nearest_row(vector) if abs(float(vector.norm()) - 2) < 0.1 else "row 3"

    bench = bench_at({9: VECTORS}, say=say)
    av = bench.av
    scaled = av.scaled  # type: ignore[union-attr]
    av.scaled = lambda vectors, mean=None: scaled(vectors) * (1 if mean is None else 3)  # type: ignore
    records = {one["layer"]: one for one in summary(measure(bench), bench.documents)}
    assert records[12]["reads"] and records[12]["own"]
    assert not records[9]["reads"] and not records[9]["own"]
    assert records[9]["unique"]["mean"] == pytest.approx(1 / 6)
    assert records[9]["centred_cosine"]["gain"] == pytest.approx(0, abs=NEAR)


def test_the_wrong_vectors_read_as_wrong() -> None:
    """The AV names what is injected: the opposite of the token's vector at layer 12."""
    bench = bench_at({9: OTHER})
    (nine, own) = summary(measure(bench), bench.documents)
    assert (nine["layer"], own["layer"]) == (9, 12)
    assert nine["reads"]
    assert nine["centred_cosine"]["mean"] == pytest.approx(1)
    assert nine["centred_cosine_k"]["mean"] == pytest.approx(-1, abs=NEAR)
    assert nine["alike"]["mean"] == pytest.approx(-1, abs=NEAR)
    assert nine["centred_cosine_k"]["floor_mean"] >= 0  # the mean's, at least


def test_rows_that_could_not_be_read_have_no_value() -> None:
    bench = bench_at({8: VECTORS}, kept=[0, 2, 3, 5])
    part = measure(bench)
    assert np.isnan(part.of("fve", "layer_8")).tolist() == [False, True, False, False, True, False]
    assert np.isnan(part.of("fve", "layer_12")[[1, 4]]).all()
    assert part.texts["layer_8"] == ["row 0", None, "row 2", "row 3", None, "row 5"]
    assert part.detail["rows"] == 4
    nothing = measure(bench_at({8: VECTORS}, kept=[0, 1]))  # one document
    assert not nothing.measured and "too few rows" in nothing.notes[-1]
    assert summary(nothing, bench.documents) == []


def test_the_summary_comes_again_from_stored_values() -> None:
    part = measure(bench_at({8: VECTORS, 14: TURNED}))
    bench = fake_bench(None)
    again = Part.parse(part.dump())
    assert json.loads(as_json(summary(again, bench.documents))) == json.loads(
        as_json(summary(part, bench.documents))
    )
    assert not measure(bench).measured  # without an AV nothing is tried


def test_a_centred_av_is_fed_less_the_layers_own_mean(
    toy_subject: Any, vectors: np.ndarray
) -> None:
    bench = toy_bench(toy_subject, vectors)
    assert bench.av is not None and bench.av.contract.nlakit.centring == "mean_unit"
    shifted = vectors + np.linspace(-30, 30, vectors.shape[1], dtype=np.float32)
    own = mean_unit(shifted)
    fed = bench.av.scaled(shifted, own).numpy()
    expected = shifted / np.linalg.norm(shifted, axis=1, keepdims=True) - own
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert fed == pytest.approx(expected * bench.av.contract.scaling.scale, abs=1e-4)
    assert not np.allclose(fed, bench.av.scaled(shifted).numpy(), atol=1e-2)
