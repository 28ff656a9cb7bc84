"""Edits by rule, their records, and what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit.errors import DataError
from nlakit.models.steering.record import Asked
from nlakit.studies import steering
from nlakit.studies.steering import (
    Edit,
    content_words,
    edits_of,
    form_words,
    measure,
    ruled_edits,
    summarise,
)

WHALE = "A passage on whale, sea and whale. It tells of ships. Likely next: the, he or swam."
TAX = "A passage on tax, ledger and 1845. It tells of money. Likely next: a comma, -ing or paid."
FORM = {"passage", "tells", "likely", "next"}


class FakeNLA:
    """Words of an edit are as likely as its text is long; a direction is told by its edit."""

    ar = object()

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def steer(self, text: str, original: str, edited: str, **given: Any) -> Any:
        self.asked.append(given)

        class Found:
            @staticmethod
            def as_dicts() -> list[dict[str, Any]]:
                return [{"alpha": alpha, "edited": edited} for alpha in given["alphas"]]

        return Found()


def test_words_of_the_form_are_those_of_many_explanations() -> None:
    explanations = [f"A passage on thing{n}." for n in range(40)] + ["Code about self."] * 2
    assert form_words(explanations) == {"a", "passage", "on"}
    assert form_words(["Same words."] * 2) == set()  # two may agree by chance


def test_content_words_by_how_often_they_are_said() -> None:
    assert content_words(WHALE, FORM) == ["whale", "sea", "ships"]
    assert content_words(TAX, FORM) == ["tax", "ledger", "money"]


def test_three_edits_by_rule() -> None:
    made = edits_of(WHALE, TAX, FORM)
    assert made == {
        "word": WHALE.replace("whale", "tax"),
        "topic": "A passage on tax, ledger and tax. It tells of ships. "
        "Likely next: the, he or swam.",
        "next": "A passage on whale, sea and whale. It tells of ships. Likely next: paid.",
    }
    assert edits_of(WHALE, WHALE, FORM) == {}
    assert set(edits_of("No guess on whale.", TAX, FORM)) == {"word", "topic"}


def test_partners_are_of_other_documents_and_a_context_has_all_kinds_or_none() -> None:
    texts, said = ["t0", "t1", "t2", "t3"], [WHALE, TAX, "Nothing.", TAX.replace("tax", "duty")]
    made = ruled_edits(texts, said, ["a", "b", "c", "b"], 2, 0)
    assert [(one.text, one.kind) for one in made] == [
        ("t0", "word"), ("t0", "topic"), ("t0", "next"),
        ("t1", "word"), ("t1", "topic"), ("t1", "next"),
    ]  # fmt: skip
    assert all("duty" not in str(one.edited) for one in made[3:])  # of the same document
    assert made == ruled_edits(texts, said, ["a", "b", "c", "b"], 2, 0)
    with pytest.raises(DataError, match="no explanation can be edited"):
        ruled_edits(["t"] * 2, ["Nothing."] * 2, ["a", "b"], 2, 0)


def test_other_directions_are_of_other_documents_and_the_same_kind(monkeypatch: Any) -> None:
    edits = [Edit("t", "old", f"{doc}{kind}", doc, kind) for doc in "abc" for kind in ("x", "y")]
    monkeypatch.setattr(
        steering, "edit_direction", lambda ar, old, new: np.array([ord(one) for one in new])
    )
    nla: Any = FakeNLA()
    asked = Asked((1.0, 2.0), random=3)
    records = [r for some in measure(nla, edits, asked, others=5) for r in some]
    assert [(r["document"], r["kind"], r["alpha"]) for r in records[:4]] == [
        ("a", "x", 1.0), ("a", "x", 2.0), ("a", "y", 1.0), ("a", "y", 2.0)
    ]  # fmt: skip
    for edit, given in zip(edits, nla.asked, strict=True):
        beside = {"".join(map(chr, row)) for row in given["others"]}
        assert beside == {f"{doc}{edit.kind}" for doc in "abc" if doc != edit.document}
        assert (given["alphas"], given["random"]) == ((1.0, 2.0), 3)
    left = list(measure(nla, edits, asked, skip=[("a", "x"), ("b", "y")]))
    assert len(left) == 4


@pytest.mark.parametrize("count", [0, 1001])
def test_too_few_and_too_many_edits_are_refused(count: int) -> None:
    nla: Any = FakeNLA()
    with pytest.raises(DataError, match="1 to 1000 edits"):
        next(measure(nla, [Edit("t", "a", "b", "d")] * count, Asked()))


def record(document: str, kind: str, rise: float, random: float, success: bool) -> dict[str, Any]:
    return {
        "document": document, "kind": kind, "alpha": 0.5, "log_p": -3.0 + rise, "rise": rise,
        "gain": rise - random, "other_gain": None, "success": success, "chance": 1 / 11,
        "next_log_p": -1.0, "unsteered_next_log_p": -5.0,
        "own_log_p": -2.0, "unsteered_own_log_p": -1.5, "random_own_log_p": [-3.0, -5.0],
    }  # fmt: skip


def test_a_summary_by_hand() -> None:
    rows = [
        record("a", "word", 1.0, -1.0, True), record("b", "word", 2.0, 0.0, True),
        record("c", "next", -1.0, 0.0, False), record("a", "next", 0.0, 0.0, False),
    ]  # fmt: skip
    rows[3] |= {"log_p": None, "rise": None, "gain": None, "success": None}
    found = {one["kind"]: one for one in summarise(rows)}
    assert list(found) == ["word", "next", "all"]
    assert found["all"]["success"]["mean"] == pytest.approx(2 / 3)
    assert found["all"]["rise"]["mean"] == pytest.approx(2 / 3)
    assert found["word"]["gain"]["mean"] == 2.0
    assert (found["next"]["edits"], found["next"]["heard"]) == (2, 1)
    assert found["all"]["next_rise"]["mean"] == 4.0
    assert found["all"]["cost"]["mean"] == -0.5
    assert found["all"]["random_cost"]["mean"] == -2.5
    assert found["all"]["chance"] == 1 / 11 and found["all"]["other_gain"] is None
    assert found["all"]["rise"]["documents"] == 3


def test_one_kind_is_not_said_twice() -> None:
    assert [one["kind"] for one in summarise([record("a", "edit", 1.0, 0.0, True)])] == ["all"]
