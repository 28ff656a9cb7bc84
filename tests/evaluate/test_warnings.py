"""Every failure is planted once and named by its warning or verdict; clean pairs raise none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlakit.evaluate.bench import Bench
from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts import (
    ar_reading,
    av_reading,
    av_sweep,
    baselines,
    collapse,
    retrieval,
    roundtrip,
    truth,
)
from nlakit.evaluate.verdict import judge
from nlakit.evaluate.warnings import warnings_of
from nlakit.files.rows import TableRows
from tests.evaluate.av_fakes import VECTORS, FakeAV, KnowingAR, fake_bench, honest_loss, nearest_row
from tests.evaluate.benches import text_bench
from tests.evaluate.parts import test_retrieval as documents
from tests.evaluate.readers import VOCABULARY, D, bare, content, explanations, honest, reader_bench

FULL = {"settings": {"profile": "full"}}


def raised(bench: Bench, *modules: Any) -> list[str]:
    parts = [module.measure(bench) for module in modules]
    found = findings(parts, bench.documents)
    return [one["code"] for one in warnings_of(bench, parts, found)]


def test_clean_readers_raise_nothing() -> None:
    assert raised(reader_bench(honest, **FULL), roundtrip, ar_reading, collapse) == []


@pytest.mark.parametrize("order", [0.05, 0.2, 0.5])
def test_an_ar_that_reads_some_order_raises_nothing(order: float) -> None:
    bench = reader_bench(lambda text: content(bare(text), order), **FULL)
    assert raised(bench, roundtrip, ar_reading) == []


def test_planted_mean_vector_ar_is_a_constant_reconstructor() -> None:
    bench = reader_bench(lambda text: np.ones(D), **FULL)
    assert raised(bench, roundtrip) == ["constant-reconstructor"]
    part = roundtrip.measure(bench)
    centred = {n: part.of("centred_cosine", n) for n in ("real", "mean", "empty", "other_row")}
    found = judge(bench.texts, centred, part.of("fve", "real"), bench.documents)
    assert found.word == "content-blind"


def lookup(key: Callable[[str], Any]) -> Callable[[str], np.ndarray]:
    """An AR that knows each row's meaning by a piece of its text, and nothing else."""
    known = {key(text): honest(text) for text in explanations()}
    return lambda text: known.get(key(text), content([], 0))


PLANTED = {
    "reads-opening-only": lookup(lambda text: tuple(bare(text)[:8])),
    "order-free": lambda text: content(sorted(bare(text)), 0),
    "quoted-text-channel": lookup(lambda text: text.partition("“")[2].strip("”.")),
}


@pytest.mark.parametrize("code", PLANTED)
def test_planted_ar_is_named(code: str) -> None:
    assert raised(reader_bench(PLANTED[code], **FULL), roundtrip, ar_reading) == [code]


def test_an_av_that_reads_raises_nothing() -> None:
    bench = fake_bench(FakeAV(nearest_row, honest_loss))
    assert raised(bench, av_reading, av_sweep, baselines) == []


def test_planted_av_that_ignores_its_vector_is_named() -> None:
    bench = fake_bench(FakeAV(lambda vector, place: "row 1", lambda vector, label: 2.0))
    assert "av-ignores-vector" in raised(bench, av_reading)


def test_planted_mode_5_scale_is_named_by_the_norms() -> None:
    av = FakeAV(nearest_row, honest_loss)
    av.contract.nlakit.embedding_norm = 2 / 510  # 510 times the embedding norm, and
    bench = fake_bench(av)
    bench.rows.vectors[:] = bench.rows.vectors / 5 * 0.002  # far above the activations' too
    assert "scale-mismatch" in raised(bench, av_reading)


def test_planted_scale_of_training_is_found_by_the_sweep() -> None:
    """It reads vectors of norm 4 and more; its contract injects them at 2."""

    def deaf(vector: Any, place: int) -> str:
        return nearest_row(vector, place) if vector is not None and vector.norm() > 3 else "nothing"

    vectors = np.tile(VECTORS, (4, 1))
    names = [f"d{i // 2}" for i in range(24)]
    more = {"vectors": vectors, "documents": names, "labels": [f"row {i % 6}" for i in range(24)]}
    bench = text_bench(
        [f"some text {i}" for i in range(24)], ["nothing"] * 24,
        mean=np.zeros(3), av=FakeAV(deaf, honest_loss), ar=KnowingAR(), **more,
    )  # fmt: skip
    assert "scale-mismatch" in raised(bench, av_reading, av_sweep)


def test_planted_mode_13_router_is_named(tmp_path: Path) -> None:
    bench = documents.build_bench(documents.routing, tmp_path)
    assert raised(bench, retrieval) == ["routing"]
    assert raised(documents.build_bench(documents.knowing, tmp_path), retrieval) == []


def test_planted_mode_4_cut_texts_are_named() -> None:
    whole = [f"{text} {text} {text}" for text in explanations()]
    assert raised(reader_bench(honest, texts=whole, **FULL), collapse) == []
    cut = [text[:300] for text in whole]
    assert min(map(len, whole)) > 300
    assert raised(reader_bench(honest, texts=cut, **FULL), collapse) == ["truncated-texts"]


def test_planted_pair_that_a_neighbour_beats_is_told_so() -> None:
    """The training rows are the rows with their labels; the AV says nothing."""
    av = FakeAV(lambda vector, place: "nothing", honest_loss)
    bench = fake_bench(av)
    other = TableRows(**{**vars(bench.rows), "doc_ids": [f"t{i}" for i in range(6)]})
    beaten = fake_bench(av, train=other)
    assert "beaten-by-nearest-neighbour" in raised(beaten, baselines)


def test_planted_one_label_for_all_is_collapsed() -> None:
    texts = ["A passage on things. It speaks of things. It stops here."] * len(explanations())
    bench = reader_bench(honest, texts=texts, **FULL)
    part = roundtrip.measure(bench)
    centred = {n: part.of("centred_cosine", n) for n in ("real", "mean", "empty")}
    found = judge(texts, centred, part.of("fve", "real"), bench.documents)
    assert found.word == "collapsed"


def test_planted_quotes_that_no_source_has_are_named() -> None:
    """Explanations that quote their own source are not warned of; those of other rows are."""
    texts = [f"It stops at “{' '.join(bare(text)[-4:])}”." for text in explanations()]
    assert raised(reader_bench(honest, texts=texts, **FULL), truth) == []
    other = [f"It stops at “{VOCABULARY[i]} {VOCABULARY[i + 9]} and”." for i in range(len(texts))]
    sources = [f"A source that ends in {' '.join(bare(text)[-4:])}" for text in explanations()]
    bench = reader_bench(honest, texts=other, sources=sources, **FULL)
    assert raised(bench, truth) == ["unsupported-quotes"]
