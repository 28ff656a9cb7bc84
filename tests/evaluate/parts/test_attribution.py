"""Deletion of words and sentences, against readers of which it is known what they read."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from nlakit.core.metrics import fve_rows
from nlakit.evaluate.parts.attribution import MAX_SENTENCES, MAX_WORDS, measure, pieces
from tests.evaluate.readers import VOCABULARY, N, bare, content, explanations, honest, reader_bench


def test_the_delta_of_a_word_is_the_score_with_it_less_the_score_without() -> None:
    bench = reader_bench(honest)
    part = measure(bench)
    words = bench.texts[0].split()
    made = np.stack([honest(bench.texts[0]), honest(" ".join(words[1:]))])
    whole, without = fve_rows(np.tile(bench.rows.vectors[0], (2, 1)), made, bench.base)
    word, delta = part.detail["words"]["r0"][0]
    assert word == words[0]
    assert delta == pytest.approx(whole - without, abs=1e-6)
    deltas = [delta for _, delta in part.detail["words"]["r0"]]
    assert part.of("delta_fve_word", "real")[0] == pytest.approx(np.mean(deltas))
    assert part.of("delta_fve_top_word", "real")[0] == pytest.approx(max(deltas))
    helped = sorted(max(delta, 0) for delta in deltas)
    share = part.of("share_top5", "real")[0]
    assert share == pytest.approx(sum(helped[-5:]) / sum(helped))


def test_only_control_rows_are_read_within_the_stated_number_of_texts() -> None:
    bench = reader_bench(honest, settings={"control_rows": 32})
    part = measure(bench)
    known = ~np.isnan(part.of("delta_fve_word", "real"))
    assert known.tolist() == [True] * 32 + [False] * (N - 32)
    assert cast(Any, bench.ar).read == 32 * (24 + 3 + 1)
    assert part.notes == [f"pieces were deleted in the first 32 of 48 rows: {32 * 28} texts read"]
    assert 32 * (MAX_WORDS + MAX_SENTENCES + 1) < 1500
    assert len(part.detail["words"]) == 20


def test_planted_reader_of_one_word_gives_all_to_that_word() -> None:
    def one_word(text: str) -> np.ndarray:
        return content([word for word in bare(text) if word.startswith("key")], 0)

    texts = [f"{text} key{row}" for row, text in enumerate(explanations())]
    vectors = np.stack([one_word(text) for text in texts]).astype(np.float32)
    part = measure(reader_bench(one_word, texts=texts, vectors=vectors))
    shown = part.detail["words"]["r3"]
    assert shown[-1][0] == "key3"
    assert shown[-1][1] > 0.5
    assert all(delta == pytest.approx(0, abs=1e-6) for _, delta in shown[:-1])
    top, floor = (part.of("delta_fve_top_word", name) for name in ("real", "other_vector"))
    assert np.nanmean(top) > 0.5 > abs(np.nanmean(floor)) * 2
    assert np.nanmin(part.of("share_top5", "real")) == pytest.approx(1)


def test_planted_reader_that_moves_without_content_is_no_better_than_its_floor() -> None:
    def length(text: str) -> np.ndarray:
        return content([f"length {len(text)}"], 0)

    part = measure(reader_bench(length))
    gain = part.of("delta_fve_word", "real") - part.of("delta_fve_word", "other_vector")
    error = np.nanstd(gain) / np.sqrt((~np.isnan(gain)).sum())
    assert abs(np.nanmean(gain)) < 3 * error
    clean = measure(reader_bench(honest))
    gain = clean.of("delta_fve_word", "real") - clean.of("delta_fve_word", "other_vector")
    assert np.nanmean(gain) > 5 * np.nanstd(gain) / np.sqrt((~np.isnan(gain)).sum())


def test_long_and_empty_texts_are_grouped_counted_and_told() -> None:
    texts = [" ".join(VOCABULARY[:80]), "", *explanations()[:4]]
    part = measure(reader_bench(honest, texts=texts))
    assert len(part.detail["words"]["r0"]) == MAX_WORDS
    assert " ".join(word for word, _ in part.detail["words"]["r0"]) == texts[0]
    assert "r1" not in part.detail["words"]
    assert np.isnan(part.of("delta_fve_word", "real")[1])
    assert any("1 texts have over" in note for note in part.notes)
    assert any("1 texts are empty" in note for note in part.notes)


def test_pieces_are_joined_only_where_there_are_too_many() -> None:
    assert pieces(["a", "b"], 3) == ["a", "b"]
    assert pieces(list("abcdefg"), 3) == ["a b c", "d e", "f g"]


def test_without_an_ar_a_note_stands_in_place_of_numbers() -> None:
    part = measure(reader_bench(None))
    assert part.measured == []
    assert "no AR" in part.notes[0]
