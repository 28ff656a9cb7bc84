"""How texts follow norm, direction, chance and the words before the last token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlakit.evaluate.parts.av_sweep import agreement, between, measure, similarity, tail_partners
from tests.evaluate.av_fakes import FakeAV, fake_bench, honest_loss, nearest_row, toy_bench
from tests.evaluate.benches import text_bench


def test_an_honest_av_follows_its_vector() -> None:
    part = measure(fake_bench(FakeAV(nearest_row, honest_loss)))
    for scale in ("0.25", "0.5", "1", "2", "4"):
        assert part.of("centred_cosine", f"scale_{scale}") == pytest.approx([1] * 6)
        assert (part.of("centred_cosine", f"scale_{scale}_other_row") < 0.5).all()
        assert (part.of("unique", f"scale_{scale}") == 1).all()
        assert (part.of("empty", f"scale_{scale}") == 0).all()
    assert part.of("toward_first", "mix_0") == pytest.approx([1] * 6)
    assert part.of("toward_second", "mix_1") == pytest.approx([1] * 6)
    assert (part.of("toward_first", "mix_1") < 0.5).all()


def test_planted_scale_mismatch_gains_at_another_scale() -> None:
    """An AV trained at norm 0.5 and used at 2: it is silent at its contract's scale."""

    def at_half(vector: torch.Tensor | None, place: int) -> str:
        fits = vector is not None and abs(float(vector.norm()) - 0.5) < 0.1
        return nearest_row(vector) if fits else ""

    bench = fake_bench(FakeAV(at_half, honest_loss))
    part = measure(bench)
    assert (part.of("empty", "scale_1") == 1).all()
    assert (part.of("empty", "scale_0.25") == 0).all()
    silent = bench.score([""] * 6)["centred_cosine"]
    assert part.of("over_scale_1", "scale_0.25") == pytest.approx(1 - silent)
    assert (part.of("over_scale_1", "scale_4") == 0).all()
    assert part.of("unique", "scale_1") == pytest.approx([1 / 6] * 6)


def test_planted_av_that_ignores_its_vector_is_the_same_everywhere() -> None:
    part = measure(fake_bench(FakeAV(lambda vector, place: "row 3", honest_loss)))
    floors = {one.condition: one.floor for one in part.measured if one.measure == "centred_cosine"}
    for condition, floor in floors.items():
        if floor:
            gain = part.of("centred_cosine", condition) - part.of("centred_cosine", floor)
            assert (gain == 0).all()
    assert (part.of("agreement", "sampled") == part.of("agreement", "other_rows")).all()
    assert (part.of("toward_first", "mix_0") == part.of("toward_first", "mix_1")).all()
    assert (part.of("same_tail_unique", "pairs") == 0).all()
    assert (part.of("same_tail_gain", "pairs") == 0).all()


def test_samples_are_scored_by_mean_and_best() -> None:
    """Of two samples the second names the row: mean 0.5 of both scores, best 1."""

    def every_other(vector: torch.Tensor | None, place: int) -> str:
        return nearest_row(vector) if place % 2 else "something odd"

    av = FakeAV(every_other, honest_loss)
    bench = fake_bench(av, settings={"samples": 2, "temperature": 0.7})
    part = measure(bench)
    odd = bench.score(["something odd"] * 6)["centred_cosine"]
    assert part.of("centred_cosine", "sampled_mean") == pytest.approx((1 + odd) / 2)
    assert part.of("centred_cosine", "sampled_best") == pytest.approx([1] * 6)
    assert part.texts["sample_1"] == ["something odd"] * 6
    assert part.texts["sample_2"] == [f"row {i}" for i in range(6)]
    assert av.seen[-1].temperature == 0.7 and av.seen[-1].max_new_tokens == 5


