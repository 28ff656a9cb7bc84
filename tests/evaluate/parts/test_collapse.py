"""The part collapse: explanations beside the labels, and what each failure does to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nlakit.evaluate.bench import Part
from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts.collapse import measure
from nlakit.models.subject import Subject
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, build_contract
from tests.evaluate.benches import text_bench

THINGS = "whale tax garden engine psalm river ledger violin".split()
SOURCES = [f"About the {thing}, and {i} more of the kind." for i, thing in enumerate(THINGS)]
LABELS = [f"A {thing} is named; number {i} follows." for i, thing in enumerate(THINGS)]
SHARES = ("unique_40", "unique_80", "unique_120", "unique_200", "unique", "duplicate", "empty",
          "loop", "other_script", "cjk", "cut", "self_bleu", "words", "repeated_items",
          "content_words")  # fmt: skip


def of(texts: list[str], labels: list[str] | None = None) -> Part:
    return measure(text_bench(SOURCES, texts, labels or LABELS))


def mean(part: Part, name: str, condition: str = "explanation") -> float:
    return float(np.nanmean(part.of(name, condition)))


def test_every_measure_stands_beside_the_labels() -> None:
    part = of(LABELS)
    for condition, floor in (("explanation", "label"), ("label", None)):
        found = {one.measure: one.floor for one in part.measured if one.condition == condition}
        assert found == dict.fromkeys(SHARES, floor)
    assert mean(part, "unique") == 1.0 and mean(part, "empty") == 0.0
    assert part.detail["scripts"] == ["LATIN"]
    assert len(part.notes) == 1, "that there is no verbalizer to count tokens with"
    assert Part.parse(part.dump()).detail == part.detail


def test_planted_mode_3_template_collapse() -> None:
    part = of(["A thing is named; this and that follows it, as ever."] * 8)
    assert mean(part, "unique") == pytest.approx(1 / 8)
    assert mean(part, "self_bleu") == pytest.approx(1.0)
    assert part.detail["explanation"]["openings"][0]["count"] == 8
    record = next(
        one
        for one in findings([part], [f"d{i}" for i in range(8)])
        if (one["measure"], one["condition"]) == ("unique", "explanation")
    )
    assert record["gain"] == pytest.approx(1 / 8 - 1) and record["gain_high"] < 0


def test_planted_lists_that_repeat_themselves() -> None:
    part = of([f"It speaks of {one}, {one} and {one}." for one in THINGS])
    assert mean(part, "repeated_items") == pytest.approx(2 / 3)
    assert np.isnan(part.of("repeated_items", "label")).all()  # these have no list
    assert mean(part, "content_words") == pytest.approx(
        sum(len(one) > 4 for one in THINGS) / len(THINGS) + 1  # and `speaks`
    )


def test_planted_mode_4_cut_texts_are_named() -> None:
    whole = [f"{label} " + " ".join(THINGS[i:] + THINGS[:i]) * 9 for i, label in enumerate(LABELS)]
    part = of([text[:300] for text in whole])
    assert mean(part, "cut") == 1.0 and mean(part, "cut", "label") == 0.0
    assert any("explanation: 8 of 8" in note and "300 characters" in note for note in part.notes)


def test_planted_mode_7_empty_texts_are_counted() -> None:
    part = of([*LABELS[:6], "", "  "])
    assert mean(part, "empty") == pytest.approx(0.25)
    assert np.isnan(part.of("self_bleu", "explanation")).sum() == 2


def test_a_script_is_wrong_beside_the_sources_and_labels() -> None:
    russian = ["Кит плывёт в море."] * 8
    assert mean(of(russian), "other_script") == 1.0
    part = measure(text_bench(russian, russian, LABELS))
    assert mean(part, "other_script") == 0.0
    assert mean(of(["鲸鱼在海里。", *LABELS[1:]]), "cjk") == pytest.approx(1 / 8)


def test_without_labels_it_says_so() -> None:
    bench = text_bench(SOURCES, LABELS, [""] * 8)
    part = measure(bench)
    assert {one.condition for one in part.measured} == {"explanation"}
    assert all(one.floor is None for one in part.measured)
    assert any("no labels" in note for note in part.notes)


def test_token_limit_by_hand(toy_subject: Callable[..., Subject]) -> None:
    """A token a character; 24 new tokens, of which `</explanation>` takes 14."""
    subject = toy_subject()
    contract = build_contract(subject, centring="none", max_new_tokens=24)
    av = Verbalizer(subject, contract, None, SMALL_LORA, 0)
    assert len(av.close) == 14
    part = measure(text_bench(["s"] * 4, ["", "a" * 10, "a" * 11, "a" * 24], ["b"] * 4, av=av))
    assert part.of("hit_token_limit", "explanation").tolist() == [0, 0, 1, 1]
    assert part.of("hit_token_limit", "label").tolist() == [0, 0, 0, 0]
    assert part.notes == []
