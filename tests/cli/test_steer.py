"""`nlakit steer`: what it asks a pair for, what it prints in 80 columns, what it refuses first."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nlakit.cli.use import steer as cli_steer
from nlakit.models.steering.record import AtSize, Steered
from tests.cli.test_tables import check
from tests.commands import call
from tests.toyplace import write_lines

LONG = " and then the captain ordered the crew to lower the boats at once, for the whale"


class FakeNLA:
    """A pair that keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def steer(self, text: str, original: str | None, edited: Any, **given: Any) -> Steered:
        self.asked.append({"text": text, "original": original, "edited": edited, **given})
        sizes = [
            AtSize(alpha, LONG, -3.0, 1.5, -2.0, -1.0, [-9.0], [-9.0], [-4.0], [LONG], [])
            for alpha in given["alphas"]
        ]
        return Steered(
            text, original or "own", str(edited), ["war"], [4], False, " x", LONG, -4.5, -5.0, -1.0,
            0.5, sizes,
        )  # fmt: skip


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> FakeNLA:
    made = FakeNLA()
    monkeypatch.setattr(cli_steer, "load_pair", lambda *args: made)
    return made


def test_a_table_in_80_columns(pair: FakeNLA, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=80, file=io.StringIO(), color_system=None)
    monkeypatch.setattr(cli_steer, "console", console)
    words = ("--from", "love", "--edit", "love=war", "--alpha", "0.5,-1", "--at", "-2")
    said = call("steer", "demo", "A text", *words)
    assert (said.code, said.crash, said.err) == (0, "", "")
    (asked,) = pair.asked
    assert (asked["original"], asked["edited"]) == ("love", {"love": "war"})
    assert (asked["alphas"], asked["positions"]) == ((0.5, -1.0), [-2])
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    table = [line for line in shown.splitlines() if not line.startswith(("success", "to", "words"))]
    assert max(map(len, table)) <= 80
    assert "+1.50" in shown and "+6.00" in shown and "50% of cases" in shown
    assert shown.count("random") >= 2 and "captain" in shown


def test_lines_of_json_have_a_record_a_size(pair: FakeNLA, tmp_path: Path) -> None:
    words = ("demo", "A text", "--to", "war", "--alpha", "1,2")
    said = call("steer", *words, "--format", "jsonl")
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [one["alpha"] for one in records] == [1, 2]
    assert records[0]["gain"] == 6 and records[0]["success"] is True
    assert pair.asked[0]["original"] is None
    assert call("steer", *words, "--save", str(tmp_path / "s.parquet")).code == 0
    assert (tmp_path / "s.parquet").stat().st_size > 100


def test_a_file_of_edits_ends_in_a_summary(
    pair: FakeNLA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"text": f"t{n}", "original": "love", "edit": "love=war", "document": f"d{n % 3}"}
        for n in range(6)
    ] + [{"text": "u", "edited": "war", "edit": None}]
    write_lines(tmp_path / "edits.jsonl", rows)
    shown: list[Any] = []
    monkeypatch.setattr(cli_steer, "table_of", lambda found: shown.append(found) or "")
    said = call("steer", "demo", "--file", str(tmp_path / "edits.jsonl"), "--alpha", "1")
    assert (said.code, said.crash, said.err) == (0, "", "")
    assert [one["text"] for one in pair.asked] == ["t0", "t1", "t2", "t3", "t4", "t5", "u"]
    assert pair.asked[0]["edited"] == {"love": "war"} and pair.asked[6]["edited"] == "war"
    (findings,) = shown
    assert findings[0]["success"]["documents"] == 4  # d0, d1, d2, and line 7 by itself


def test_the_summary_is_one_line_a_finding() -> None:
    wide = {"mean": -10.066, "low": -11.265, "high": -8.1}
    one = {"kind": "a long kind of edit", "alpha": 0.125, "heard": 1000, "chance": 1 / 11}
    lines = check(cli_steer.table_of([one | dict.fromkeys(("success", "rise", "gain"), wide)] * 2))
    assert "0.09" in lines[1]
    check(cli_steer.table_of([one | {"success": None, "rise": wide, "gain": None, "chance": None}]))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["demo"], "a text or --file is needed"),
        (["demo", "t"], "--to or --edit is needed"),
        (["demo", "t", "--to", "x", "--edit", "a=b"], "--to or --edit is needed"),
        (["demo", "t", "--edit", "ab"], "an edit is old=new"),
        (["demo", "t", "--to", "x", "--alpha", "one"], "--alpha takes numbers"),
        (["demo", "t", "--to", "x", "--alpha", "nan"], "finite"),
        (["demo", "t", "--to", "x", "--at", "first"], "--at takes last, all or a token index"),
        (["demo", "t", "--to", "x", "--random", "-1"], "random directions out of range"),
        (["demo", "t", "--to", "x", "--format", "xml"], "unknown --format"),
        (["demo", "t", "--file", "edits.jsonl", "--to", "x"], "a text or --file is needed"),
        (["demo", "--file", "edits.jsonl", "--to", "x"], "--file has explanations of its own"),
        (["demo", "--file", "missing.jsonl"], "cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_a_pair_is_loaded(
    words: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_steer, "load_pair", None)
    said = call("steer", *words)
    assert (said.code, said.crash) == (2, "")
    assert line in said.err and len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "t"}, "line 1 is no edit"),
        ({"edited": "x"}, "line 1 is no edit"),
        ({"text": 3, "edited": "x"}, "line 1 is no edit"),
        ({"text": "t", "edited": "x", "edit": "a=b"}, "line 1 is no edit"),
        ({"text": "t", "edit": {"a": "b"}}, "line 1 is no edit"),
        ({"text": "t", "edit": "ab"}, "an edit is old=new"),
        (None, "steering takes 1 to 1000 edits"),
    ],
)
def test_a_line_that_is_no_edit_is_named(row: Any, said: str, tmp_path: Path) -> None:
    write_lines(tmp_path / "edits.jsonl", [row] if row else [])
    found = call("steer", "demo", "--file", str(tmp_path / "edits.jsonl"))
    assert (found.code, found.crash) == (2, "")
    assert said in found.err
