"""The quality report by hand, the blind sheet, and the agreement of two labelers with its floor."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from nlakit.core.statistics import derangement
from nlakit.data.labels.labeler import SCHEMA
from nlakit.data.labels.quality import SHEET, agreement, agreement_line, lines, quality, write_sheet
from nlakit.errors import DataError

SOURCE = "The mate looked up at the black sails, and then the old captain said that"
GOOD = "An old captain breaks his silence under black sails; the clause now expects his claim."
TOPICS = "A sea story with themes of adventure, solitude and the lure of distant oceans."
LEAKED = "N: KEEP. The captain is about to speak, so a reported claim has to follow."
FOUND = (
    GOOD,
    GOOD.upper(),  # an exact duplicate but for case
    GOOD.replace("claim", "order"),  # one word of 15 changed: a near duplicate
    TOPICS,
    LEAKED,
    f"It is the captain who speaks next: {SOURCE}.",
    None,
    None,
)


def build_table(labels: list[dict[str, Any]]) -> pa.Table:
    rows = [{name: label.get(name) for name in SCHEMA.names} for label in labels]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def build(**columns: list[Any]) -> tuple[pa.Table, dict[str, str], dict[str, str]]:
    """The eight rows above, with more columns."""
    labels: list[dict[str, Any]] = [
        {"row_id": f"r{k}", "api_explanation": text, "labeler_model": "m" if k < 4 else None}
        for k, text in enumerate(FOUND)
    ]
    labels[6]["reason"], labels[7]["reason"] = "rejected", "too_short"
    for name, values in columns.items():
        for label, value in zip(labels, values, strict=True):
            label[name] = value
    names = [label["row_id"] for label in labels]
    families = {name: "novels" if k % 2 else "letters" for k, name in enumerate(names)}
    return build_table(labels), dict.fromkeys(names, SOURCE), families


def test_rows_reasons_and_faults_by_hand() -> None:
    report = quality(*build())
    assert (report["rows"], report["labelled"]) == (8, 6)
    assert report["reasons"] == {"rejected": 1, "too_short": 1}
    assert report["faults"] == {
        "auditor_leakage": {"count": 1, "share": 1 / 6},
        "copied_source": {"count": 1, "share": 1 / 6},
        "topic_summary": {"count": 1, "share": 1 / 6},
    }
    assert list(report["faults"]) == ["auditor_leakage", "copied_source", "topic_summary"]
    assert report["faulty_share"] == 3 / 6
    assert report["examples"]["copied_source"] == [{"row_id": "r5", "text": FOUND[5]}]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_groups_by_hand() -> None:
    report = quality(*build())
    # letters: rows 0, 2, 4 (leaked) and 6 (no label); novels: 1, 3 (topics), 5 (copied) and 7.
    letters, novels = report["by_family"]["letters"], report["by_family"]["novels"]
    assert (letters["rows"], letters["labelled"], letters["faulty_share"]) == (4, 3, 1 / 3)
    assert (novels["rows"], novels["labelled"], novels["faulty_share"]) == (4, 3, 2 / 3)
    assert letters["mean_words"] == (15 + 15 + 15) / 3
    assert report["by_labeler"]["m"] == {
        "rows": 4, "labelled": 4, "faulty_share": 1 / 4, "mean_words": (3 * 15 + 14) / 4,
    }  # fmt: skip
    assert report["by_labeler"]["unknown"]["labelled"] == 2
    assert report["words"]["p50"] == 15  # of 14, 15, 15, 15, 15, 22


def test_planted_duplicates_are_counted() -> None:
    report = quality(*build())
    assert report["duplicates"] == {"count": 1, "share": 1 / 6}
    assert report["near_duplicates"] == {"count": 2, "share": 2 / 6}
    assert report["top_opening"] == {
        "text": "an old captain breaks his", "count": 3, "share": 3 / 6,
    }  # fmt: skip


def test_planted_mode_8_leaked_verdicts_are_reported_with_their_rows() -> None:
    report = quality(*build())
    assert report["examples"]["auditor_leakage"] == [{"row_id": "r4", "text": LEAKED}]
    assert any("auditor_leakage 1" in line for line in lines(report))


def test_planted_mode_14_topic_summaries_are_reported_with_their_rows() -> None:
    report = quality(*build())
    assert report["examples"]["topic_summary"] == [{"row_id": "r3", "text": TOPICS}]
    labels = [{"row_id": f"r{k}", "api_explanation": f"{TOPICS} {k}"} for k in range(9)]
    names = {label["row_id"]: SOURCE for label in labels}
    report = quality(build_table(labels), names, names)
    assert report["faults"] == {"unclosed": {"count": 9, "share": 1.0},
                                "topic_summary": {"count": 9, "share": 1.0}}  # fmt: skip
    assert len(report["examples"]["topic_summary"]) == 3


def test_planted_mode_7_short_labels_are_reported() -> None:
    labels = [{"row_id": f"r{k}", "api_explanation": "End of text first."} for k in range(4)]
    names = {label["row_id"]: SOURCE for label in labels}
    report = quality(build_table(labels), names, names)
    assert report["faults"]["too_short"] == {"count": 4, "share": 1.0}
    assert report["words"] == {"p5": 4, "p50": 4, "p95": 4}


def test_an_unknown_cost_is_not_zero() -> None:
    known = quality(*build(cost=[0.5] * 7 + [None], tokens_in=[10] * 8))
    assert known["spent"]["cost"] == {"total": 3.5, "known": 3.5, "labels_without": 0}
    assert known["spent"]["tokens_in"]["total"] == 80  # a refused row was paid for too
    assert known["spent"]["tokens_out"] == {"total": None, "known": 0, "labels_without": 6}
    assert lines(known)[-1] == "tokens 80 in, unknown out; US dollars 3.5000"
    unknown = quality(*build(cost=[None] + [0.5] * 7))
    assert unknown["spent"]["cost"] == {"total": None, "known": 3.5, "labels_without": 1}
    assert lines(unknown)[-1] == "tokens unknown in, unknown out; US dollars unknown"


def test_verdicts_are_counted() -> None:
    report = quality(*build(verdict=["KEEP"] * 4 + ["REVISE", None, "REJECT", None]))
    assert report["verdicts"] == {"KEEP": 4, "REVISE": 1, "REJECT": 1}
    assert "verdicts: KEEP 4, REVISE 1, REJECT 1" in lines(report)


def test_a_table_without_labels_has_no_shares() -> None:
    labels = [{"row_id": "r0", "reason": "too_short"}]
    report = quality(build_table(labels), {"r0": SOURCE}, {"r0": "novels"})
    assert report["labelled"] == 0
    assert report["faulty_share"] is report["duplicates"]["share"] is report["words"]["p5"] is None
    assert lines(report)[0] == "1 rows, 0 labelled; not labelled: too_short 1"
    assert quality(build_table([]), {}, {})["rows"] == 0


def test_rows_of_other_activations_are_an_error() -> None:
    table, sources, families = build()
    del sources["r3"]
    with pytest.raises(DataError, match=r"1 labels are of rows without a source text.*r3"):
        quality(table, sources, families)


def read_sheet(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_sheet_is_blind_and_reproducible(tmp_path: Path) -> None:
    table, sources, families = build(verdict=["KEEP"] * 8)
    sources["r0"] = "x" * 100 + "é" * 400
    write_sheet(tmp_path / "a.csv", table, sources, families)
    write_sheet(tmp_path / "b.csv", table, sources, families)
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = read_sheet(tmp_path / "a.csv")
    assert tuple(rows[0]) == SHEET
    assert sorted(row["row_id"] for row in rows) == ["r0", "r1", "r2", "r3", "r4", "r5"]
    by_name = {row["row_id"]: row for row in rows}
    assert by_name["r0"]["end_of_text"] == "é" * 400
    assert by_name["r3"]["label"] == TOPICS and by_name["r3"]["family"] == "novels"
    assert all(row[column] == "" for row in rows for column in SHEET[4:])
    write_sheet(tmp_path / "c.csv", table, sources, families, n=2, seed=1)
    assert len(read_sheet(tmp_path / "c.csv")) == 2


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\n@"])
def test_no_cell_of_the_sheet_is_a_formula(tmp_path: Path, start: str) -> None:
    evil = f'{start}HYPERLINK("http://x", "y")'
    table = build_table([{"row_id": evil, "api_explanation": evil}])
    write_sheet(tmp_path / "a.csv", table, {evil: evil}, {evil: evil})
    row = read_sheet(tmp_path / "a.csv")[0]
    assert [row[name] for name in SHEET[:4]] == [f"'{evil}"] * 4


def test_a_sheet_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row is labelled"):
        write_sheet(tmp_path / "a.csv", build_table([{"row_id": "r"}]), {}, {})
    assert list(tmp_path.iterdir()) == []


def pair_of_labelers(second: Sequence[str | None]) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """A first labeler with labels of one own and one shared word, and a second one."""
    first = [{"row_id": f"r{k}", "api_explanation": f"own{k} always"} for k in range(len(second))]
    other = [{"row_id": f"r{k}", "api_explanation": text} for k, text in enumerate(second)]
    documents = {f"r{k}": f"d{k // 2}" for k in range(len(second))}
    return build_table(first), build_table(other[::-1]), documents


def test_labelers_that_agree_stand_above_their_floor() -> None:
    found = agreement(*pair_of_labelers([f"always own{k}" for k in range(8)]))
    assert found["rows"] == 8 and found["documents"] == 4
    assert found["same_row"]["mean"] == pytest.approx(1)
    assert found["floor"]["mean"] == pytest.approx(0, abs=1e-6)  # what all say weighs nothing
    assert found["same_document"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["gain"]["low"] > 0.99
    assert (found["top_1"]["mean"], found["chance"]) == (1.0, 1 / 8)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert agreement_line(found) == (
        "agreement of two labelers on 8 rows: tf-idf cosine 1.000 [1.000, 1.000], "
        "other documents 0.000 [0.000, 0.000]; top-1 100.0%, chance 12.5%"
    )


def test_a_labeler_that_says_one_thing_scores_its_floor() -> None:
    found = agreement(*pair_of_labelers(["always the sea"] * 8))
    assert found["same_row"]["mean"] == pytest.approx(found["floor"]["mean"], abs=1e-6)
    assert found["gain"]["low"] == pytest.approx(0, abs=1e-6)
    assert found["top_1"]["mean"] == pytest.approx(1 / 8)  # all tie


def test_labelers_that_agree_on_the_document_only() -> None:
    texts = [f"own{k} own{k + 1}" if k % 2 == 0 else f"own{k - 1} own{k}" for k in range(8)]
    found = agreement(*pair_of_labelers(texts))
    assert found["same_row"]["mean"] == pytest.approx(found["same_document"]["mean"])
    assert found["same_document"]["mean"] > 0.5 > found["floor"]["mean"]
    assert found["top_1"]["mean"] == 0.5


def test_the_cosine_by_hand() -> None:
    # Four labels; `sea` is in two of them and weighs ln 2, the others in one and weigh ln 4:
    # (1, 2)·(1, 0, 2) of lengths √5 and √5.
    first = build_table([{"row_id": "a", "api_explanation": "sea calm"},
                         {"row_id": "b", "api_explanation": "wind"}])  # fmt: skip
    second = build_table([{"row_id": "a", "api_explanation": "sea storm"},
                          {"row_id": "b", "api_explanation": "rain"}])  # fmt: skip
    found = agreement(first, second, {"a": "1", "b": "2"})
    assert found["same_row"]["mean"] == pytest.approx((1 / 5 + 0) / 2)
    assert found["floor"]["mean"] == 0
    assert found["same_document"] is None
    assert found["top_1"]["mean"] == pytest.approx((1 + 1 / 2) / 2)  # wind is like none


def test_the_floor_is_of_another_document() -> None:
    documents = [f"d{k // 2}" for k in range(8)]
    partners = derangement(documents, 0)
    texts = ["nothing"] * 8
    for row, partner in enumerate(partners.tolist()):
        texts[partner] += f" own{row}"
    found = agreement(*pair_of_labelers(texts))
    assert found["gain"]["mean"] < 0 < found["floor"]["mean"]


def test_only_rows_that_both_labelled_count_and_a_limit_holds() -> None:
    first, second, documents = pair_of_labelers([None, None, *(f"own{k}" for k in range(2, 8))])
    assert agreement(first, second, documents)["rows"] == 6
    assert agreement(first, second, documents, limit=5)["rows"] == 5


@pytest.mark.parametrize("second", [[None, "x"], ["own0", "own1"], [None, None]])
def test_agreement_needs_two_documents(second: list[str | None]) -> None:
    with pytest.raises(DataError, match="two rows, of two documents"):
        agreement(*pair_of_labelers(second))


def test_agreement_needs_the_documents() -> None:
    first, second, _ = pair_of_labelers(["x", "y", "z"])
    with pytest.raises(DataError, match="without a document"):
        agreement(first, second, {})
