"""Whether recurrence tells what stands in the source, on pairs of which it is known."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nlakit.core.statistics import auc, auc_rows, estimate
from nlakit.core.text.recurrence import Told
from nlakit.evaluate.bench import Bench, Part
from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts import recurrence
from nlakit.evaluate.parts.recurrence import by_row, measure, picked, recurrence_figure
from nlakit.models.using.explaining import Again, Others
from tests.evaluate.av_fakes import toy_bench
from tests.evaluate.readers import VOCABULARY, honest, reader_bench

N, SAMPLES = 48, 4


def words_of(row: int) -> list[str]:
    return np.random.default_rng([row, 5]).choice(VOCABULARY, size=24, replace=False).tolist()


def planted(monkeypatch: pytest.MonkeyPatch, how: str, **more: Any) -> Bench:
    """48 rows; the first 12 of a text's 24 words stand in the source.

    honest: other texts repeat the true half of the words. blind: they repeat a half that has
    nothing to do with truth. liar: they repeat the invented half.
    """
    texts = [" ".join(words_of(row)) + "." for row in range(N)]
    sources = [" ".join(words_of(row)[:12]) for row in range(N)]

    def other(row: int, draw: int) -> str:
        found = words_of(row)
        rng = np.random.default_rng([row, draw, 9])
        if how == "blind":
            found = np.random.default_rng([row, 8]).permutation(found).tolist()
        kept = found[12:] if how == "liar" else found[:12]
        return " ".join(word for word in kept if rng.random() < 0.8)

    def tell(self: Again, av: Any, vectors: Any, beside: Any, *_: Any, **__: Any) -> Others:
        samples = [[other(row, j) for j in range(self.samples)] for row in picked(bench)]
        neighbours = [{3: other(row, 77), 2: other(row, 78)} for row in picked(bench)]
        if how == "samples":
            neighbours = [{} for _ in samples]
        return Others(samples, neighbours, [Told.of("")])

    monkeypatch.setattr(Again, "tell", tell)
    monkeypatch.setattr(recurrence, "neighbour_vectors", lambda *_: [{} for _ in range(N)])
    given = {"texts": texts, "sources": sources, "av": SimpleNamespace()}
    bench = reader_bench(more.pop("rule", honest), **given, **more)
    return bench


def auc_of(part: Part, bench: Bench) -> dict[str, dict[str, Any]]:
    found = findings([part], bench.documents)
    return {one["condition"]: one for one in found if one["measure"] == "auc"}


def test_words_that_recur_because_they_are_true_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = planted(monkeypatch, "honest")
    found = auc_of(measure(bench), bench)
    assert all(found[name]["low"] > 0.8 for name in ("samples", "neighbours", "both"))
    assert found["both"]["mean"] > found["neighbours"]["mean"]
    assert found["other_row"]["low"] < 0.5 < found["other_row"]["high"]
    assert found["both"]["floor"] == "other_row"
    assert found["both"]["gain_low"] > 0.3


def test_recurrence_that_has_nothing_to_do_with_truth_is_at_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = planted(monkeypatch, "blind")
    part = measure(bench)
    found = auc_of(part, bench)
    assert all(found[name]["low"] < 0.5 < found[name]["high"] for name in ("samples", "both"))
    shares = (part.detail["figure"]["supported"][name] for name in ("repeated", "unrepeated"))
    first, second = shares
    assert first["low"] < second["high"]
    assert second["low"] < first["high"]


def test_a_pair_that_repeats_what_it_invents_is_below_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = planted(monkeypatch, "liar")
    figure = measure(bench).detail["figure"]
    assert figure["auc"]["both"]["high"] < 0.2
    assert figure["supported"]["repeated"]["high"] < 0.2
    assert figure["supported"]["unrepeated"]["low"] > 0.8


def test_without_neighbours_samples_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = planted(monkeypatch, "samples")
    part = measure(bench)
    assert set(auc_of(part, bench)) == {"samples", "deletion", "other_row"}
    assert part.detail["figure"]["neighbours"] == 0


def test_without_an_ar_there_is_no_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = planted(monkeypatch, "honest", rule=None)
    part = measure(bench)
    assert "deletion" not in auc_of(part, bench)
    assert any("no AR" in note for note in part.notes)
    assert part.detail["figure"]["auc_over_deletion"] == {}


def test_the_figure_is_that_of_the_findings_and_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = planted(monkeypatch, "honest")
    part = measure(bench)
    results = json.loads(json.dumps({"parts": {"recurrence": {"detail": part.detail}}}))
    figure = recurrence_figure(results)
    assert figure is not None
    for record in findings([part], bench.documents):
        told = figure[record["measure"]][record["condition"]]
        assert told == {key: record[key] for key in ("mean", "low", "high", "rows", "documents")}
    assert (figure["words"], figure["samples"], figure["chance"]) == (N * 24, SAMPLES, 0.5)
    assert figure["supported"]["explanation"]["mean"] == pytest.approx(0.5)
    assert recurrence_figure({}) is None
    assert recurrence_figure({"parts": {"recurrence": {"detail": {}}}}) is None


def test_the_mean_over_rows_is_that_over_words_and_its_spread_too() -> None:
    """Rows of 1 to 9 words: mean and error of the ratio, the error against a bootstrap of
    documents."""
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(40), rng.integers(1, 10, 40))
    truth = rng.random(len(rows)) < 0.4
    scores = truth + rng.standard_normal(len(rows)) + rng.standard_normal(40)[rows]
    values = by_row(auc_rows(scores, truth), rows, 41)
    assert np.isnan(values[40])
    assert np.nanmean(values) == pytest.approx(auc(scores, truth))
    documents = np.arange(40) // 2
    drawn = []
    for _ in range(1000):
        picks = rng.integers(0, 20, 20)
        index = np.concatenate([np.flatnonzero(documents[rows] == pick) for pick in picks])
        drawn.append(auc(scores[index], truth[index]))
    found = estimate(values[:40], [f"d{one}" for one in documents])
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.3)
    assert found.low == pytest.approx(low, abs=0.05)


def test_rows_of_different_documents_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = planted(monkeypatch, "honest", settings={"control_rows": 13})
    rows = picked(bench)
    assert len(rows) == 26
    assert rows[:24] == list(range(0, 48, 2))  # 24 documents of two rows each


def test_a_word_counts_once_a_row_and_predictions_and_habits_are_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = planted(monkeypatch, "honest")
    bench.texts[:] = [f"Passage on ships, ship and oak; next: sail. {row}" for row in range(N)]
    bench.rows.sources[:] = ["An oak stands here."] * N
    monkeypatch.setattr(
        Again,
        "tell",
        lambda self, *_, **__: Others([["Ship."]] * N, [{}] * N, [Told.of("A passage.")]),
    )
    part = measure(bench)
    assert part.detail["apart"] == {"next": N, "frame": N}
    assert part.detail["figure"]["words"] == N * 3  # ship, oak, and the number


@pytest.mark.parametrize(
    ("change", "words"),
    [({"av": None}, "no AV"), ({"sources": [""] * N}, "no row has both")],
)
def test_what_cannot_be_measured_is_said(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    bench = planted(monkeypatch, "honest")
    changed = reader_bench(honest, texts=bench.texts, **({"av": SimpleNamespace()} | change))
    part = measure(changed)
    assert part.measured == []
    assert words in part.notes[0]


def test_where_every_word_is_true_there_is_nothing_to_tell_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = planted(monkeypatch, "honest")
    bench.rows.sources[:] = bench.texts
    part = measure(bench)
    assert part.measured == []
    assert recurrence_figure({"parts": {"recurrence": {"detail": part.detail}}}) is None
    assert "nothing to tell apart" in part.notes[-1]


def test_a_toy_pair_reads_its_neighbours_from_the_sources(
    toy_subject: Any, vectors: np.ndarray
) -> None:
    """Rows whose vectors are those of their sources' last tokens have neighbours; one whose vector
    is another's has none, and is told."""
    from nlakit.evaluate.parts.readouts import untrained
    from nlakit.models.subject import activations_of

    bench = toy_bench(toy_subject, vectors)
    av = bench.av
    assert av is not None
    reads = []
    with untrained(av):
        for source in bench.rows.sources:
            ids = av.tokenizer(source)["input_ids"]
            reads.append(activations_of(av.decoder, ids, av.contract.layer))
    bench.rows.vectors[:] = [read[-1] for read in reads]
    bench.rows.vectors[3] = -bench.rows.vectors[3]
    part = Part("recurrence")
    found = recurrence.neighbour_vectors(part, bench, av, Again(1, 2), list(range(8)))
    assert [len(one) for one in found] == [2, 2, 2, 0, 2, 2, 2, 2]
    last = len(reads[0]) - 1
    assert list(found[0]) == [last - 1, last - 2]
    assert np.array_equal(found[0][last - 1], reads[0][last - 1])
    assert "1 of 8 rows have no neighbours" in part.notes[0]
    whole = measure(bench)
    assert whole.name == "recurrence"
    assert set(whole.detail["told"]) == set(bench.rows.row_ids)
