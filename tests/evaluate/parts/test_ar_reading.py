"""What an AR reads of a text, with ARs that read little of it planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit.evaluate.bench import Part
from nlakit.evaluate.parts.ar_reading import OPENING, kept, measure
from tests.evaluate.readers import N, bare, content, explanations, honest, reader_bench

CONDITIONS = {
    "real", "sentence_shuffle", "sentence_deletion", "clause_deletion", "word_shuffle",
    "word_shuffle_in_sentences", "other_names", "first_8_words", "after_8_words", "prefix_10",
    "prefix_20", "prefix_40", "prefix_80", "no_quotes", "quotes_only", "no_copied_words",
    "opening_kept_rest_other", "paraphrase", "empty",
}  # fmt: skip


def retained(part: Part, condition: str) -> dict[str, Any]:
    """Ratio for centred cosine, its upper bound, and the share of movement."""
    found = part.detail["retained"][condition]
    return {**found["centred_cosine"], "moved_share": found["moved_share"]}


@pytest.fixture(scope="module")
def clean() -> Part:
    return measure(reader_bench(honest))


def test_every_condition_has_scores_beside_the_empty_text_and_whole_texts(clean: Part) -> None:
    assert {one.condition for one in clean.measured} == CONDITIONS == set(clean.texts)
    floors = {one.floor for one in clean.measured if one.measure == "fve"}
    assert floors == {"empty", None}
    for condition in CONDITIONS:
        assert len(clean.texts[condition]) == N
        assert clean.of("centred_cosine", condition).shape == (N,)
    assert Part.parse(clean.dump()).detail == clean.detail


def test_what_is_lost_and_retained_is_worked_out_by_row(clean: Part) -> None:
    real, cut, empty = (clean.of("fve", name) for name in ("real", "prefix_10", "empty"))
    np.testing.assert_allclose(clean.of("fve_lost", "prefix_10"), real - cut)
    ratio = clean.detail["retained"]["prefix_10"]["fve"]
    assert ratio["ratio"] == pytest.approx((cut - empty).mean() / (real - empty).mean())
    assert ratio["low"] < ratio["ratio"] < ratio["high"]
    np.testing.assert_allclose(clean.of("length_ratio", "prefix_10"), 10 / 24)
    np.testing.assert_allclose(clean.of("moved", "prefix_80"), 0, atol=1e-12)
    assert np.all(clean.of("length_ratio", "empty") == 0)


def test_an_honest_reader_loses_by_every_change(clean: Part) -> None:
    assert clean.of("centred_cosine", "real").mean() > 0.8
    for name in ("word_shuffle", "word_shuffle_in_sentences", "opening_kept_rest_other"):
        assert retained(clean, name)["high"] < 0.98
        assert retained(clean, name)["moved_share"] > 0.05
    kept = [retained(clean, f"prefix_{count}")["ratio"] for count in (10, 20, 40)]
    assert kept[0] < kept[1] < kept[2] == 1
    assert retained(clean, "no_quotes")["low"] > 0.5
    assert retained(clean, "quotes_only")["high"] < 0.8


def test_planted_reader_of_the_opening_alone_is_told() -> None:
    openings = {tuple(bare(text)[:8]): honest(text) for text in explanations()}

    def opening(text: str) -> np.ndarray:
        return openings.get(tuple(bare(text)[:8]), content([], 0))

    part = measure(reader_bench(opening))
    assert retained(part, "opening_kept_rest_other")["ratio"] == 1
    assert retained(part, "opening_kept_rest_other")["moved_share"] == pytest.approx(0, abs=1e-12)
    assert retained(part, f"first_{OPENING}_words")["ratio"] == 1
    assert retained(part, f"after_{OPENING}_words")["ratio"] == pytest.approx(0, abs=1e-6)


def test_planted_reader_of_order_free_words_is_told() -> None:
    part = measure(reader_bench(lambda text: content(sorted(bare(text)), 0)))
    for name in ("word_shuffle", "word_shuffle_in_sentences", "sentence_shuffle"):
        assert retained(part, name)["ratio"] == pytest.approx(1)
        assert retained(part, name)["moved_share"] == pytest.approx(0, abs=1e-6)
    assert retained(part, "opening_kept_rest_other")["high"] < 0.8


def test_planted_reader_of_quoted_text_alone_is_told() -> None:
    hidden = {text.split("“")[1].strip("”."): honest(text) for text in explanations()}

    def quoted(text: str) -> np.ndarray:
        return hidden.get(text.partition("“")[2].strip("”."), content([], 0))

    part = measure(reader_bench(quoted))
    assert part.of("centred_cosine", "real").mean() > 0.8
    for name in ("no_quotes", "no_copied_words"):
        assert retained(part, name)["high"] < 0.05
        np.testing.assert_allclose(part.of("fve", name), part.of("fve", "empty"))
    assert retained(part, "quotes_only")["ratio"] == 1
    assert retained(part, "word_shuffle")["high"] < 0.5


def test_a_reader_of_nothing_retains_nothing_that_could_be_named() -> None:
    part = measure(reader_bench(lambda text: content([], 0)))
    assert all(found["centred_cosine"] is None for found in part.detail["retained"].values())
    assert all(found["moved_share"] is None for found in part.detail["retained"].values())
    assert any("nothing is retained" in note for note in part.notes)


def test_texts_without_a_rest_or_a_sentence_to_move_are_said_so() -> None:
    texts = [" ".join(bare(text)[:10]) for text in explanations()]
    texts[0] = ""
    part = measure(reader_bench(honest, texts=texts))
    for condition in ("opening_kept_rest_other", "after_8_words"):
        assert np.isnan(part.of("fve", condition)).all()
        assert part.detail["retained"][condition]["rows"] == 0
    assert any(note.startswith("48 of 48 texts have under 16 words") for note in part.notes)
    assert any(note.startswith("sentence_shuffle changes 0%") for note in part.notes)
    # The empty text stays in the denominator, scored as the empty string.
    assert part.of("fve", "real")[0] == part.of("fve", "empty")[0]
    assert np.isnan(part.of("length_ratio", "prefix_10")[0])


def test_texts_that_a_condition_leaves_out_are_not_changed_by_it(clean: Part) -> None:
    """The share is of all texts: a change of three rows of many tells nothing of the others."""
    part = Part("ar_reading", texts={name: list(t) for name, t in clean.texts.items()})
    part.measured = clean.measured
    real = part.texts["real"]
    part.texts["word_shuffle"] = [f"{real[0]} x", *[None] * (len(real) - 1)]
    told = sum(text is not None for text in real)
    found = kept(part, "word_shuffle", [f"d{i}" for i in range(len(real))])
    assert found["changed"] == pytest.approx(1 / told)


def test_the_rest_is_of_another_document() -> None:
    bench = reader_bench(honest)
    owner = {tuple(text.split()[8:]): row for row, text in enumerate(bench.texts)}
    for row, text in enumerate(measure(bench).texts["opening_kept_rest_other"]):
        assert text is not None
        assert text.split()[:8] == bench.texts[row].split()[:8]
        assert bench.documents[owner[tuple(text.split()[8:])]] != bench.documents[row]


def test_without_an_ar_a_note_stands_in_place_of_numbers() -> None:
    part = measure(reader_bench(None))
    assert part.measured == []
    assert "no AR" in part.notes[0]
