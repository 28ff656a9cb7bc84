"""Claims of explanations looked up in their sources."""

from __future__ import annotations

import numpy as np
import pytest

from nlakit.evaluate.bench import Part
from nlakit.evaluate.findings import finding
from nlakit.evaluate.parts.truth import measure
from tests.evaluate.benches import text_bench

SOURCES = [
    "The orchestra of Vienna played in 1984, and the trumpets were loud",
    "A whale was seen near Nantucket by two sailors",
    "The recipe needs flour and 3 eggs",
]
TRUE = [
    "A review: it names Vienna and 1984, and says “the trumpets”.",
    "It stops at “two sailors” near Nantucket.",
    "",
]


def test_values_by_hand() -> None:
    texts = ["It names Vienna, Berlin, 1984 and 1985, and says “the trumpets”.", "Some.", ""]
    part = measure(text_bench(SOURCES, texts, TRUE))
    assert part.of("name_precision", "explanation")[0] == 0.5
    assert part.of("number_precision", "explanation")[0] == 0.5
    assert part.of("quote_precision", "explanation")[0] == 1.0
    assert part.of("word_precision", "explanation")[0] == pytest.approx(2 / 4)
    assert part.of("fabricated", "explanation").tolist() == [2, 0, 0]
    for kind in ("quote", "number", "name", "word"):
        assert np.isnan(part.of(f"{kind}_precision", "explanation")[1:]).all(), kind
    assert "explanation: 2 of 3 texts have no quote to look up, and so no quote_precision" in (
        part.notes
    )
    assert part.detail["claims"][0][0] == {"kind": "quote", "text": "the trumpets", "found": True}
    assert part.texts["explanation"] == texts
    assert part.of("fabricated", "label")[:2].tolist() == [0, 0]
    assert np.isnan(part.of("fabricated", "label")[2])  # that row has no label


def test_planted_fabricated_claims_are_counted() -> None:
    invented = [text.replace("Vienna", "Lisbon").replace("1984", "1648") for text in TRUE]
    clean, planted = (measure(text_bench(SOURCES, texts)) for texts in (TRUE, invented))
    assert clean.of("fabricated", "explanation").tolist() == [0, 0, 0]
    assert planted.of("fabricated", "explanation").tolist() == [2, 0, 0]


def test_planted_one_text_for_all_rows_gains_nothing_over_the_floor() -> None:
    own = [*TRUE[:2], "A recipe with flour."]
    for texts, gains in ((own, True), ([TRUE[0]] * 3, False)):
        part = measure(text_bench(SOURCES, texts))
        measured = {(m.measure, m.condition): m for m in part.measured}
        one = measured["word_precision", "explanation"]
        assert one.floor == "other_row"
        floor = part.of(one.measure, one.floor)
        found = finding(part.name, one, floor, ["d0", "d1", "d2"])
        assert (found["gain"] > 0.3) if gains else found["gain"] == 0


def test_one_document_has_no_floor_and_says_so() -> None:
    part = measure(text_bench(SOURCES[:2], TRUE[:2], documents=["d", "d"]))
    assert np.isnan(part.of("fabricated", "other_row")).all()
    assert part.texts["other_row"] == [None, None]
    assert any("and so no floor" in note for note in part.notes)
    assert np.array_equal(
        Part.parse(part.dump()).of("fabricated", "explanation"),
        part.of("fabricated", "explanation"),
    )