def test_agreement_by_hand() -> None:
    columns = [["a b", "c"], ["b c", "c"], ["a b c", ""]]
    # Row 0: 1/3, 2/3, 2/3; row 1: 1, 0, 0.
    assert agreement(columns, columns, 3)[:2] == pytest.approx([5 / 9, 1 / 3])
    assert np.isnan(agreement(columns, columns, 3)[2])
    assert np.isnan(agreement(columns, [[None, None]] * 3, 2)).all()


@given(st.text(), st.text())
def test_similarity_is_symmetric_and_bounded(first: str, second: str) -> None:
    assert similarity(first, second) == similarity(second, first)
    assert 0 <= similarity(first, second) <= 1 == similarity(first, first)


def test_between_keeps_the_norm() -> None:
    first, second = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert between(first, second, 0.5)[0].tolist() == pytest.approx([2 * 0.9487, 2 * 0.3162], 1e-3)
    assert between(first, second, 0.0).tolist() == first.tolist()


def tails(sources: list[str], tokens: list[str], documents: list[str]) -> Any:
    bench = text_bench(sources, ["t"] * len(sources), documents=documents)
    return tail_partners(replace(bench, rows=replace(bench.rows, tokens=tokens)))


def test_partners_share_the_last_token_and_rather_two_words() -> None:
    sources = ["in the house", "by a house", "of the house", "in the garden", "the house"]
    partners, two = tails(
        sources, [" house"] * 3 + [" garden", " house"], ["a", "b", "c", "d", "a"]
    )
    assert partners.tolist()[0] == 2 and partners.tolist()[2] in (0, 4)
    assert partners[1] in (0, 2, 4) and partners[3] == -1 and partners[4] == 2
    assert two == 3


def test_rows_without_tokens_are_matched_by_their_last_word() -> None:
    partners, _ = tails(["red house.", "my house", ""], ["", "", ""], ["a", "b", "c"])
    assert partners.tolist() == [1, 0, -1]


def test_planted_av_that_reads_only_the_last_token_gains_nothing_over_the_same_tail() -> None:
    """All six rows end in the same token."""
    blind = measure(replace(fake_bench(None), texts=["ends in x"] * 6))
    assert (blind.of("same_tail_gain", "pairs") == 0).all()
    honest = measure(replace(fake_bench(None), texts=[f"row {i}" for i in range(6)]))
    assert (honest.of("same_tail_gain", "pairs") > 0.5).all()
    assert (honest.of("same_tail_unique", "pairs") == 1).all()


def test_missing_halves_are_said() -> None:
    part = measure(fake_bench(None, ar=None))
    assert [one.measure for one in part.measured] == ["same_tail_unique"]
    assert any("no AV" in note for note in part.notes)
    assert any("no AR" in note for note in part.notes)
    unscored = measure(fake_bench(FakeAV(nearest_row, honest_loss), ar=None))
    assert "agreement" in {one.measure for one in unscored.measured}
    assert "fve" not in {one.measure for one in unscored.measured}


def test_one_document_has_no_pairs() -> None:
    av = FakeAV(nearest_row, honest_loss)
    part = measure(fake_bench(av, documents=["a"] * 6, settings={"samples": 1}))
    assert any("nothing to interpolate" in note for note in part.notes)
    assert any("one sample" in note for note in part.notes)
    assert np.isnan(part.of("fve", "scale_2_other_row")).all()


def test_real_halves(toy_subject: Any, vectors: np.ndarray) -> None:
    bench = toy_bench(toy_subject, vectors)
    part = measure(bench)
    assert all(
        one.floor is None or len(part.of(one.measure, one.floor)) == 8 for one in part.measured
    )
    assert bench.av is not None
    doubled = bench.av.write(bench.av.scaled(vectors[:4]) * 2, 4, 4, bench.av.decoding())
    assert part.texts["scale_2"] == doubled
    assert part.texts["mix_0"] == bench.texts[:4]
    assert part.texts["sample_1"] != part.texts["sample_2"]
