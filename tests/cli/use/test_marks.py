"""How marked words look, with styles and without."""

from __future__ import annotations

from dataclasses import asdict

from nlakit.cli.tables import table_of
from nlakit.cli.use.marks import legend, marked
from nlakit.core.text.recurrence import marks
from nlakit.models.records import Explained, Recurrence
from tests.cli.test_tables import lines_of

TEXT = "A ship [/] of oak; it lists tax and tar. Next: sail."
SAMPLES = ["A ship and a tax.", "Ships.", "A ship.", "Tea."]


def record(samples: list[str]) -> dict[str, object]:
    found = Recurrence(marks(TEXT, samples), samples, [], [], 1.0, 0)
    return asdict(Explained(TEXT, 1.0, recurrence=found))


def test_signs_stand_behind_words_where_there_are_no_styles() -> None:
    """ship in 3 of 4 samples, tax in 1 of 4 (between), oak, lists and tar in none."""
    shown = marked(record(SAMPLES), styled=False)
    assert shown.plain == "A ship* [/] of oak?; it lists? tax and tar?. Next: sail."
    assert not shown.spans


def test_styles_change_no_letter() -> None:
    shown = marked(record(SAMPLES), styled=True)
    assert shown.plain == TEXT
    found = {TEXT[span.start : span.end]: span.style for span in shown.spans}
    assert found == {"ship": "underline", "oak": "dim", "lists": "dim", "tar": "dim"}


def test_the_legend_counts_the_texts_and_wears_the_marks() -> None:
    shown = record(SAMPLES)["recurrence"]
    assert isinstance(shown, dict)
    plain = legend(shown, styled=False)
    assert "(4 samples)" in plain.plain
    assert "again*" in plain.plain
    assert "alone?" in plain.plain
    assert {span.style for span in legend(shown, styled=True).spans} == {"underline", "dim"}
    assert "nlakit eval" in plain.plain


def test_a_table_shows_marks_only_where_they_were_asked_for() -> None:
    rows = [record(SAMPLES), asdict(Explained("A ship.", 1.0))]
    printed = " ".join(" ".join(lines_of(table_of(rows))).split())
    assert "A ship* [/] of oak?;" in printed
    assert "A ship." in printed
